import itertools

import numpy as np
import pytest
import torch

from sdekit_generative.networks.resample import ConvDown, ConvUp, FirDown, FirUp, MeanDown, RepeatUp

TAPS = [(1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 3.0, 3.0, 1.0), (1.0, 2.0, 3.0, 4.0), (1.0, 4.0, 6.0, 4.0, 1.0)]


def _random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _kernel(taps):
    k = np.array(taps) / sum(taps)
    return np.outer(k, k)


def _full_convolution(image, kernel):
    """Σ_{u, v} kernel[u, v] image[i − u, j − v], by its definition."""
    h, w = image.shape
    n = len(kernel)
    out = np.zeros((h + n - 1, w + n - 1))
    for u, v in itertools.product(range(n), repeat=2):
        out[u : u + h, v : v + w] += kernel[u, v] * image
    return out


@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_fir_down_is_the_filter_and_every_second_place_of_it(taps):
    x = _random(2, 3, 8, 6)
    y = FirDown(3, taps)(x)
    assert y.shape == (2, 3, 4, 3)
    for b, c in itertools.product(range(2), range(3)):
        # the outputs stand at the centres of the squares of four, or half a place before them for odd filters
        whole = _full_convolution(x[b, c].double().numpy(), _kernel(taps))
        start = len(taps) - 1 - (len(taps) - 1) // 2
        np.testing.assert_allclose(y[b, c].numpy(), whole[start::2, start::2][:4, :3], atol=2e-6)


@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_fir_up_is_four_times_the_filter_of_the_image_between_zeros(taps):
    x = _random(2, 3, 4, 3)
    y = FirUp(3, taps)(x)
    assert y.shape == (2, 3, 8, 6)
    for b, c in itertools.product(range(2), range(3)):
        between = np.zeros((8, 6))
        between[::2, ::2] = x[b, c].numpy()
        start = len(taps) - 2 - (len(taps) - 1) // 2
        whole = _full_convolution(between, 4.0 * _kernel(taps))[start : start + 8, start : start + 6]
        np.testing.assert_allclose(y[b, c].numpy(), whole, atol=2e-6)


def test_for_symmetric_filters_up_is_four_times_the_transpose_of_down():
    x, y = _random(1, 2, 8, 8), _random(1, 2, 4, 4)
    inner, outer = (FirDown(2)(x) * y).sum(), (x * FirUp(2)(y)).sum()
    torch.testing.assert_close(4.0 * inner, outer)


def test_what_is_constant_stays_so_away_from_the_border():
    flat = torch.full((1, 1, 8, 8), 3.0)
    torch.testing.assert_close(FirDown(1)(flat)[:, :, 1:-1, 1:-1], torch.full((1, 1, 2, 2), 3.0))
    torch.testing.assert_close(FirUp(1)(flat)[:, :, 1:-1, 1:-1], torch.full((1, 1, 14, 14), 3.0))


def test_means_and_repeats():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert MeanDown()(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(MeanDown()(RepeatUp()(x)), x)


def test_a_convolution_down_is_the_filter_and_then_the_convolution():
    x, layer = _random(2, 3, 8, 8), ConvDown(3, 5, (1.0, 3.0, 3.0, 1.0))
    y = layer(x)
    assert y.shape == (2, 5, 4, 4)
    k = torch.tensor(_kernel((1.0, 3.0, 3.0, 1.0)), dtype=torch.float32).expand(3, 1, 4, 4)
    smooth = torch.nn.functional.conv2d(x, k, padding=2, groups=3)
    torch.testing.assert_close(y, torch.nn.functional.conv2d(smooth, layer.weight, layer.bias, stride=2))


def test_a_convolution_up_is_one_of_the_image_between_zeros():
    x, layer = _random(2, 3, 4, 4), ConvUp(3, 5, (1.0, 3.0, 3.0, 1.0))
    torch.nn.init.normal_(layer.bias)
    y = layer(x)
    assert y.shape == (2, 5, 8, 8)
    between = torch.zeros(2, 3, 7, 7)  # no zeros after the last place: the convolution reaches over the border instead
    between[:, :, ::2, ::2] = x
    k = 4.0 * torch.tensor(_kernel((1.0, 3.0, 3.0, 1.0)), dtype=torch.float32).expand(5, 1, 4, 4)
    convolved = torch.nn.functional.conv2d(between, layer.weight, padding=2)
    expected = torch.nn.functional.conv2d(convolved, k, padding=1, groups=5) + layer.bias[:, None, None]
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_without_a_filter_convolutions_see_the_images_of_ddpm():
    x, shrink, grow = _random(1, 2, 4, 4), ConvDown(2, 2, None), ConvUp(2, 2, None)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    torch.testing.assert_close(shrink(x), torch.nn.functional.conv2d(padded, shrink.weight, shrink.bias, stride=2))
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(grow(x), torch.nn.functional.conv2d(repeated, grow.weight, grow.bias, padding=1))


@pytest.mark.parametrize("taps", [(1.0,), (1.0, -1.0)])
def test_filters_that_are_none_are_refused(taps):
    with pytest.raises(ValueError, match="taps"):
        FirDown(1, taps)
