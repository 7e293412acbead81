"""Exponential Euler: exact where it claims to be, of its order elsewhere, and unmoved by stiffness."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit.convergence import Problem, fit_order, reflected, strong_errors
from sdekit.convergence.path import RecordedPath
from sdekit.errors import Incompatible
from sdekit.protocols import Dense, Direction, Noise
from sdekit.sdes.functions import ItoSDE
from sdekit.sdes.semilinear import Semilinear
from sdekit.solve import solve
from sdekit.solvers.euler import EulerMaruyama
from sdekit.solvers.exponential_sde import ExponentialEuler
from sdekit.steps import FixedSteps

F64 = torch.float64
SOLVER = ExponentialEuler()
SYMMETRIC = torch.tensor([[-2.0, 0.7], [0.7, -1.0]], dtype=F64)
TURNING = torch.tensor([[-0.5, 3.0], [-3.0, -0.5]], dtype=F64)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(0), torch.cov(x.T)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("steps", [1, 3])
def test_element_wise_linear_sdes_are_exact_in_law_at_any_step(direction: Direction, steps: int) -> None:
    # seen along the direction of travel: dx = a x ds + g dW with a = −3, −0.01 and 40, over s = 1
    a, g = torch.tensor([-3.0, -0.01, -40.0], dtype=F64), torch.tensor([0.5, 1.0, 2.0], dtype=F64)
    sde = Semilinear(a * direction, None, lambda t, x: g.expand_as(x), Noise.ADDITIVE, direction)
    count = 100_000
    x0 = torch.tensor([1.0, -2.0, 3.0], dtype=F64).expand(count, 3)
    end = float(direction)
    x = solve(sde, x0, 0.0, end, solver=SOLVER, steps=FixedSteps(steps), seed=8).x
    mean, cov = moments(x)
    exact = g**2 * torch.expm1(2 * a) / (2 * a)
    assert torch.all((mean - torch.exp(a) * x0[0]).abs() < 4.5 * (exact / count).sqrt())
    assert torch.allclose(cov.diagonal(), exact, rtol=4.5 * math.sqrt(2 / count))


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_symmetric_matrices_are_exact_in_law_at_any_step(shape: tuple[int, ...]) -> None:
    count = 100_000
    x0 = torch.ones(count, *shape, dtype=F64)
    sde = Semilinear(SYMMETRIC, None, lambda t, x: 0.5 * torch.ones_like(x), Noise.ADDITIVE)
    x = solve(sde, x0, 0.0, 1.5, solver=SOLVER, steps=FixedSteps(1), seed=8).x.reshape(count, 2, -1)[:, :, 0]
    mean, cov = moments(x)
    exact = 0.25 * torch.linalg.solve(2 * SYMMETRIC, torch.matrix_exp(3.0 * SYMMETRIC) - torch.eye(2, dtype=F64))
    assert torch.allclose(cov, exact, atol=4.5 * math.sqrt(2 / count) * float(exact.max()))
    expected = torch.matrix_exp(1.5 * SYMMETRIC) @ torch.ones(2, dtype=F64)
    assert torch.allclose(mean, expected, atol=4.5 * math.sqrt(float(exact.max()) / count))


@pytest.mark.parametrize("a", [-1.3, SYMMETRIC, TURNING], ids=["number", "symmetric", "turning"])
def test_without_noise_a_constant_force_is_integrated_exactly(a: Any) -> None:
    force = torch.tensor([1.0, -0.5], dtype=F64)
    sde = Semilinear(a, lambda t, x: force.expand_as(x))
    x0 = torch.tensor([[1.0, 2.0]], dtype=F64)
    matrix = a if isinstance(a, Tensor) else a * torch.eye(2, dtype=F64)
    rest = torch.linalg.solve(matrix, -force)
    exact = rest + torch.matrix_exp(2.0 * matrix) @ (x0[0] - rest)
    one = solve(sde, x0, 0.0, 2.0, solver=SOLVER, steps=FixedSteps(1)).x
    assert torch.allclose(one[0], exact, rtol=1e-13)
    # a time span of its own for every sample
    ends = torch.tensor([2.0, 1.0], dtype=F64)
    both = solve(sde, x0.expand(2, 2), 0.0, ends, solver=SOLVER, steps=FixedSteps(3)).x
    assert torch.allclose(both[0], exact, rtol=1e-13)
    assert torch.allclose(both[1], rest + torch.matrix_exp(1.0 * matrix) @ (x0[0] - rest), rtol=1e-13)


def _turned(path: RecordedPath, x0: Tensor, s: float) -> Tensor:
    inner = path.integral(lambda r: torch.matrix_exp(-TURNING * r[:, None, None]) * torch.cos(r)[:, None, None], s)
    return (x0 + inner) @ torch.matrix_exp(TURNING * s).T


def _decayed(path: RecordedPath, x0: Tensor, s: float) -> Tensor:
    return math.exp(-1.5 * s) * (x0 + 0.8 * path.integral(lambda r: torch.exp(1.5 * r), s))


def _geometric(path: RecordedPath, x0: Tensor, s: float) -> Tensor:
    return x0 * torch.exp((-1.0 + math.sin(s) / s - 0.18) * s + 0.6 * path.w(s))


PROBLEMS = [
    Problem(
        "linear decay",
        Semilinear(-1.5, None, lambda t, x: 0.8 * torch.ones_like(x), Noise.ADDITIVE),
        (1.0, 0.3),
        0.0,
        1.0,
        _decayed,
    ),
    Problem(
        "half of the decay taken as linear",
        Semilinear(-1.0, lambda t, x: -0.5 * x, lambda t, x: 0.8 * torch.ones_like(x), Noise.ADDITIVE),
        (1.0, 0.3),
        0.0,
        1.0,
        _decayed,
    ),
    Problem(
        "turning with a matrix of noise that changes in time",
        Semilinear(TURNING, None, lambda t, x: Dense(torch.cos(t) * torch.eye(2, dtype=x.dtype)), Noise.ADDITIVE),
        (1.0, 0.5),
        0.0,
        1.0,
        _turned,
        autonomous=False,
    ),
    Problem(
        "geometric, with a rate that changes in time",
        Semilinear(-1.0, lambda t, x: torch.cos(t) * x, lambda t, x: 0.6 * x, Noise.DIAGONAL),
        (1.0,),
        0.0,
        1.0,
        _geometric,
        autonomous=False,
    ),
]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_strong_orders_are_the_claimed_ones(problem: Problem, backward: bool) -> None:
    if backward:
        forward, whole = problem.sde, problem.t0 + problem.t1
        assert isinstance(forward, Semilinear)
        rest, g = forward.nonlinear, forward.diffusion
        assert g is not None
        sde = Semilinear(
            -forward.linear,
            None if rest is None else lambda t, x: -rest(whole - t, x),
            lambda t, x: g(whole - t, x),
            forward.noise,
            Direction.BACKWARD,
        )
        problem = replace(reflected(problem), sde=sde)
    errors = strong_errors(problem, SOLVER, (8, 16, 32, 64), batch=500, seed=3)
    assert fit_order(errors).order > SOLVER.orders[problem.noise].strong - 0.15


def laplacian(n: int) -> Tensor:
    """Second differences on n inner points of [0, 1], zero outside."""
    out = torch.diag(torch.full((n,), -2.0, dtype=F64))
    out += torch.diag(torch.ones(n - 1, dtype=F64), 1) + torch.diag(torch.ones(n - 1, dtype=F64), -1)
    return out * (n + 1) ** 2


def heat(n: int, nonlinear: Any = None) -> Semilinear:
    """`du = (u_xx + F(u)) dt + dξ` with space–time white noise ξ, on a grid of n points."""
    return Semilinear(
        laplacian(n), nonlinear, lambda t, x: math.sqrt(n + 1) * torch.ones((), dtype=x.dtype), Noise.ADDITIVE
    )


def test_the_stochastic_heat_equation_has_its_stationary_law_at_steps_where_euler_explodes() -> None:
    n, count = 32, 4000
    sde, x0 = heat(n), torch.zeros(4000, 32, dtype=F64)
    # the fastest mode decays 430 times within a step
    x = solve(sde, x0, 0.0, 2.0, solver=SOLVER, steps=FixedSteps(20), seed=2).x
    exact = torch.linalg.inv(-2 * laplacian(n)) * (n + 1)
    variance = x.square().mean(0)
    assert torch.allclose(variance, exact.diagonal(), rtol=4.5 * math.sqrt(2 / count))
    euler = ItoSDE(sde.drift, sde.diffusion, Noise.ADDITIVE)  # type: ignore[arg-type]
    exploded = solve(euler, x0[:10], 0.0, 2.0, solver=EulerMaruyama(), steps=FixedSteps(20), seed=2)
    assert float(exploded.x.abs().min()) > 1e20


def test_a_stiff_reaction_diffusion_equation_converges_with_order_1() -> None:
    # Allen–Cahn with noise that is smooth in space; h times the fastest rate runs from 72 down to 9
    n, count = 16, 100
    modes = torch.linalg.eigh(laplacian(n)).eigenvectors.flip(1) / torch.arange(1, n + 1, dtype=F64) ** 2
    sde = Semilinear(laplacian(n), lambda t, x: 10 * (x - x**3), lambda t, x: Dense(modes), Noise.ADDITIVE)
    path = RecordedPath(0.0, torch.linspace(0, 1, 1025, dtype=F64), (count, n), 5)
    x0 = 0.5 * torch.ones(count, n, dtype=F64)

    def end(k: int) -> Tensor:
        return solve(sde, x0, 0.0, 1.0, solver=SOLVER, steps=FixedSteps(k), path=path).x

    fine = end(1024)
    errors = torch.stack([(end(k) - fine).norm(dim=1).mean() for k in (16, 32, 64, 128)])
    assert float(errors[0]) < 0.3 * float(fine.norm(dim=1).mean())
    assert float(torch.log2(errors[0] / errors[-1]) / 3) > 0.85


@pytest.mark.parametrize("matrix", [SYMMETRIC, TURNING], ids=["symmetric", "turning"])
def test_a_linear_part_can_be_learned(matrix: Tensor) -> None:
    a = matrix.clone().requires_grad_()
    sde = Semilinear(a, lambda t, x: torch.sin(x), lambda t, x: 0.3 * torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.tensor([[1.0, 0.5]], dtype=F64)

    def loss() -> Tensor:
        return solve(sde, x0, 0.0, 1.0, solver=SOLVER, steps=FixedSteps(3), seed=1).x.square().sum()

    for _ in range(2):  # the matrix changes between the two
        (slope,) = torch.autograd.grad(loss(), a)
        with torch.no_grad():
            direction = torch.tensor([[1.0, 0.5], [0.5, -1.0]], dtype=F64)
            a += 1e-6 * direction
            up = loss()
            a -= 2e-6 * direction
            down = loss()
            a += 1e-6 * direction
        assert float((slope * direction).sum()) == pytest.approx(float(up - down) / 2e-6, rel=1e-6)
        with torch.no_grad():
            a -= 0.2 * torch.eye(2, dtype=F64)


def test_float32_images_and_counts() -> None:
    sde = Semilinear(
        torch.full((1, 2, 3), -1e4), lambda t, x: torch.sin(x), lambda t, x: 0.1 * torch.ones_like(x), Noise.ADDITIVE
    )
    x0 = torch.ones(4, 2, 3)
    solution = solve(sde, x0, 0.0, 1.0, solver=SOLVER, steps=FixedSteps(7), seed=1)
    assert solution.x.dtype is torch.float32
    assert float(solution.x.abs().max()) < 5 * 0.1 / math.sqrt(2e4) + 1e-3
    assert (solution.stats.drift_calls, solution.stats.diffusion_calls) == (7, 7)
    alone = solve(sde, x0[2:3], 0.0, 1.0, solver=SOLVER, steps=FixedSteps(7), seed=1, first=2)
    assert torch.equal(solution.x[2:3], alone.x)


def test_misuse_is_taught() -> None:
    plain = ItoSDE(lambda t, x: -x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    with pytest.raises(Incompatible, match=r"Semilinear\(linear=A"):
        solve(plain, torch.ones(1, 1), 0.0, 1.0, solver=SOLVER, steps=FixedSteps(1))
    with pytest.raises(ValueError, match="square"):
        Semilinear(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"noise is Noise\.NONE"):
        Semilinear(-1.0, None, lambda t, x: x)
    with pytest.raises(TypeError, match="linear must be"):
        Semilinear("fast")  # type: ignore[arg-type]
