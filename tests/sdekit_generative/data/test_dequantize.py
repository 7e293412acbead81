import math

import pytest
import torch
from scipy import stats

from sdekit.random import KeyedDraws
from sdekit_generative.data import DataRange, dequantise, quantise


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
