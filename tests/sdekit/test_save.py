"""Saving changes nothing, and what is saved between steps has the law of the process and the order of the solver."""

import itertools
import math

import pytest
import torch

from sdekit.brownian import BrownianTree
from sdekit.protocols import Dense, Direction, Noise
from sdekit.random import KeyedDraws, Purpose
from sdekit.save import SaveAt
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers import RK4, Bosh3, Dopri5, EulerMaruyama, Heun
from sdekit.steps import Adaptive, FixedSteps, TimeGrid

CPU = torch.device("cpu")
BROWNIAN = ItoSDE(lambda t, x: torch.zeros_like(x), lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
WAVY = StratonovichSDE(lambda t, x: torch.sin(x) - t * x, lambda t, x: 0.5 + 0.3 * torch.cos(x), Noise.DIAGONAL)
DECAY = ODE(lambda t, x: -x + torch.cos(t))
OFF_GRID = [0.0, 0.0123, 0.3, 0.301, 0.77, 1.0]


def _x0(count, tail=(1,), dtype=torch.float64):
    return KeyedDraws(0).normal(Purpose.DATA, 0, (count, *tail), dtype, CPU)


# --- saving changes nothing ------------------------------------------------------------------------


PAIRS = [(WAVY, Heun()), (DECAY, Heun()), (DECAY, Dopri5()), (WAVY, RK4()), (BROWNIAN, EulerMaruyama())]
CONTROLS = [FixedSteps(7), FixedSteps(dt=0.1), Adaptive(rtol=1e-3, atol=1e-3)]
CASES = [(*p, c) for p, c in itertools.product(PAIRS, CONTROLS) if p[1].error_order is not None or not c.adaptive]


@pytest.mark.parametrize("tail", [(3,), (2, 4, 4)])
@pytest.mark.parametrize(("sde", "solver", "steps"), CASES)
def test_the_solution_is_bit_for_bit_the_same_whatever_is_saved(tail, sde, solver, steps):
    x0 = _x0(4, tail)
    saves = [SaveAt(times=OFF_GRID), SaveAt(times=[0.5], fn=lambda t, x: x.flatten(1).sum(1)), SaveAt(times=[1.0])]
    if not steps.adaptive:
        saves.append(SaveAt(every=2))
    plain = solve(sde, x0, 0.0, 1.0, solver=solver, steps=steps, seed=3)
    for save in saves:
        sol = solve(sde, x0, 0.0, 1.0, solver=solver, steps=steps, seed=3, save=save)
        assert torch.equal(sol.stats.accepted, plain.stats.accepted)
        assert torch.equal(sol.stats.rejected, plain.stats.rejected)
        if save.times is not None and save.fn is None and float(save.times[-1]) == 1.0:
            assert torch.equal(sol.x[-1], plain.x)
        if save.every == 2 and steps.n is None:
            assert torch.equal(sol.x[-1], plain.x)


@pytest.mark.parametrize("steps", [FixedSteps(50), Adaptive(rtol=1e-3, atol=1e-3)])
def test_a_saved_value_does_not_depend_on_what_else_is_saved(steps):
    # for known steps: on what is saved in other steps
    x0 = _x0(5, (2,))

    def at(times):
        return solve(WAVY, x0, 0.0, 1.0, solver=Heun(), steps=steps, seed=3, save=SaveAt(times=times)).x

    many = at(OFF_GRID)
    for i, t in enumerate(OFF_GRID):
        torch.testing.assert_close(at([t])[0], many[i], rtol=1e-12, atol=1e-13)


def test_the_start_is_saved_as_it_was_and_step_times_as_the_solver_left_them():
    x0 = _x0(3, (2,))
    sol = solve(WAVY, x0, 0.0, 1.0, solver=Heun(), steps=FixedSteps(4), save=SaveAt(times=[0.0, 0.25, 0.5, 1.0]))
    every = solve(WAVY, x0, 0.0, 1.0, solver=Heun(), steps=FixedSteps(4), save=SaveAt(every=1))
    assert torch.equal(sol.x[0], x0)
    assert torch.equal(sol.x[1:], every.x[[0, 1, 3]])
    assert every.t.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert sol.t.tolist() == [0.0, 0.25, 0.5, 1.0]


# --- values between steps --------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["fresh", "tree"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_saved_variances_and_covariances_are_right_between_steps(source, per_sample):
    count, times = 20_000, [0.05, 0.125, 0.25, 0.3, 0.375, 0.99, 1.0]
    x0 = torch.zeros(count, 1, dtype=torch.float64)
    path = BrownianTree(0.0, 1.0, (count, 1), seed=5, dtype=torch.float64) if source == "tree" else None
    end = torch.ones(count) if per_sample else 1.0
    sol = solve(
        BROWNIAN, x0, 0.0, end, solver=EulerMaruyama(), steps=FixedSteps(4), seed=5, path=path, save=SaveAt(times=times)
    )
    w = sol.x[:, :, 0]
    covariance = w @ w.T / count
    t = torch.tensor(times, dtype=torch.float64)
    exact = torch.minimum(t[:, None], t[None, :])
    # Var of a product of two centred Gaussians: E[a²]E[b²] + E[ab]²
    spread = ((t[:, None] * t[None, :] + exact**2) / count).sqrt()
    assert float(((covariance - exact) / spread).abs().max()) < 4.5


def test_values_saved_by_an_adaptive_solve_have_the_variance_of_the_process():
    ou = StratonovichSDE(lambda t, x: -x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    count, times = 4000, [0.1, 0.37, 0.8, 1.0]
    sol = solve(
        ou,
        torch.zeros(count, 1, dtype=torch.float64),
        0.0,
        1.0,
        solver=Heun(),
        steps=Adaptive(rtol=1e-2, atol=3e-2),
        save=SaveAt(times=times),
        seed=1,
    )
    exact = (1 - torch.exp(-2 * torch.tensor(times))) / 2
    ratio = sol.x[:, :, 0].var(1) / exact
    assert float((ratio - 1).abs().max()) < 4.5 * math.sqrt(2 / count) + 0.01


def _with_its_path(direction):
    """Geometric Brownian motion read as Stratonovich, x = exp(0.3 s + 0.9 w), beside the Brownian motion that drives it."""
    sign = int(direction)

    def columns(t, x):
        return Dense(torch.stack((0.9 * x[:, 0], torch.ones_like(x[:, 0])), dim=1)[..., None])

    return StratonovichSDE(
        lambda t, x: torch.stack((0.3 * sign * x[:, 0], torch.zeros_like(x[:, 0])), dim=1),
        columns,
        Noise.SCALAR,
        direction=direction,
    )


@pytest.mark.parametrize("direction", [Direction.FORWARD, Direction.BACKWARD])
@pytest.mark.parametrize("place", [0.0, 0.37])
def test_saved_values_keep_the_strong_order_between_steps(direction, place):
    sde, count, sizes = _with_its_path(direction), 2000, [8, 16, 32, 64]
    x0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(count, 2)
    errors = []
    for n in sizes:
        s = (n // 2 + place) / n  # the middle of the span, or a place inside a step next to it
        t0, t1, t = (0.0, 1.0, s) if direction is Direction.FORWARD else (1.0, 0.0, 1.0 - s)
        sol = solve(sde, x0, t0, t1, solver=Heun(), steps=FixedSteps(n), save=SaveAt(times=[t]), seed=2)
        x, w = sol.x[0].unbind(1)
        errors.append(float((x - torch.exp(0.3 * s + 0.9 * w)).square().mean().sqrt()))
    logs = torch.tensor([sizes, errors], dtype=torch.float64).log()
    order = -float(torch.linalg.lstsq(torch.stack((logs[0], torch.ones(4)), 1), logs[1][:, None]).solution[0])
    assert order > 0.85


@pytest.mark.parametrize(("solver", "order"), [(Heun(), 2), (Bosh3(), 3), (RK4(), 4), (Dopri5(), 5)])
@pytest.mark.parametrize("back", [False, True])
def test_ode_solvers_keep_their_order_between_steps(solver, order, back):
    # x' = −x + cos t from x(0) = 0: x = (cos t + sin t − e^−t)/2
    def exact(t):
        return (math.cos(t) + math.sin(t) - math.exp(-t)) / 2

    t0, t1 = (2.0, 0.0) if back else (0.0, 2.0)
    errors = []
    for n in (8, 16, 32):
        t = t0 + (t1 - t0) * (n // 2 + 0.37) / n
        x0 = torch.full((1, 1), exact(t0), dtype=torch.float64)
        sol = solve(DECAY, x0, t0, t1, solver=solver, steps=FixedSteps(n), save=SaveAt(times=[t]))
        errors.append(abs(float(sol.x[0]) - exact(t)))
    assert math.log2(errors[1] / errors[2]) > order - 0.35
    assert math.log2(errors[0] / errors[2]) / 2 > order - 0.35


@pytest.mark.parametrize("solver", [Bosh3(), Dopri5()])
@pytest.mark.parametrize("steps", [FixedSteps(60), Adaptive(rtol=1e-8, atol=1e-8)])
def test_dense_output_answers_at_any_time(solver, steps):
    x0 = torch.zeros(3, 2, dtype=torch.float64)
    sol = solve(DECAY, x0, 0.0, 2.0, solver=solver, steps=steps, save=SaveAt(dense=True))
    assert torch.equal(sol.x, solve(DECAY, x0, 0.0, 2.0, solver=solver, steps=steps).x)
    for t in (0.0, 0.1234, 1.0, 1.999, 2.0):
        exact = (math.cos(t) + math.sin(t) - math.exp(-t)) / 2
        assert float((sol.at(t) - exact).abs().max()) < 3e-6
    each = torch.tensor([0.2, 0.9, 1.7], dtype=torch.float64)
    exact = (each.cos() + each.sin() - torch.exp(-each)) / 2
    torch.testing.assert_close(sol.at(each), exact[:, None].expand(3, 2), rtol=0, atol=3e-6)
    for outside in (-0.1, 2.1):
        with pytest.raises(ValueError, match="outside the solved interval"):
            sol.at(outside)


# --- other forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [FixedSteps(11), Adaptive(rtol=1e-9, atol=1e-9)])
def test_save_times_run_with_the_travel_and_may_lie_in_spans_of_each_samples_own(steps):
    times = [0.9, 0.5, 0.4]
    x0 = torch.ones(2, 1, dtype=torch.float64)
    t0, t1 = (torch.tensor(t, dtype=torch.float64) for t in ([1.0, 0.95], [0.0, 0.4]))
    sol = solve(ODE(lambda t, x: -x), x0, t0, t1, solver=Dopri5(), steps=steps, save=SaveAt(times=times))
    t = torch.tensor(times, dtype=torch.float64)
    torch.testing.assert_close(sol.x[:, :, 0], torch.exp(t0 - t[:, None]), rtol=1e-7, atol=0)


def test_a_function_of_the_state_is_saved_in_place_of_it():
    x0 = _x0(3, (4,))
    for steps in (FixedSteps(5), Adaptive(rtol=1e-3, atol=1e-3)):
        full = solve(WAVY, x0, 0.0, 1.0, solver=Heun(), steps=steps, save=SaveAt(times=OFF_GRID))
        energy = SaveAt(times=OFF_GRID, fn=lambda t, x: t.reshape(-1) + x.square().sum(1))
        sol = solve(WAVY, x0, 0.0, 1.0, solver=Heun(), steps=steps, save=energy)
        expected = torch.tensor(OFF_GRID, dtype=torch.float64)[:, None] + full.x.square().sum(2)
        torch.testing.assert_close(sol.x, expected, rtol=1e-12, atol=1e-12)


def test_a_failed_sample_has_no_saved_value_after_its_end():
    square = ODE(lambda t, x: x**2)
    x0 = torch.tensor([[0.1], [2.0]], dtype=torch.float64)  # the second is infinite at t = 0.5
    steps = Adaptive(rtol=1e-6, atol=1e-6)
    sol = solve(square, x0, 0.0, 1.0, solver=Dopri5(), steps=steps, save=SaveAt(times=[0.4, 0.8]), on_failure="return")
    exact = torch.tensor([[0.1 / 0.96, 2.0 / 0.2], [0.1 / 0.92, math.nan]], dtype=torch.float64)
    torch.testing.assert_close(sol.x[:, :, 0], exact, rtol=1e-4, atol=0, equal_nan=True)


def test_a_grid_of_times_saves_between_its_steps_too():
    x0 = torch.zeros(2, 1, dtype=torch.float64)
    grid = TimeGrid([0.0, 0.1, 0.5, 2.0])
    sol = solve(DECAY, x0, 0.0, 2.0, solver=Dopri5(), steps=grid, save=SaveAt(times=[0.05, 0.3, 1.9]))
    for i, t in enumerate((0.05, 0.3, 1.9)):
        assert float((sol.x[i] - (math.cos(t) + math.sin(t) - math.exp(-t)) / 2).abs().max()) < 2e-2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "leave save out"),
        ({"times": [0.1], "every": 2}, "not both"),
        ({"every": 0}, "1 or more"),
        ({"every": True}, "1 or more"),
        ({"times": []}, "non-empty"),
        ({"times": [0.1, math.nan]}, "finite"),
    ],
)
def test_what_cannot_be_saved_is_refused_when_it_is_said(arguments, words):
    with pytest.raises(ValueError, match=words):
        SaveAt(**arguments)


@pytest.mark.parametrize(
    ("times", "words"),
    [([0.5, 0.2], "strictly increasing"), ([0.5, 0.5], "strictly increasing"), ([0.5, 1.5], "lie between")],
)
def test_save_times_must_fit_the_span(times, words):
    with pytest.raises(ValueError, match=words):
        solve(DECAY, _x0(2), 0.0, 1.0, solver=Heun(), steps=FixedSteps(3), save=SaveAt(times=times))


def test_dense_output_needs_a_solver_that_has_it_and_every_needs_shared_steps():
    with pytest.raises(ValueError, match="Heun has none"):
        solve(DECAY, _x0(2), 0.0, 1.0, solver=Heun(), steps=FixedSteps(3), save=SaveAt(dense=True))
    with pytest.raises(ValueError, match="every"):
        solve(DECAY, _x0(2), 0.0, 1.0, solver=Heun(), steps=Adaptive(rtol=1e-3, atol=0), save=SaveAt(every=2))
    with pytest.raises(ValueError, match="no dense output"):
        solve(DECAY, _x0(2), 0.0, 1.0, solver=Heun(), steps=FixedSteps(3)).at(0.5)
