import math

import pytest
import torch

from sdekit_generative.metrics.image_quality import psnr, ssim


def _images(n, *shape, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_the_mean_squared_error_in_decibels():
    x = torch.full((2, 1, 4, 4), 0.5)
    y = x.clone()
    y[0] += 0.1
    y[1, 0, 0, 0] += 0.4
    expected = torch.tensor([20.0, -10.0 * math.log10(0.16 / 16)], dtype=torch.float64)
    torch.testing.assert_close(psnr(x, y), expected, rtol=1e-5, atol=0.0)
    assert psnr(x, x).tolist() == [math.inf, math.inf]


def test_ssim_is_one_for_equal_images_and_symmetric():
    x, y = _images(2, 3, 16, 16), _images(2, 3, 16, 16, seed=1)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(ssim(x, y), ssim(y, x))
    assert float(ssim(x, y).max()) < 0.3


def test_ssim_of_even_images_is_its_luminance_term():
    x, y = torch.full((1, 1, 12, 12), 0.2), torch.full((1, 1, 12, 12), 0.6)
    assert float(ssim(x, y)) == pytest.approx((2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4), rel=1e-6)


@pytest.mark.parametrize("size", [8, 16])
def test_ssim_is_its_formula_at_every_window(size):
    x, y = _images(1, 1, size, size).double(), _images(1, 1, size, size, seed=1).double()
    width = min(11, size - 1 + size % 2)
    line = torch.exp(-0.5 * ((torch.arange(width).double() - (width - 1) / 2) / 1.5) ** 2)
    weight = torch.outer(line, line) / line.sum() ** 2
    values = []
    for i in range(size - width + 1):
        for j in range(size - width + 1):
            a, b = (v[0, 0, i : i + width, j : j + width] for v in (x, y))
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
            ab = (weight * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + 1e-4) * (2 * ab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    torch.testing.assert_close(ssim(x, y)[0], torch.stack(values).mean(), rtol=1e-9, atol=1e-12)


def test_images_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
