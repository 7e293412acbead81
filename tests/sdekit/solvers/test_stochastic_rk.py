"""Stochastic Runge–Kutta methods: tableaux by the order conditions, orders and costs by measurement."""

import numpy as np
import pytest
import torch

from sdekit.convergence import Experiment, fit_order, problems, strong_errors
from sdekit.convergence.problems import additive_decay, double_well, geometric, wave
from sdekit.errors import Incompatible
from sdekit.protocols import Calculus, Dense, Direction, Increment, Noise, Span
from sdekit.sdes import ODE, ItoSDE
from sdekit.solve import solve
from sdekit.solvers import SRA1, SRA3, SRI, SRIW1, EulerMaruyama, ItoMilstein, ShARK
from sdekit.steps import Adaptive, FixedSteps

ADDITIVE, DIAGONAL = [SRA1(), SRA3(), ShARK()], [SRI(), SRIW1()]
BETWEEN = (0.437, 0.671, 0.893)


def _square(rows, n):
    matrix = np.zeros((n, n))
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = row
    return matrix


def _vanish(conditions):
    for name, value in conditions.items():
        assert abs(value) < 1e-13, name


def _drift_conditions(alpha, a, c, order):
    found = {"α·1": alpha.sum() - 1, "α·c": alpha @ c - 1 / 2, "c = a·1": np.abs(a.sum(1) - c).max()}
    if order == 3:
        found |= {"α·c²": alpha @ c**2 - 1 / 3, "α·a·c": alpha @ a @ c - 1 / 6}
    return found


@pytest.mark.parametrize("solver", ADDITIVE, ids=repr)
def test_additive_tableaux_satisfy_the_order_conditions(solver):
    t = solver.tableau
    n = len(t.b)
    alpha, a, c = np.array(t.b), _square(t.a, n), np.array(t.c)
    w, h = (np.array(t.start) + np.array(t.end)).T
    _vanish(_drift_conditions(alpha, a, c, t.order))
    # f′g needs I_(1,0) = |h|(W/2 + H), and f″g² the mean ½∫W² = |h|²/4, with E W² = |h| and E H² = |h|/12
    _vanish({"α·w": alpha @ w - 1 / 2, "α·h": alpha @ h - 1, "α·(w² + h²/12)": alpha @ (w**2 + h**2 / 12) - 1 / 2})


@pytest.mark.parametrize("solver", DIAGONAL, ids=repr)
def test_diagonal_tableaux_satisfy_the_order_conditions(solver):
    """Rößler (2010), theorem 5.1; products of vectors are element-wise, e is the vector of ones."""
    t = solver.tableau
    n = len(t.d)
    alpha, c = (np.pad(row, (0, n - len(row))) for row in (t.alpha, t.c))
    A0, B0, A1, B1 = (_square(rows, n) for rows in (t.drift, t.drift_noise, t.noise_drift, t.noise))
    b1, b2, b3, b4 = (np.array(row) for row in (t.beta1, t.beta2, t.beta3, t.beta4))
    e = np.ones(n)
    _vanish(_drift_conditions(alpha, A0, c, t.order) | {"d = A1·1": np.abs(A1 @ e - t.d).max()})
    order_one = {2: b1 @ e - 1, 3: b2 @ e, 4: b3 @ e, 5: b4 @ e}
    order_one |= {6: b1 @ B1 @ e, 7: b2 @ B1 @ e - 1, 8: b3 @ B1 @ e, 9: b4 @ B1 @ e}
    noise_in_drift = {11: alpha @ B0 @ e - 1, 12: alpha @ (B0 @ e) ** 2 - 3 / 2}
    drift_in_noise = {13: b1 @ A1 @ e - 1, 14: b2 @ A1 @ e, 15: b3 @ A1 @ e + 1, 16: b4 @ A1 @ e}
    squares = {
        17: b1 @ (B1 @ e) ** 2 - 1,
        18: b2 @ (B1 @ e) ** 2,
        19: b3 @ (B1 @ e) ** 2 + 1,
        20: b4 @ (B1 @ e) ** 2 - 2,
    }
    chains = {21: b1 @ B1 @ B1 @ e, 22: b2 @ B1 @ B1 @ e, 23: b3 @ B1 @ B1 @ e, 24: b4 @ B1 @ B1 @ e - 1}
    _vanish(order_one | noise_in_drift | drift_in_noise | squares | chains)
    _vanish({25: b1 @ A1 @ B0 @ e / 2 + b3 @ A1 @ B0 @ e / 3})


def _check_orders(solver, problem, steps=(16, 32, 64, 128)):
    experiment = Experiment.of(problem, steps, batch=500, save_times=[f * problem.length for f in BETWEEN])
    for e in (experiment, experiment.reflected()):
        errors = e.strong_errors(solver)
        assert fit_order(errors).order > 1.35, e.problem.name
        assert fit_order(errors.between()).order > 1.35, e.problem.name


@pytest.mark.parametrize("solver", ADDITIVE + DIAGONAL, ids=repr)
def test_the_strong_order_is_three_halves_for_additive_noise(solver):
    for problem in problems(Noise.ADDITIVE, Calculus.ITO):
        if problem.exact is not None:
            _check_orders(solver, problem)
    _check_orders(solver, double_well(), (8, 16, 32))


@pytest.mark.parametrize("noise", [Noise.DIAGONAL, Noise.SCALAR])
@pytest.mark.parametrize("solver", DIAGONAL, ids=repr)
def test_the_strong_order_is_three_halves_for_diagonal_and_scalar_noise(solver, noise):
    for problem in problems(noise, Calculus.ITO):
        _check_orders(solver, problem, (32, 64, 128))


@pytest.mark.parametrize("solver", ADDITIVE + DIAGONAL, ids=repr)
def test_without_noise_they_have_the_order_of_their_drift_tableau(solver):
    for problem in problems(Noise.NONE, Calculus.ITO):
        errors = strong_errors(problem, solver, (32, 64, 128), batch=1)
        assert fit_order(errors).order > solver.tableau.order - 0.15, problem.name


@pytest.mark.parametrize("solver", ADDITIVE + DIAGONAL, ids=repr)
def test_evaluations_a_step_are_as_stated(solver):
    problem = additive_decay() if solver in ADDITIVE else wave()[0]
    errors = strong_errors(problem, solver, (10,), batch=2)
    drifts, diffusions = {SRA1: (2, 2), SRA3: (3, 2), ShARK: (2, 2), SRIW1: (2, 4), SRI: (3, 4)}[type(solver)]
    assert errors.drift_calls[0] <= 10 * drifts + 1
    assert errors.diffusion_calls[0] <= 10 * diffusions + 1


def test_errors_at_dt_one_128th_meet_the_bar():
    cases = [
        (geometric(0.5, 1.0)[0], DIAGONAL, 6.5e-4),
        (wave(1.0)[0], DIAGONAL, 2.6e-4),
        (additive_decay(0.1, 0.5), ADDITIVE, 2e-7),
    ]
    for problem, solvers, bar in cases:
        experiment = Experiment.of(problem, (128,), batch=2000, seed=1)
        for solver in solvers:
            assert float(experiment.strong_errors(solver).mean[0]) < bar, (problem.name, solver)


@pytest.mark.parametrize("solver", ADDITIVE + DIAGONAL, ids=repr)
def test_the_error_estimate_shrinks_as_it_says(solver):
    if solver in ADDITIVE:
        sde = ItoSDE(lambda t, x: torch.sin(3 * x), lambda t, x: (1 + t) * torch.ones_like(x), Noise.ADDITIVE)
    else:
        sde = ItoSDE(lambda t, x: torch.sin(3 * x), lambda t, x: torch.cos(x) + 0.5 * t, Noise.DIAGONAL)
    x = torch.full((4000, 1), 0.4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4000, 1, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([2.0**-k for k in range(6, 11)], dtype=torch.float64)
    estimates = []
    for h in sizes.tolist():
        t0 = torch.tensor(0.2, dtype=torch.float64)
        step = solver.step(sde, Span(t0, t0 + h, h), x, Increment(z[0] * h**0.5, z[1] * (h / 12) ** 0.5), None)
        estimates.append(step.error.square().mean().sqrt())
    slope = np.polyfit(sizes.log().numpy(), torch.stack(estimates).log().numpy(), 1)[0]
    assert abs(slope - solver.error_order) < 0.1


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("solver", ADDITIVE + DIAGONAL, ids=repr)
def test_per_sample_steps_are_the_steps_of_each_sample_and_a_step_of_zero_stays(solver, direction):
    h = direction * torch.tensor([0.1, 0.0, 0.3], dtype=torch.float64).reshape(3, 1, 1)
    x, w, area = torch.randn(3, 3, 2, 2, dtype=torch.float64).unbind(1)
    still = (h != 0).double()
    kind = Noise.ADDITIVE if solver in ADDITIVE else Noise.DIAGONAL
    sde = ItoSDE(lambda t, x: -x * (1 + t), lambda t, x: t + (1 if kind is Noise.ADDITIVE else x), kind, direction)
    t0 = torch.zeros(3, 1, 1, dtype=torch.float64)
    together = solver.step(sde, Span(t0, t0 + h, h), x, Increment(w * still, area * still), None).x
    assert torch.equal(together[1], x[1])
    for i in (0, 2):
        size, zero = float(h[i]), t0[0, 0, 0]
        alone = solver.step(
            sde, Span(zero, zero + size, size), x[i : i + 1], Increment(w[i : i + 1], area[i : i + 1]), None
        )
        torch.testing.assert_close(together[i : i + 1], alone.x)


def test_a_dense_column_is_scalar_noise_on_any_shape():
    def column(t, x):
        return torch.cos(x)

    x, w, area = torch.randn(4, 2, 3, 3), torch.randn(4, 1), torch.randn(4, 1)
    t0 = torch.tensor(0.0, dtype=torch.float64)
    span = Span(t0, t0 + 0.1, 0.1)
    plain = ItoSDE(lambda t, x: -x, column, Noise.SCALAR)
    dense = ItoSDE(lambda t, x: -x, lambda t, x: Dense(column(t, x).unsqueeze(-1)), Noise.SCALAR)
    for solver in DIAGONAL:
        wide = Increment(w.reshape(4, 1, 1, 1), area.reshape(4, 1, 1, 1))
        one = solver.step(plain, span, x, wide, None).x
        other = solver.step(dense, span, x, Increment(w, area), None).x
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("solver", ADDITIVE + DIAGONAL, ids=repr)
def test_first_and_second_derivatives_pass_through_a_step(solver):
    w, area = 0.3 * torch.randn(2, 2, 2, dtype=torch.float64)
    t0 = torch.tensor(0.1, dtype=torch.float64)

    def step(x, b):
        noise = Noise.ADDITIVE if solver in ADDITIVE else Noise.DIAGONAL
        sde = ItoSDE(lambda t, x: -(x**3), lambda t, x: b + t if noise is Noise.ADDITIVE else torch.sin(b * x), noise)
        return solver.step(sde, Span(t0, t0 + 0.1, 0.1), x, Increment(w, 0.3 * area), None).x

    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.7, 1.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(step, (x, b))
    assert torch.autograd.gradgradcheck(step, (x, b))


def test_what_fits_is_said():
    problem, steps = wave()[0], FixedSteps(2)
    with pytest.raises(
        Incompatible, match=r"SRA1 handles additive noise; .* declares DIAGONAL\. Use ItoMilstein\(\)\."
    ):
        solve(problem.sde, problem.x0(2), 0.0, 1.0, solver=SRA1(), steps=steps)
    stratonovich = wave()[1]
    with pytest.raises(Incompatible, match=r"SRI solves Itô SDEs.*Use StratonovichMilstein\(\)\."):
        solve(stratonovich.sde, stratonovich.x0(2), 0.0, 1.0, solver=SRI(), steps=steps)
    ode = ODE(lambda t, x: -x)
    with pytest.raises(Incompatible, match=r"Adaptive steps need an error estimate; ItoMilstein has none.*Halving"):
        solve(ode, torch.ones(1, 1), 0.0, 1.0, solver=ItoMilstein(), steps=Adaptive(1e-3, 1e-3))
    t0 = torch.tensor(0.0, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"levy=Levy\.H"):
        SRI().step(problem.sde, Span(t0, t0 + 1.0, 1.0), problem.x0(2), Increment(torch.zeros(2, 1)), None)


def test_at_equal_steps_they_beat_milstein_and_milstein_beats_euler():
    experiment = Experiment.of(wave()[0], (32,), batch=500)
    errors = [float(experiment.strong_errors(s).mean[0]) for s in (EulerMaruyama(), ItoMilstein(), SRIW1())]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
