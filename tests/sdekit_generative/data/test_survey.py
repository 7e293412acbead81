import math

import pytest
import torch

from sdekit_generative.data import Dataset, Digits, survey
from sdekit_generative.data.survey import largest_distance


def test_the_largest_distance_is_that_of_all_pairs():
    points = torch.randn(60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert largest_distance(points, block=7) == pytest.approx(float(torch.pdist(points).max()), rel=1e-12)
    assert largest_distance(points[:1]) == 0.0


@pytest.mark.parametrize(
    ("distance", "suggested"), [(9.99, 10.0), (31.2, 32.0), (348.7, 350.0), (0.123, 0.13), (50.0, 50.0)]
)
def test_the_suggestion_is_the_distance_rounded_up_to_two_digits(distance, suggested):
    images = torch.zeros(12, 1, 1, 1, dtype=torch.uint8)
    images[6:] = 255
    found = survey(Dataset(images), width=distance * 256 / 255)
    assert found.largest_distance == pytest.approx(distance, rel=1e-12)
    assert found.sigma_max == pytest.approx(suggested)


def test_the_digits_are_surveyed_in_the_range_of_the_model():
    found = survey(Digits().load())
    assert (found.count, found.shape, found.levels, found.classes) == (1797, (1, 8, 8), 17, 10)
    assert (found.training, found.held_out) == (1497, 300)
    training = Digits().load().split()[0].images.flatten(1).double() * 2 / 17
    assert found.largest_distance == pytest.approx(float(torch.pdist(training).max()), rel=1e-9)
    assert found.std == pytest.approx(float(training.std()), rel=1e-3)
    assert math.isclose(found.mean, float(training.mean()) - 1 + 1 / 17, abs_tol=1e-2)
