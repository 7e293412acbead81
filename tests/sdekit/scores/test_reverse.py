"""Reversed laws have the marginals of the forward ones, whatever the noise depends on.

The proof is the Fokker–Planck equation written out from its definition: with exact densities it holds to rounding, for
every noise class and churn. Samples are then drawn, whose moments are looked at on the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.protocols import Calculus, Dense, Direction, Noise
from sdekit.save import SaveAt
from sdekit.scores.fokker_planck import fokker_planck_residual
from sdekit.scores.reverse import covariance_divergence, covariance_product, probability_flow, reverse
from sdekit.sdes.classics import CIR, GeometricBrownianMotion
from sdekit.sdes.critically_damped import CriticallyDamped
from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.sdes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sdekit.solve import solve
from sdekit.solvers import Dopri8, EulerMaruyama
from sdekit.steps import FixedSteps

CHURNS = (0.0, 0.5, 1.0, 2.0)


def points(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=generator)


def matrix_of(sde: object, t: Tensor, x: Tensor) -> Tensor:
    """G Gᵀ `(S, S)` at one flattened point, from the meaning of the noise classes alone."""
    g = sde.diffusion(t, x)  # type: ignore[attr-defined]
    if isinstance(g, Dense):
        columns = g.matrix.expand(*x.shape, g.matrix.shape[-1]).reshape(x.numel(), -1)
    elif sde.noise is Noise.SCALAR:  # type: ignore[attr-defined]
        columns = g.expand_as(x).reshape(-1, 1)
    else:
        columns = torch.diag(g.expand_as(x).reshape(-1))
    return columns @ columns.T


def fokker_planck_gap(sde: object, log_prob, t: float, x: Tensor) -> Tensor:
    """∂_t p + ∇·(f p) − ± ½ Σ ∂_i ∂_j (A_ij p) over p at points x `(N, *shape)`, one at a time, by its definition."""
    gaps = []
    for point in x:
        shape = point.shape
        time = torch.tensor(t, dtype=torch.float64)

        def density(time: Tensor, flat: Tensor, shape: torch.Size = shape) -> Tensor:
            return log_prob(time, flat.reshape(1, *shape))[0].exp()

        def flux(flat: Tensor, shape: torch.Size = shape, time: Tensor = time) -> Tensor:
            return sde.drift(time, flat.reshape(1, *shape)).reshape(-1) * density(time, flat)  # type: ignore[attr-defined]

        def spread(flat: Tensor, shape: torch.Size = shape, time: Tensor = time) -> Tensor:
            return matrix_of(sde, time, flat.reshape(1, *shape)) * density(time, flat)

        flat = point.reshape(-1)
        change = torch.func.grad(density)(time, flat)
        outflow = torch.func.jacfwd(flux)(flat).diagonal().sum()
        second = torch.func.jacfwd(torch.func.jacfwd(spread))(flat)  # (i, j, i', j')
        size = flat.numel()
        twice = sum(second[i, j, i, j] for i in range(size) for j in range(size))
        sign = int(sde.direction)  # type: ignore[attr-defined]
        gaps.append((change + outflow - 0.5 * sign * twice) / density(time, flat))
    return torch.stack(gaps)


# --- processes with known laws ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sheared:
    """x = (z₁, z₂ + a z₁²) for a linear z: the diffusion matrix depends on x, and everything is known."""

    a: float = 0.6
    noise = Noise.GENERAL
    calculus = Calculus.ITO
    direction = Direction.FORWARD

    def base(self) -> OrnsteinUhlenbeck:
        return OrnsteinUhlenbeck(
            theta=torch.tensor([[1.0, -0.4], [0.3, 0.8]], dtype=torch.float64),
            sigma=torch.tensor([[0.9, 0.0], [0.4, 0.5]], dtype=torch.float64),
        )

    def unshear(self, x: Tensor) -> Tensor:
        return torch.stack((x[:, 0], x[:, 1] - self.a * x[:, 0] ** 2), dim=1)

    def shear(self, z: Tensor) -> Tensor:
        return torch.stack((z[:, 0], z[:, 1] + self.a * z[:, 0] ** 2), dim=1)

    def _loading(self, t: Tensor, x: Tensor) -> Tensor:
        return self.base().diffusion(t, self.unshear(x)).matrix  # type: ignore[union-attr]

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        f = self.base().drift(t, self.unshear(x))
        variance = self._loading(t, x).square().sum(-1)[..., 0]  # (G Gᵀ)₁₁
        return torch.stack((f[:, 0], f[:, 1] + 2 * self.a * x[:, 0] * f[:, 0] + self.a * variance), dim=1)

    def diffusion(self, t: Tensor, x: Tensor) -> Dense:
        g = self._loading(t, x).expand(len(x), 2, 2)
        return Dense(torch.stack((g[:, 0], g[:, 1] + 2 * self.a * x[:, :1] * g[:, 0]), dim=1))


def sheared_law() -> tuple[Sheared, GaussianData, object]:
    sde = Sheared()
    data = GaussianData(torch.tensor([0.5, -0.3], dtype=torch.float64), std=0.4)
    base = sde.base()

    def log_prob(t: Tensor, x: Tensor) -> Tensor:
        return data.log_prob(sde.unshear(x), base, t)  # the map keeps volumes

    return sde, data, log_prob


def score_of(log_prob):
    return lambda t, x: torch.func.grad(lambda y: log_prob(t, y).sum())(x)


def laws() -> list:
    """(SDE, log-density, points) of every noise class."""
    start = torch.tensor([[0.8, 1.3]], dtype=torch.float64)
    cir, growth = CIR(1.5, 1.0, 0.6), GeometricBrownianMotion(0.3, 0.5)
    mixture = GaussianMixture(torch.tensor([[1.0, 0.0], [-0.5, 0.7]], dtype=torch.float64), 0.4)
    vp = VP()
    ou = OrnsteinUhlenbeck(
        theta=torch.tensor([[1.0, -0.4], [0.3, 0.8]], dtype=torch.float64),
        sigma=torch.tensor([[0.9, 0.0], [0.4, 0.5]], dtype=torch.float64),
    )
    gaussian = GaussianData(torch.tensor([0.5, -0.3], dtype=torch.float64), std=0.4)
    # one Brownian motion drives both components: x_i = x0_i exp(c_i W) from a log-normal start
    strength = torch.tensor([0.5, -0.3], dtype=torch.float64)
    scalar = ItoSDE(lambda t, x: 0.5 * strength**2 * x, lambda t, x: strength * x, Noise.SCALAR)

    def scalar_log_prob(t: Tensor, x: Tensor) -> Tensor:
        covariance = 0.3 * torch.eye(2, dtype=torch.float64) + t * torch.outer(strength, strength)
        y = x.log()
        exponent = -0.5 * torch.einsum("bi,ij,bj->b", y, torch.linalg.inv(covariance), y)
        return exponent - 0.5 * torch.logdet(2 * math.pi * covariance) - y.sum(1)

    sheared, _, sheared_log_prob = sheared_law()
    positive = points(4, 2, low=0.6, high=1.5)
    return [
        pytest.param(vp, lambda t, x: mixture.log_prob(x, vp, t), points(4, 2), id="VP mixture"),
        pytest.param(ou, lambda t, x: gaussian.log_prob(x, ou, t), points(4, 2), id="matrix OU"),
        pytest.param(cir, lambda t, x: cir.log_prob(x, start, t), positive, id="CIR"),
        pytest.param(growth, lambda t, x: growth.log_prob(x, start, t), positive, id="geometric Brownian motion"),
        pytest.param(scalar, scalar_log_prob, positive, id="scalar noise"),
        pytest.param(sheared, sheared_log_prob, points(4, 2), id="matrix that depends on x"),
    ]


@pytest.mark.parametrize(("sde", "log_prob", "x"), laws())
def test_every_churn_solves_the_fokker_planck_equation_of_the_forward_law(sde, log_prob, x) -> None:
    assert fokker_planck_gap(sde, log_prob, 0.4, x).abs().max() < 1e-9  # the law given is that of the SDE
    for churn in CHURNS:
        family = reverse(sde, score_of(log_prob), churn)
        assert fokker_planck_gap(family, log_prob, 0.4, x).abs().max() < 1e-9


@pytest.mark.parametrize(("sde", "log_prob", "x"), laws())
def test_the_residual_by_automatic_differentiation_agrees(sde, log_prob, x) -> None:
    for equation in (sde, *(reverse(sde, score_of(log_prob), churn) for churn in CHURNS)):
        residual = fokker_planck_residual(equation, log_prob, 0.4, x).detach()
        assert residual.shape == (len(x),)
        assert float(residual.abs().max()) < 1e-9


@pytest.mark.parametrize(("sde", "log_prob", "x"), laws())
def test_a_law_that_runs_too_fast_has_a_residual(sde, log_prob, x) -> None:
    residual = fokker_planck_residual(sde, lambda t, y: log_prob(1.1 * t, y), 0.4, x).detach()
    assert float(residual.abs().min()) > 1e-4


@pytest.mark.parametrize(("sde", "log_prob", "x"), laws())
def test_reversing_twice_gives_back_the_sde(sde, log_prob, x) -> None:
    score = score_of(log_prob)
    twice = reverse(reverse(sde, score), score)
    t = torch.tensor(0.4, dtype=torch.float64)
    assert twice.direction is sde.direction
    assert torch.allclose(twice.drift(t, x), sde.drift(t, x), rtol=1e-11, atol=1e-11)
    half = reverse(reverse(sde, score, 0.5), score)  # of a law with half the noise
    assert fokker_planck_gap(half, log_prob, 0.4, x).abs().max() < 1e-9


def test_a_stratonovich_sde_is_reversed_as_the_ito_sde_with_its_solutions() -> None:
    growth = GeometricBrownianMotion(0.3, 0.5)
    stratonovich = StratonovichSDE(lambda t, x: (0.3 - 0.125) * x, growth.diffusion, Noise.DIAGONAL)
    score = growth.score_from(torch.ones(1, 1, dtype=torch.float64))
    x, t = points(5, 1, low=0.5, high=2.0), torch.tensor(0.7, dtype=torch.float64)
    assert torch.allclose(reverse(stratonovich, score).drift(t, x), reverse(growth, score).drift(t, x))


# --- ∇·(G Gᵀ) and G Gᵀ v ----------------------------------------------------------------------------------------------

_MIX = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)


def _wave(x: Tensor) -> Tensor:
    """A function of the whole sample, shaped like x."""
    flat = x.reshape(len(x), -1)
    return (1.5 + torch.sin(flat @ torch.cos(torch.outer(_MIX, 1 + _MIX))) + 0.3 * flat**2).reshape(x.shape)


DIFFUSIONS = {
    "additive": (Noise.ADDITIVE, lambda t, x: (1 + t) * torch.ones_like(x)),
    "diagonal": (Noise.DIAGONAL, lambda t, x: 1.2 + torch.sin(x) * t),
    "diagonal that broadcasts": (Noise.DIAGONAL, lambda t, x: 1.0 + t),
    "diagonal as a matrix": (
        Noise.DIAGONAL,
        lambda t, x: Dense(torch.diag_embed(1 + 0.2 * x.flatten(1) ** 2).reshape(*x.shape, 6)),
    ),
    "scalar": (Noise.SCALAR, lambda t, x: _wave(x)),
    "scalar as a matrix": (Noise.SCALAR, lambda t, x: Dense(_wave(x).unsqueeze(-1))),
    "element-wise but mixing": (Noise.GENERAL, lambda t, x: _wave(x)),
    "matrix of 3 columns": (Noise.GENERAL, lambda t, x: Dense(torch.stack((_wave(x), x * _wave(-x), x.sin()), -1))),
    "commuting columns": (Noise.COMMUTATIVE, lambda t, x: Dense(torch.stack((_wave(x), 2 * _wave(x)), -1))),
    "constant matrix": (Noise.ADDITIVE, lambda t, x: Dense(_MIX.reshape(1, *x.shape[1:], 1))),
}


@pytest.mark.parametrize("shape", [(6,), (2, 3, 1)])
@pytest.mark.parametrize("name", DIFFUSIONS)
def test_the_divergence_of_the_covariance_agrees_with_finite_differences(name: str, shape: tuple[int, ...]) -> None:
    noise, diffusion = DIFFUSIONS[name]
    sde = ItoSDE(lambda t, x: -x, diffusion, noise)
    x, t, v = points(3, *shape), torch.tensor(0.6, dtype=torch.float64), points(3, *shape, low=-2.0)
    with torch.no_grad():
        found = covariance_divergence(sde, t, x)
        product = covariance_product(sde, t, x, v)
    step = 1e-5
    for i, point in enumerate(x):
        covariance = matrix_of(sde, t, point[None])
        assert torch.allclose(product[i].reshape(-1), covariance @ v[i].reshape(-1), rtol=1e-12, atol=1e-12)
        expected = torch.zeros(6, dtype=torch.float64)
        for j in range(6):
            move = step * torch.eye(6, dtype=torch.float64)[j].reshape(1, *shape)
            slope = (matrix_of(sde, t, point[None] + move) - matrix_of(sde, t, point[None] - move)) / (2 * step)
            expected += slope[:, j]
        assert torch.allclose(found[i].reshape(-1), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_the_divergence_of_the_covariance_keeps_float32_and_samples_apart(name: str) -> None:
    noise, diffusion = DIFFUSIONS[name]
    sde = ItoSDE(lambda t, x: -x, diffusion, noise)
    x, t = points(5, 6), torch.tensor(0.6, dtype=torch.float64)
    together = covariance_divergence(sde, t, x)
    assert together.shape == x.shape
    assert torch.allclose(covariance_divergence(sde, t, x[2:3]), together[2:3], rtol=1e-14, atol=1e-14)


# --- samples ----------------------------------------------------------------------------------------------------------


def assert_moments(sample: Tensor, mean: Tensor, variance: Tensor, bias: float = 0.0) -> None:
    """First two moments within 4.5 standard errors and a discretisation bias relative to the standard deviation."""
    n = len(sample)
    std = variance.sqrt()
    centred = (sample - mean) / std
    assert ((centred.mean(0)).abs() < 4.5 / math.sqrt(n) + bias).all(), centred.mean(0)
    kurtosis = centred.pow(4).mean(0)
    error = ((kurtosis - 1) / n).sqrt()
    assert ((centred.square().mean(0) - 1).abs() < 4.5 * error + 2 * bias).all(), centred.square().mean(0)


@pytest.mark.parametrize("churn", CHURNS)
def test_reversed_growth_has_the_moments_of_growth_on_the_way(churn: float) -> None:
    growth, n = GeometricBrownianMotion(0.3, 0.5), 6000
    x0 = torch.full((n, 1), 1.2, dtype=torch.float64)
    w = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    end = growth.solution(x0, w, 1.0)
    steps = FixedSteps(400)
    family = reverse(growth, growth.score_from(x0), churn)
    sol = solve(family, end, 1.0, 0.2, solver=EulerMaruyama(), steps=steps, save=SaveAt(times=[0.6, 0.2]), seed=2)
    for x, t in zip(sol.x, (0.6, 0.2), strict=True):
        variance = torch.log1p(growth.variance(x0, t)[0] / growth.mean(x0, t)[0] ** 2)  # of ln x
        assert_moments(x.log(), growth.mean(x0, t)[0].log() - variance / 2, variance, bias=0.02)


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_reversed_cir_has_the_moments_of_cir_on_the_way(churn: float) -> None:
    cir, n = CIR(1.5, 1.0, 0.6), 1000
    x0 = torch.full((n, 1), 0.5, dtype=torch.float64)
    end = solve(cir, x0, 0.0, 1.0, solver=EulerMaruyama(), steps=FixedSteps(300), seed=3).x
    family = reverse(cir, cir.score_from(x0), churn)
    sol = solve(
        family, end, 1.0, 0.2, solver=EulerMaruyama(), steps=FixedSteps(100), save=SaveAt(times=[0.5, 0.2]), seed=4
    )
    for x, t in zip(sol.x, (0.5, 0.2), strict=True):
        assert_moments(x, cir.mean(x0, t)[0], cir.variance(x0, t)[0], bias=0.02)


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_a_reversed_process_with_a_matrix_that_depends_on_x_has_its_moments_on_the_way(churn: float) -> None:
    sde, data, log_prob = sheared_law()
    base, n = sde.base(), 4000
    end = sde.shear(data.at(base, 1.0).sample(n, seed=5))
    family = reverse(sde, score_of(log_prob), churn)
    sol = solve(
        family, end, 1.0, 0.1, solver=EulerMaruyama(), steps=FixedSteps(120), save=SaveAt(times=[0.5, 0.1]), seed=6
    )
    for x, t in zip(sol.x, (0.5, 0.1), strict=True):
        law = data.at(base, t)
        assert_moments(sde.unshear(x), law.mean, law.covariance.diagonal(), bias=0.02)


@pytest.mark.parametrize("process", [VE(0.01, 5.0), VP(), SubVP()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("churn", CHURNS)
def test_every_churn_takes_the_prior_to_the_data(process, churn: float) -> None:
    data, n = GaussianData(torch.tensor([[[1.0, -0.5]]], dtype=torch.float64), std=0.5), 6000
    start = data.at(process, process.t_max).sample(n, seed=7)
    family = reverse(process, data.score(process), churn)
    sol = solve(family, start, process.t_max, process.t_min, solver=EulerMaruyama(), steps=FixedSteps(400), seed=8)
    law = data.at(process, process.t_min)
    assert_moments(sol.x.flatten(1), law.mean.flatten(), law.covariance.diagonal(), bias=0.03)


def test_reversed_critically_damped_dynamics_has_its_moments_on_the_way() -> None:
    process, n = CriticallyDamped(), 4000
    mean = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    data = GaussianData(mean, cov=torch.diag(torch.tensor([0.25, process.velocity_std**2], dtype=torch.float64)))
    end = data.at(process, 1.0).sample(n, seed=9)
    sol = solve(
        reverse(process, data.score(process)), end, 1.0, 0.1, solver=EulerMaruyama(), steps=FixedSteps(700), seed=10
    )
    law = data.at(process, 0.1)
    assert_moments(sol.x.flatten(1), law.mean.flatten(), law.covariance.diagonal(), bias=0.03)


@pytest.mark.parametrize(("sde", "log_prob", "x"), laws())
def test_the_probability_flow_goes_there_and_back(sde, log_prob, x) -> None:
    flow, steps = probability_flow(sde, score_of(log_prob)), FixedSteps(10)
    there = solve(flow, x, 0.3, 0.9, solver=Dopri8(), steps=steps).x
    back = solve(flow, there, 0.9, 0.3, solver=Dopri8(), steps=steps).x
    assert (there - x).abs().max() > 0.01
    assert (back - x).abs().max() < 1e-7


# --- errors -----------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    score = lambda t, x: -x  # noqa: E731
    with pytest.raises(TypeError, match="score: expected a function"):
        reverse(VP(), torch.zeros(3))  # type: ignore[arg-type]
    for churn in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="churn must be"):
            reverse(VP(), score, churn)
    with pytest.raises(ValueError, match="an ODE has no law to reverse"):
        reverse(ODE(lambda t, x: -x), score)


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (lambda t, x: -x[:1], ValueError, r"score\(t, x\) returned shape \(1, 2\)"),
        (lambda t, x: -x.double(), TypeError, "returned torch.float64 for x of torch.float32"),
        (lambda t, x: 1.0, TypeError, "must return a tensor shaped like x"),
    ],
)
def test_a_score_of_wrong_shape_or_dtype_is_an_error(score, error, message) -> None:
    with pytest.raises(error, match=message):
        solve(reverse(VP(), score), torch.ones(3, 2), 1.0, 1e-3, solver=EulerMaruyama(), steps=FixedSteps(5))


def test_a_score_that_fails_for_some_samples_spoils_those_only() -> None:
    def score(t: Tensor, x: Tensor) -> Tensor:
        bad = torch.tensor([0.0, math.nan, 0.0, math.inf])[: len(x), None]
        return -x + bad

    x = torch.ones(4, 2)
    sol = solve(
        reverse(VP(), score), x, 1.0, 1e-3, solver=EulerMaruyama(), steps=FixedSteps(50), on_failure="return", seed=3
    )
    alone = solve(reverse(VP(), lambda t, x: -x), x, 1.0, 1e-3, solver=EulerMaruyama(), steps=FixedSteps(50), seed=3)
    assert sol.status.tolist() == [0, 2, 0, 2]
    assert torch.equal(sol.x[[0, 2]], alone.x[[0, 2]])
