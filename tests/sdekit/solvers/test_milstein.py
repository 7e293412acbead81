"""Milstein schemes and Euler–Heun reach strong order 1 where columns commute, in both directions of time."""

import pytest
import torch

from sdekit.convergence import Experiment, fit_order, problems, strong_errors
from sdekit.convergence.problems import geometric, wave
from sdekit.protocols import Calculus, Dense, Direction, Increment, Noise, Span
from sdekit.sdes import ItoSDE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers import EulerHeun, EulerMaruyama, ItoMilstein, StratonovichMilstein
from sdekit.steps import FixedSteps

A, B = 0.4, 0.7
BETWEEN = (0.437, 0.671, 0.893)
SOLVERS = [
    ItoMilstein(),
    ItoMilstein(derivative_free=True),
    StratonovichMilstein(),
    StratonovichMilstein(derivative_free=True),
    EulerHeun(),
]


def _span(h):
    t0 = torch.tensor(0.3, dtype=torch.float64)
    return Span(t0, t0 + h, h)


def _geometric(kind=ItoSDE, h=1.0, noise=Noise.DIAGONAL):
    return kind(lambda t, x: A * x, lambda t, x: B * x, noise, Direction.FORWARD if h > 0 else Direction.BACKWARD)


def _chosen(noise, calculus):
    """An autonomous problem and one that depends on time."""
    found = problems(noise, calculus)
    return next(p for p in found[1:] if p.autonomous), next(p for p in found if not p.autonomous)


@pytest.mark.parametrize("noise", [Noise.DIAGONAL, Noise.SCALAR, Noise.COMMUTATIVE])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_the_strong_order_is_one_in_both_directions_and_off_the_grid(solver, noise):
    for problem in _chosen(noise, solver.calculus):
        experiment = Experiment.of(
            problem, (16, 32, 64), batch=600, save_times=[problem.t0 + f * problem.length for f in BETWEEN]
        )
        for e in (experiment, experiment.reflected()):
            errors = e.strong_errors(solver)
            assert fit_order(errors).order > 0.85, e.problem.name
            assert fit_order(errors.between()).order > 0.85, e.problem.name


@pytest.mark.parametrize("h", [0.1, -0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 4, 4)])
def test_one_step_on_geometric_motion_is_the_formula(h, dtype, shape):
    x, w = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype) * 0.3
    square = {ItoMilstein: w * w - abs(h), StratonovichMilstein: w * w, EulerHeun: w * w}
    for solver in SOLVERS:
        kind = ItoSDE if solver.calculus is Calculus.ITO else StratonovichSDE
        new = solver.step(_geometric(kind, h), _span(h), x, Increment(w), None)
        expected = x * (1 + A * h + B * w + 0.5 * B**2 * square[type(solver)])
        assert new.x.dtype == dtype
        torch.testing.assert_close(new.x, expected)
        torch.testing.assert_close(new.mean, x + A * h * x)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_matrix_that_is_diagonal_gives_what_its_diagonal_gives(solver):
    def column(t, x):
        return 0.5 + 0.3 * torch.sin(x)

    kind = ItoSDE if solver.calculus is Calculus.ITO else StratonovichSDE
    x, w = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    plain = kind(lambda t, x: -x, column, Noise.DIAGONAL)
    dense = kind(lambda t, x: -x, lambda t, x: Dense(torch.diag_embed(column(t, x))), Noise.COMMUTATIVE)
    one, other = (solver.step(sde, _span(0.05), x, Increment(w * 0.2), None).x for sde in (plain, dense))
    # differences reach as far as the increment in one form and as far as √h in the other
    free = getattr(solver, "derivative_free", False)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-2 if free else 1e-13)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_additive_noise_is_plain_euler(solver):
    sde = ItoSDE(lambda t, x: -x, lambda t, x: torch.full_like(x, 0.5), Noise.ADDITIVE)
    x, w = torch.randn(6, 3), torch.randn(6, 3)
    torch.testing.assert_close(
        solver.step(sde, _span(0.1), x, Increment(w), None).x,
        EulerMaruyama().step(sde, _span(0.1), x, Increment(w), None).x,
    )


def test_per_sample_steps_are_the_steps_of_each_sample():
    h = torch.tensor([0.1, 0.02, 0.3]).reshape(3, 1, 1, 1)
    x, w = torch.randn(3, 2, 2, 2), torch.randn(3, 2)
    sde = ItoSDE(lambda t, x: -x, lambda t, x: Dense(torch.stack((0.3 * x, 0.5 * x), dim=-1)), Noise.COMMUTATIVE)
    t0 = torch.zeros(3, 1, 1, 1, dtype=torch.float64)
    for solver in SOLVERS[:2]:
        together = solver.step(sde, Span(t0, t0 + h, h), x, Increment(w), None).x
        for i in range(3):
            alone = solver.step(sde, _span(float(h[i])), x[i : i + 1], Increment(w[i : i + 1]), None).x
            torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_steps_are_the_same_without_gradients(context):
    x, w = torch.randn(4, 3), torch.randn(4, 3)
    for solver in SOLVERS[:4]:
        kind = ItoSDE if solver.calculus is Calculus.ITO else StratonovichSDE
        kept = solver.step(_geometric(kind), _span(0.1), x, Increment(w), None).x
        with context():
            bare = solver.step(_geometric(kind), _span(0.1), x, Increment(w), None).x
        assert torch.equal(kept, bare)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_first_and_second_derivatives_pass_through_a_step(solver):
    kind = ItoSDE if solver.calculus is Calculus.ITO else StratonovichSDE
    w = 0.3 * torch.randn(2, 2, dtype=torch.float64)

    def step(x, b):
        sde = kind(lambda t, x: -x, lambda t, x: torch.sin(b * x), Noise.DIAGONAL)
        return solver.step(sde, _span(0.1), x, Increment(w), None).x

    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.7, 1.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(step, (x, b))
    assert torch.autograd.gradgradcheck(step, (x, b))


def test_a_sample_does_not_depend_on_its_batch():
    x0 = torch.linspace(0.5, 2.0, 8, dtype=torch.float64).reshape(8, 1)
    whole = solve(_geometric(), x0, 0.0, 1.0, solver=ItoMilstein(), steps=FixedSteps(20), seed=3)
    part = solve(_geometric(), x0[5:6], 0.0, 1.0, solver=ItoMilstein(), steps=FixedSteps(20), seed=3, first=5)
    assert torch.equal(whole.x[5:6], part.x)


def test_errors_at_dt_one_128th_meet_the_bar():
    for problem, bar in ((geometric(0.5, 1.0)[0], 2.2e-2), (wave(1.0)[0], 2.0e-3)):
        assert float(strong_errors(problem, ItoMilstein(), (128,), batch=2000, seed=1).mean[0]) < bar, problem.name
