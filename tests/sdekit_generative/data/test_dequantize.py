import math

import pytest
import torch
from scipy import stats

from sdekit.random import KeyedDraws
from sdekit_generative.data import DataRange, TruncatedNormalNoise, UniformNoise, dequantise, quantise


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantised_values_are_uniform_inside_their_level(levels):
    images = torch.arange(levels, dtype=torch.uint8).repeat(4096).reshape(-1, 1, 1, levels)
    y = dequantise(images, levels, KeyedDraws(0)).double()
    u = y * levels - images
    assert stats.kstest(u[..., 0].flatten().numpy(), "uniform").pvalue > 1e-3
    assert abs(float(u.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / u.numel())


@pytest.mark.parametrize("levels", [2, 17, 200, 256])
def test_levels_survive_dequantisation(levels):
    images = torch.arange(levels, dtype=torch.uint8).repeat(2000).reshape(-1, 1, 1, levels)
    y = dequantise(images, levels, KeyedDraws(1))
    assert float(y.min()) >= 0.0
    assert float(y.max()) < 1.0
    assert torch.equal(quantise(y, levels), images)


def test_the_largest_uniform_does_not_reach_the_next_level():
    class Largest:
        def uniform(self, purpose, step, shape, dtype, device, part=0):
            return torch.full(shape, 1.0 - 2.0**-24, dtype=dtype)

    images = torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)
    assert torch.equal(quantise(dequantise(images, 256, Largest()), 256), images)


def test_dequantisation_of_an_image_depends_on_its_place_and_step_only():
    images = torch.randint(0, 17, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    whole = dequantise(images, 17, KeyedDraws(5), step=3)
    assert torch.equal(dequantise(images[7:9], 17, KeyedDraws(5, first=7), step=3), whole[7:9])
    assert not torch.equal(dequantise(images, 17, KeyedDraws(5), step=4), whole)


def test_a_data_range_maps_zero_to_low_and_one_to_high_and_back():
    y = torch.linspace(0, 1, 11)
    for chosen in (DataRange(), DataRange(0.0, 1.0), DataRange(-2.0, 6.0)):
        x = chosen.enter(y)
        assert float(x[0]) == chosen.low
        assert float(x[-1]) == chosen.high
        torch.testing.assert_close(chosen.leave(x), y)
    with pytest.raises(ValueError, match="low < high"):
        DataRange(1.0, 1.0)


# --- other laws than the uniform -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.1, 0.25, 1.0, 30.0])
def test_truncated_normal_noise_has_the_density_that_it_says(width):
    law, n = TruncatedNormalNoise(width), 200_000
    images = torch.full((n, 1, 1, 1), 3, dtype=torch.uint8)
    y = law(images, 17, KeyedDraws(0))
    assert torch.equal(quantise(y, 17), images)
    u = (y.double() * 17 - 3).flatten()
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)
    at_grid = law.log2_density(torch.full((4001, 1, 1, 1), 3), 17, ((grid + 3) / 17).reshape(-1, 1, 1, 1))
    density = torch.exp2(at_grid)
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-6)
    variance = float(torch.trapezoid((grid - 0.5) ** 2 * density, grid))
    assert float(u.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(variance / n))
    assert float(u.var()) == pytest.approx(variance, rel=0.02)


def test_densities_are_summed_over_an_image_and_the_uniform_one_is_zero():
    images = torch.randint(0, 17, (5, 2, 3, 3), dtype=torch.uint8)
    for law in (UniformNoise(), TruncatedNormalNoise(0.2)):
        y = law(images, 17, KeyedDraws(1))
        whole = law.log2_density(images, 17, y)
        assert whole.shape == (5,)
        parts = torch.stack([law.log2_density(images[:, i : i + 1], 17, y[:, i : i + 1]) for i in range(2)]).sum(0)
        assert torch.allclose(whole, parts)
    assert torch.equal(UniformNoise().log2_density(images, 17, y), torch.zeros(5, dtype=torch.float64))
    with pytest.raises(ValueError, match="width"):
        TruncatedNormalNoise(0.0)
