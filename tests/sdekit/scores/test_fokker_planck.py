"""The Fokker–Planck residual by hand; laws of every class of noise are looked at where they are reversed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit.sdes.functions import StratonovichSDE


def test_the_residual_of_a_wrong_width_is_the_one_worked_out_by_hand() -> None:
    # dx = −x dt + √2 dW keeps N(0, 1); N(0, v) has the residual (1/v − 1)(1 − x²/v)
    ou = sk.OrnsteinUhlenbeck(theta=1.0, sigma=2.0**0.5)
    x, v = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(-1, 1), 1.7
    found = sk.fokker_planck_residual(ou, lambda t, y: -0.5 * y[:, 0] ** 2 / v + 0.0 * t, 0.3, x)
    assert torch.allclose(found, (1 / v - 1) * (1 - x[:, 0] ** 2 / v), rtol=1e-12, atol=1e-12)


def test_stratonovich_equations_and_odes_have_residuals_too() -> None:
    growth = sk.GeometricBrownianMotion(0.3, 0.5)
    stratonovich = StratonovichSDE(lambda t, x: (0.3 - 0.125) * x, growth.diffusion, sk.Noise.DIAGONAL)
    x0, x = torch.ones(1, 1, dtype=torch.float64), torch.linspace(0.5, 2, 5, dtype=torch.float64).reshape(-1, 1)
    log_prob = lambda t, y: growth.log_prob(y, x0, t)  # noqa: E731
    assert float(sk.fokker_planck_residual(stratonovich, log_prob, 0.7, x).detach().abs().max()) < 1e-10
    ode = sk.ODE(lambda t, y: -y)
    carried = lambda t, y: t - 0.5 * (y * torch.exp(t)).square()[:, 0]  # noqa: E731  # N(0, 1) at t = 0
    assert float(sk.fokker_planck_residual(ode, carried, 0.7, x).detach().abs().max()) < 1e-12


def test_every_sample_may_have_a_time_of_its_own_under_no_grad() -> None:
    process, law = sk.VP(), sk.GaussianMixture(torch.eye(2, dtype=torch.float64), 0.4)
    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor([[0.1], [0.3], [0.6], [0.9]], dtype=torch.float64)
    with torch.no_grad():
        residual = sk.fokker_planck_residual(process, lambda t, y: law.log_prob(y, process, t), t, x)
    assert not residual.requires_grad
    assert float(residual.abs().max()) < 1e-9


def test_a_residual_may_be_a_loss() -> None:
    # the rate at which a wrong width must change follows from its own residual
    rate = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    ou, x = sk.OrnsteinUhlenbeck(theta=1.0, sigma=2.0**0.5), torch.ones(3, 1, dtype=torch.float64)

    def log_prob(t: Tensor, y: Tensor) -> Tensor:
        variance = 2.0 + rate * (t - 0.5)
        return -0.5 * (y[:, 0] ** 2 / variance + torch.log(variance))

    residual = sk.fokker_planck_residual(ou, log_prob, 0.5, 2.0 * x)
    (slope,) = torch.autograd.grad(residual.sum(), rate)
    assert float((rate - residual.sum() / slope).detach()) == pytest.approx(-2.0)  # dv/dt = 2 − 2v at v = 2


def test_what_is_no_density_is_refused() -> None:
    x = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        sk.fokker_planck_residual(sk.VP(), lambda t, y: y, 0.5, x)
    with pytest.raises(TypeError, match="sde"):
        sk.fokker_planck_residual(sk.VP, lambda t, y: y.sum(1), 0.5, x)  # type: ignore[arg-type]
