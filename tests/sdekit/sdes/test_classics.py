"""Laws of the classics against the equations that define them: Kolmogorov's, Itô's formula, SciPy's densities."""

import math

import pytest
import torch
from scipy import stats

from sdekit.protocols import SDE, Noise
from sdekit.sdes.classics import CIR, BrownianBridge, GeometricBrownianMotion

F64 = torch.float64
GBM = GeometricBrownianMotion(mu=0.4, sigma=0.7)
ROOT = CIR(kappa=1.5, theta=0.8, sigma=0.6)
BRIDGE = BrownianBridge(end=2.0, duration=1.5, sigma=0.8)


def _derivative(value, of):
    return torch.autograd.grad(value.sum(), of, create_graph=True)[0]


def _bridge_log_prob(x, x0, t):
    return BRIDGE.marginal(t).log_prob(x, x0)


@pytest.mark.parametrize(
    ("sde", "log_prob"),
    [(GBM, GBM.log_prob), (ROOT, ROOT.log_prob), (BRIDGE, _bridge_log_prob)],
    ids=["GBM", "CIR", "bridge"],
)
def test_the_transition_density_solves_the_forward_kolmogorov_equation(sde, log_prob):
    x = torch.linspace(0.3, 2.5, 9, dtype=F64)[:, None].requires_grad_(True)
    t = torch.full((9, 1), 0.6, dtype=F64, requires_grad=True)
    density = torch.exp(log_prob(x, torch.full_like(x, 0.9), t))[:, None]
    flux = sde.drift(t, x) * density - 0.5 * _derivative(sde.diffusion(t, x).square() * density, x)
    torch.testing.assert_close(_derivative(density, t), -_derivative(flux, x), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sde", [GBM, ROOT], ids=["GBM", "CIR"])
@pytest.mark.parametrize("shape", [(4, 2), (4, 1, 2, 2)])
def test_the_score_of_a_transition_is_the_gradient_of_its_log_density(sde, shape):
    x = (torch.rand(shape, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.3).requires_grad_(True)
    x0 = torch.full(shape, 0.9, dtype=F64)
    for t in (torch.tensor(0.01, dtype=F64), torch.full((4, *(1,) * (len(shape) - 1)), 0.7, dtype=F64)):
        (gradient,) = torch.autograd.grad(sde.log_prob(x, x0, t).sum(), x)
        torch.testing.assert_close(sde.score_from(x0)(t, x.detach()), gradient, rtol=1e-9, atol=1e-9)
    assert sde.score_from(x0.float())(t, x.detach().float()).dtype == torch.float32


@pytest.mark.parametrize("sde", [GBM, ROOT], ids=["GBM", "CIR"])
def test_mean_and_variance_are_those_of_the_density(sde):
    x0 = torch.tensor([[0.7]], dtype=F64)
    log_x = torch.linspace(-9.0, 4.0, 20001, dtype=F64)
    x = log_x.exp()[:, None]
    weight = sde.log_prob(x, x0.expand_as(x), 0.5).exp() * x[:, 0] * (log_x[1] - log_x[0])
    mean, variance = float(sde.mean(x0, 0.5)), float(sde.variance(x0, 0.5))
    assert float(weight.sum()) == pytest.approx(1.0, rel=1e-9)
    assert float((weight * x[:, 0]).sum()) == pytest.approx(mean, rel=1e-8)
    assert float((weight * (x[:, 0] - mean) ** 2).sum()) == pytest.approx(variance, rel=1e-7)


def test_the_solution_of_geometric_brownian_motion_obeys_itos_formula():
    w = torch.linspace(-1, 1, 7, dtype=F64)[:, None].requires_grad_(True)
    t = torch.full((7, 1), 0.8, dtype=F64, requires_grad=True)
    x = GBM.solution(torch.full((7, 1), 1.3, dtype=F64), w, t)
    by_w = _derivative(x, w)
    torch.testing.assert_close(by_w, GBM.diffusion(t, x))
    torch.testing.assert_close(_derivative(x, t) + 0.5 * _derivative(by_w, w), GBM.drift(t, x))


@pytest.mark.parametrize("t", [1e-3, 0.1, 3.0])
def test_the_cir_density_is_a_scaled_noncentral_chi_square(t):
    x0 = torch.full((25, 1), 0.9, dtype=F64)
    spread = float(ROOT.variance(x0[:1], t)) ** 0.5
    x = (ROOT.mean(x0, t) + torch.linspace(-3, 4, 25, dtype=F64)[:, None] * spread).clamp_min(1e-3)
    c = 2 * ROOT.kappa / (ROOT.sigma**2 * (1 - math.exp(-ROOT.kappa * t)))
    degrees, shift = 4 * ROOT.kappa * ROOT.theta / ROOT.sigma**2, 2 * c * 0.9 * math.exp(-ROOT.kappa * t)
    expected = stats.ncx2.logpdf(2 * c * x.numpy(), degrees, shift)[:, 0] + math.log(2 * c)
    torch.testing.assert_close(ROOT.log_prob(x, x0, t), torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_the_cir_law_tends_to_its_gamma_law():
    x = torch.linspace(0.1, 3, 20, dtype=F64)[:, None]
    stationary = ROOT.stationary_log_prob(x)
    torch.testing.assert_close(ROOT.log_prob(x, torch.full_like(x, 5.0), 30.0), stationary, rtol=1e-9, atol=1e-9)
    shape = 2 * ROOT.kappa * ROOT.theta / ROOT.sigma**2
    expected = stats.gamma.logpdf(x[:, 0].numpy(), shape, scale=ROOT.theta / shape)
    torch.testing.assert_close(stationary, torch.tensor(expected))
    assert ROOT.stays_positive
    assert not CIR(1.0, 0.1, 1.0).stays_positive


def test_below_zero_the_cir_diffusion_is_nothing_and_has_a_finite_derivative():
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([[-1.0], [0.0], [4.0]], dtype=dtype, requires_grad=True)
        g = ROOT.diffusion(torch.tensor(0.0, dtype=F64), x)
        assert g[:, 0].tolist() == pytest.approx([0.0, 0.0, 1.2], abs=1e-7)
        (slope,) = torch.autograd.grad(g.sum(), x)
        assert bool(torch.isfinite(slope * g).all())
        assert float(slope[0]) == 0.0


def test_the_bridge_arrives_and_its_transitions_compose():
    x0 = torch.tensor([[0.5]], dtype=F64)
    law = BRIDGE.marginal(1.5)
    assert float(law.mean(x0)) == pytest.approx(2.0)
    assert float(law.variance) == 0.0
    first, then, whole = BRIDGE.transition(0.1, 0.4), BRIDGE.transition(0.4, 1.2), BRIDGE.transition(0.1, 1.2)
    torch.testing.assert_close(then.mean(first.mean(x0)), whole.mean(x0))
    torch.testing.assert_close(then.multiplier.square() * first.variance + then.variance, whole.variance)
    middle = BrownianBridge().marginal(0.3)
    assert float(middle.variance) == pytest.approx(0.3 * 0.7, rel=1e-14)


@pytest.mark.parametrize("sde", [GBM, ROOT, BRIDGE], ids=["GBM", "CIR", "bridge"])
@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_contract_is_kept(sde, shape, dtype):
    assert isinstance(sde, SDE)
    assert sde.noise is (Noise.ADDITIVE if sde is BRIDGE else Noise.DIAGONAL)
    x = torch.full(shape, 0.5, dtype=dtype)
    for t in (torch.tensor(0.2, dtype=F64), torch.full((3, *(1,) * (len(shape) - 1)), 0.2, dtype=F64)):
        drift, noise = sde.drift(t, x), sde.diffusion(t, x) * torch.ones_like(x)
        assert drift.shape == noise.shape == x.shape
        assert drift.dtype == noise.dtype == dtype


def test_bad_parameters_are_refused():
    for make in (
        lambda: GeometricBrownianMotion(sigma=0.0),
        lambda: CIR(kappa=-1.0),
        lambda: BrownianBridge(duration=0.0),
    ):
        with pytest.raises(ValueError, match="must be positive"):
            make()
