import dataclasses
import math

import pytest
import torch

from sdekit.random import KeyedDraws
from sdekit_generative.data import Dataset, TruncatedNormalNoise, UniformNoise, quantise
from sdekit_generative.likelihood import bits_per_dim
from sdekit_generative.variational import VariationalNoise, dequantised_bits_per_dim, fit_dequantisation

LEVELS = 4


@pytest.fixture
def law() -> VariationalNoise:
    """A flow far from the identity, of images of four numbers."""
    torch.manual_seed(0)
    law = VariationalNoise(1, width=8)
    for p in law.parameters():
        torch.nn.init.normal_(p, std=0.25)
    return law.requires_grad_(False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, LEVELS, (500, 1, 2, 2), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_the_flow_runs_back_to_the_density_that_it_came_with(law, images):
    y, log_density = law.sample(images, LEVELS, KeyedDraws(0))
    assert torch.equal(quantise(y, LEVELS), images)
    assert torch.allclose(law.log2_density(images, LEVELS, y), log_density.double() / math.log(2), atol=2e-2)


def test_its_density_integrates_to_one_and_is_that_of_its_samples(law, images):
    """Over uniform u the mean of q is 1, and the mean of q log q the entropy that its samples show."""
    n = 60_000
    one = images[:1].expand(n, -1, -1, -1)
    y = UniformNoise()(one, LEVELS, KeyedDraws(5))
    q = torch.exp2(law.log2_density(one, LEVELS, y))
    assert abs(float(q.mean()) - 1.0) < 4 * float(q.std()) / math.sqrt(n)
    _, log_density = law.sample(one, LEVELS, KeyedDraws(6))
    by_samples, by_integral = log_density.double(), torch.special.xlogy(q, q)
    error = math.hypot(float(by_samples.std()), float(by_integral.std())) / math.sqrt(n)
    assert abs(float(by_samples.mean() - by_integral.mean())) < 4 * error


def test_it_begins_nearly_uniform(images):
    fresh = VariationalNoise(1).requires_grad_(False)
    y, log_density = fresh.sample(images, LEVELS, KeyedDraws(0))
    assert float(log_density.mean()) / 4 < 0.02  # nats a number, where the uniform law has 0
    u = (y * LEVELS - images).flatten()
    assert float(u.mean()) == pytest.approx(0.5, abs=0.02)


def _coarse(gaussian) -> tuple:
    """A Gaussian model much narrower than a level: uniform noise is then a poor law of u."""
    narrow = dataclasses.replace(gaussian.parametrisation, data_std=0.12)
    model = dataclasses.replace(gaussian, parametrisation=narrow, levels=3, shape=(1, 2, 2))
    return model, Dataset(torch.ones(256, 1, 2, 2, dtype=torch.uint8), 3)


def test_uniform_noise_gives_the_usual_bits_and_truncated_normal_noise_those_of_its_bound(gaussian):
    model, data = _coarse(gaussian)
    usual = bits_per_dim(model, data.images, seed=3, batch=100)
    same = dequantised_bits_per_dim(model, data.images, UniformNoise(), seed=3, batch=100)
    assert same.mean == pytest.approx(usual.mean, abs=1e-4)
    # the model's density within the level, N(0, 0.12²) in a range of width 2/3, is nearly the law of u itself
    law = TruncatedNormalNoise(0.12 / (2 / 3))
    tight = dequantised_bits_per_dim(model, data.images, law, seed=3, batch=100)
    exact = -math.log2(math.erf(1 / 3 / 0.12 / math.sqrt(2)))
    assert tight.mean == pytest.approx(exact, abs=0.02)
    assert usual.mean > tight.mean + 0.5


@pytest.mark.slow
def test_the_learned_law_closes_most_of_the_gap_that_uniform_noise_leaves(gaussian):
    model, data = _coarse(gaussian)
    law = fit_dequantisation(model, data, steps=300, batch=64, learning_rate=5e-3)
    learned = dequantised_bits_per_dim(model, data.images, law, seed=3, batch=128)
    usual = bits_per_dim(model, data.images, seed=3, batch=128)
    exact = -math.log2(math.erf(1 / 3 / 0.12 / math.sqrt(2)))
    assert learned.mean > exact - 3 * learned.standard_error - 0.01
    assert learned.mean - exact < 0.1 * (usual.mean - exact)
