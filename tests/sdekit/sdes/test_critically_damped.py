"""Critically damped Langevin diffusion: critical damping, its stationary law, and analytic data carried through it."""

import math

import pytest
import torch

from sdekit.analytic import GaussianMixture
from sdekit.protocols import SDE
from sdekit.sdes.critically_damped import CriticallyDamped

F64 = torch.float64


def test_the_damping_is_critical():
    process = CriticallyDamped(beta=3.0, mass=0.5)
    assert process.friction == pytest.approx(2 * math.sqrt(0.5), rel=1e-15)
    rates = torch.linalg.eigvals(process.A)
    torch.testing.assert_close(rates.real, torch.full((2,), -3.0 / math.sqrt(0.5), dtype=F64), rtol=1e-6, atol=0)
    assert float(rates.imag.abs().max()) < 1e-6


def test_the_prior_is_the_stationary_law():
    process = CriticallyDamped()
    long = process.transition(0.0, 20.0)
    torch.testing.assert_close(long.covariance, torch.diag(torch.tensor([1.0, 0.25], dtype=F64)), rtol=0, atol=1e-12)
    x = process.prior_sample((20000, 2, 1), seed=3, dtype=F64)
    assert float(x[:, 0].var()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 20000))
    assert float(x[:, 1].var()) == pytest.approx(0.25, abs=0.25 * 4 * math.sqrt(2 / 20000))
    expected = long.log_prob(x[:5], torch.zeros(5, 2, 1, dtype=F64))
    torch.testing.assert_close(process.prior.log_prob(x[:5]), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(process.prior_sample((1, 2, 4), seed=1, first=3), process.prior_sample((5, 2, 4), seed=1)[3:4])


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
def test_images_and_vectors_move_alike(shape):
    process = CriticallyDamped()
    assert isinstance(process, SDE)
    data = torch.randn(4, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    state = process.lift(data, seed=1)
    assert torch.equal(state[:, 0], data)
    t = torch.tensor(0.3, dtype=F64)
    x, v = state.unbind(1)
    drift = process.drift(t, state)
    torch.testing.assert_close(drift[:, 0], 8.0 / 0.25 * v)
    torch.testing.assert_close(drift[:, 1], -8.0 * x - 8.0 / 0.25 * v)
    noise = process.diffusion(t, state) * torch.ones_like(state)
    assert float(noise[:, 0].abs().max()) == 0.0
    torch.testing.assert_close(noise[:, 1], torch.full_like(v, math.sqrt(2 * 1.0 * 8.0)))
    assert process.transition(0.1, 0.3).sample(state).shape == state.shape


def test_the_score_of_lifted_data_is_known():
    process = CriticallyDamped()
    means = torch.tensor([[[-1.0], [0.0]], [[1.0], [0.0]]], dtype=F64)
    stds = torch.tensor([[[0.3], [0.1]], [[0.3], [0.1]]], dtype=F64)
    law = GaussianMixture(means, stds)
    x = torch.randn(5, 2, 1, dtype=F64, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    t = torch.tensor(0.2, dtype=F64)
    (gradient,) = torch.autograd.grad(law.log_prob(x, process, t).sum(), x)
    torch.testing.assert_close(law.score(process)(t, x.detach()), gradient)
    x = x.detach()
    assert float((law.log_prob(x, process, 1.0) - process.prior.log_prob(x)).abs().max()) < 0.02


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        CriticallyDamped(mass=0.0)
    with pytest.raises(ValueError, match="t_min < t_max"):
        CriticallyDamped(t_min=2.0)
    with pytest.raises(ValueError, match=r"\(B, 2, …\)"):
        CriticallyDamped().prior_sample((4, 3))
