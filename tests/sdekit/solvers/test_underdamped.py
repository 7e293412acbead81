"""Splitting methods for underdamped Langevin dynamics: orders against exact paths, laws and moments."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit.convergence import Problem, fit_order, strong_errors
from sdekit.convergence.path import RecordedPath
from sdekit.errors import Incompatible
from sdekit.protocols import Direction, Increment, Noise, Span
from sdekit.sdes.functions import ODE, ItoSDE
from sdekit.sdes.potentials import UnderdampedLangevin
from sdekit.solve import solve
from sdekit.solvers.stochastic_rk import SRA1
from sdekit.solvers.underdamped import BAOAB, QUICSORT
from sdekit.steps import FixedSteps

F64 = torch.float64
METHODS = [BAOAB(), QUICSORT()]


@dataclass(frozen=True)
class Backward(UnderdampedLangevin):
    """The same equation with a law that runs backward in time: seen along the travel, friction drives."""

    @property
    def direction(self) -> Direction:
        return Direction.BACKWARD


def harmonic(gamma: float, u: float, stiffness: float, backward: bool = False) -> Problem:
    """A linear force, whose solution is a Wiener integral."""
    way = -1.0 if backward else 1.0
    a = way * torch.tensor([[0.0, 1.0], [-u * stiffness, -gamma]], dtype=F64)
    g = torch.tensor([[0.0, 0.0], [0.0, math.sqrt(2 * gamma * u)]], dtype=F64)

    def exact(path: RecordedPath, x0: Tensor, s: float) -> Tensor:
        inner = path.integral(lambda r: torch.matrix_exp(-a * r[:, None, None]) @ g, s)
        return (x0 + inner) @ torch.matrix_exp(a * s).T

    kind = Backward if backward else UnderdampedLangevin
    sde = kind(gradient=lambda x: stiffness * x, gamma=gamma, u=u)
    return Problem("harmonic", sde, (1.0, 0.5), 0.0, 2 * way, exact)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("gamma", "u"), [(1.3, 0.7), (1e-3, 1.0), (6.0, 1.0)])
@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_strong_orders_at_every_friction_both_ways(solver: Any, gamma: float, u: float, backward: bool) -> None:
    problem = harmonic(gamma, u, 2.0, backward)
    # at a third of the span, off every grid, too
    errors = strong_errors(problem, solver, (16, 32, 64, 128), 200, seed=1, save_times=[problem.t1 / 3])
    claim = solver.orders[Noise.ADDITIVE].strong
    assert fit_order(errors).order > claim - 0.15
    assert errors.saved is not None
    between = errors.saved[:, 0].mean(-1)
    assert float(torch.log2(between[0] / between[-1]) / 3) > claim - 0.2


def wavy(x: Tensor) -> Tensor:
    """The gradient of a potential with anharmonic coupling between the components."""
    other = x.flip(1)
    return x + torch.sin(2 * x) * torch.cos(other) + 0.5 * torch.tanh(x + other)


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_strong_orders_on_a_potential_that_is_not_quadratic(solver: Any) -> None:
    sde, count = UnderdampedLangevin(gradient=wavy, gamma=1.5, u=1.0), 200
    path = RecordedPath(0.0, torch.linspace(0, 2, 513, dtype=F64), (count, 2, 3), 3)
    x0 = torch.linspace(-1, 1, 6, dtype=F64).reshape(2, 3).expand(count, 2, 3)

    def end(method: Any, n: int) -> Tensor:
        return solve(sde, x0, 0.0, 2.0, solver=method, steps=FixedSteps(n), path=path).x

    fine, other = end(QUICSORT(), 512), end(SRA1(), 512)
    # two methods that share nothing agree on the truth
    assert float((fine - other).flatten(1).norm(dim=1).mean()) < 1e-4
    counts = (8, 16, 32, 64)
    errors = torch.stack([(end(solver, n) - fine).flatten(1).norm(dim=1).mean() for n in counts])
    assert float(torch.log2(errors[0] / errors[-1]) / 3) > solver.orders[Noise.ADDITIVE].strong - 0.15


def test_quicsort_is_worth_its_second_gradient() -> None:
    problem = harmonic(1.0, 1.0, 1.0)
    ours = strong_errors(problem, QUICSORT(), (32,), batch=200)
    theirs = strong_errors(problem, SRA1(), (32,), batch=200)
    assert ours.drift_calls == theirs.drift_calls
    assert float(ours.mean) < 0.02 * float(theirs.mean)


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    """Outcomes of three standard normals and their weights, exact for polynomials of degree 9."""
    z, w = np.polynomial.hermite_e.hermegauss(count)
    index = torch.tensor(list(itertools.product(range(count), repeat=3)))
    return torch.tensor(z)[index], (torch.tensor(w) / w.sum())[index].prod(1)


def _expectation(solver: Any, sde: Any, x: Tensor, h: float, observable: Callable[[Tensor], Tensor]) -> float:
    z, weights = _gauss(5)
    parts = [z[:, k, None, None].expand(-1, 2, 1) * math.sqrt(h / c) for k, c in enumerate((1.0, 12.0, 720.0))]
    span = Span(torch.tensor(0.0, dtype=F64), torch.tensor(h, dtype=F64), h)
    start = x.expand(len(z), 2, 1)
    outcome = solver.step(sde, span, start, Increment(*parts), solver.init(sde, span.t0, start)).x
    return float((weights * observable(outcome[..., 0])).sum())


def _series(sde: UnderdampedLangevin, x: Tensor, h: float, observable: Callable[[Tensor], Tensor], order: int) -> float:
    """`Σ hᵏ Lᵏφ/k!` with the generator `L φ = v φ_x − (γ v + u U′) φ_v + γ u φ_vv`."""

    def applied(phi: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def out(z: Tensor) -> Tensor:
            push = -sde.gamma * z[1] - sde.u * sde.potential_gradient(z[:1])[0]
            slope, bend = torch.func.grad(phi)(z), torch.func.hessian(phi)(z)[1, 1]
            return slope[0] * z[1] + slope[1] * push + sde.gamma * sde.u * bend

        return out

    total, phi, factor = 0.0, observable, 1.0
    for k in range(order + 1):
        total += factor * float(phi(x[:, 0]))
        phi, factor = applied(phi), factor * h / (k + 1)
    return total


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_one_step_errs_in_law_as_one_power_more_than_the_weak_order(solver: Any) -> None:
    sde = UnderdampedLangevin(gradient=lambda x: x**3 - x + 0.3, gamma=1.2, u=0.7)
    x, order = torch.tensor([[0.6], [-0.8]], dtype=F64), int(solver.orders[Noise.ADDITIVE].weak)

    def observable(z: Tensor) -> Tensor:
        return torch.sin(z[..., 0]) * z[..., 1] ** 2 + z[..., 0] ** 3 + z[..., 1] ** 3

    sizes = (0.02, 0.01, 0.005)
    errors = [abs(_expectation(solver, sde, x, h, observable) - _series(sde, x, h, observable, order)) for h in sizes]
    assert math.log(errors[0] / errors[-1]) / math.log(4.0) > order + 0.85


def _stationary(solver: Any, h: float, gamma: float) -> tuple[float, float]:
    """Variances of x and v in the long run for U = x²/2, exactly: a step is linear in the state and in its normals."""
    sde = UnderdampedLangevin(gradient=lambda x: x, gamma=gamma, u=1.0)
    span = Span(torch.tensor(0.0, dtype=F64), torch.tensor(h, dtype=F64), h)
    states = torch.cat((torch.eye(2, dtype=F64), torch.zeros(3, 2, dtype=F64)))[..., None]
    parts = []
    for k, c in enumerate((1.0, 12.0, 720.0)):
        part = torch.zeros(5, 2, 1, dtype=F64)
        part[2 + k] = math.sqrt(h / c)
        parts.append(part)
    out = solver.step(sde, span, states, Increment(*parts), solver.init(sde, span.t0, states)).x[..., 0]
    a, b = out[:2].T, out[2:].T
    four = torch.eye(4, dtype=F64) - torch.kron(a, a)
    cov = torch.linalg.solve(four, (b @ b.T).reshape(4)).reshape(2, 2)
    return float(cov[0, 0]), float(cov[1, 1])


def test_positions_of_baoab_have_their_exact_law_in_a_quadratic_potential_at_any_step() -> None:
    for h in (0.01, 0.3, 1.5):
        assert _stationary(BAOAB(), h, 1.0)[0] == pytest.approx(1.0, rel=1e-10)
    # while velocities err by h²/4
    assert _stationary(BAOAB(), 0.3, 1.0)[1] == pytest.approx(1 - 0.3**2 / 4, rel=1e-10)


def test_the_stationary_law_of_quicsort_errs_by_the_third_power_of_the_step() -> None:
    coarse, fine = (abs(_stationary(QUICSORT(), h, 1.0)[0] - 1.0) for h in (0.2, 0.1))
    assert coarse < 1e-3
    assert math.log2(coarse / fine) > 2.8


def test_counts_shapes_and_dtypes() -> None:
    sde = UnderdampedLangevin(gradient=lambda x: x, gamma=1.0, u=1.0)
    x0 = torch.linspace(-1, 1, 48).reshape(2, 2, 3, 4)
    for solver, calls in ((BAOAB(), 11), (QUICSORT(), 20)):
        image = solve(sde, x0, 0.0, 1.0, solver=solver, steps=FixedSteps(10), seed=1)
        assert image.stats.drift_calls == calls
        assert image.x.dtype is torch.float32
        flat = solve(sde, x0.reshape(2, 2, 12), 0.0, 1.0, solver=solver, steps=FixedSteps(10), seed=1)
        assert torch.equal(image.x.reshape(2, 2, 12), flat.x)
        # samples with spans of their own
        ends = torch.tensor([1.0, 0.5], dtype=F64)
        own = solve(sde, x0, 0.0, ends, solver=solver, steps=FixedSteps(10), seed=1)
        assert torch.allclose(own.x[0], image.x[0], atol=1e-6)


def test_other_equations_are_refused_with_advice() -> None:
    plain = ItoSDE(lambda t, x: -x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    with pytest.raises(Incompatible, match="pass UnderdampedLangevin"):
        solve(plain, torch.ones(1, 2, 3), 0.0, 1.0, solver=BAOAB(), steps=FixedSteps(1))
    sde = UnderdampedLangevin(gradient=lambda x: x)
    with pytest.raises(Incompatible, match=r"torch\.stack\(\(x, v\), dim=1\)"):
        QUICSORT().init(sde, torch.tensor(0.0), torch.ones(1, 3, 3))
    with pytest.raises(Incompatible, match="handles additive noise"):
        solve(ODE(lambda t, x: -x), torch.ones(1, 2), 0.0, 1.0, solver=QUICSORT(), steps=FixedSteps(1))
