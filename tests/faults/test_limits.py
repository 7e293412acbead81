"""Blow-up, stiffness, spent budgets and tolerances that cannot be met; steps and times that are none."""

import math
import time

import pytest
import torch

import sdekit as sk
from sdekit.protocols import error_order
from sdekit.solvers import ALL

SQUARE = sk.ODE(lambda t, x: x**2)  # x = x0 / (1 − x0 t)
STIFF = sk.ODE(lambda t, x: -1e8 * (x - torch.cos(t)))
DECAY = sk.ODE(lambda t, x: -x)
NOISY = sk.ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * torch.ones_like(x), sk.Noise.ADDITIVE)
ESTIMATING = [kind() for kind in ALL if sk.Noise.NONE in kind.orders and error_order(kind(), sk.Noise.NONE) is not None]
X0 = torch.tensor([[0.1], [2.0], [-1.0], [4.0]], dtype=torch.float64)
EXACT = X0 / (1 - 1.5 * X0)


# --- blow-up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ESTIMATING, ids=lambda solver: type(solver).__name__)
def test_a_blow_up_ends_where_it_happens_with_the_states_before_it(solver):
    order = error_order(solver, sk.Noise.NONE)
    tolerance = 1e-3 if order is not None and order < 3 else 1e-6
    steps = sk.Adaptive(rtol=tolerance, atol=tolerance, max_steps=3000)
    save = sk.SaveAt(times=[0.1, 0.2, 0.3, 1.5])
    sol = sk.solve(SQUARE, X0, 0.0, 1.5, solver=solver, steps=steps, save=save, on_failure="return")
    bad = torch.tensor([False, True, False, True])
    assert sol.status[~bad].tolist() == [sk.Status.OK] * 2
    assert all(
        s in (sk.Status.NONFINITE, sk.Status.STEP_TOO_SMALL, sk.Status.MAX_STEPS) for s in sol.status[bad].tolist()
    )
    torch.testing.assert_close(sol.x[3, ~bad], EXACT[~bad], rtol=100 * tolerance, atol=0)
    assert sol.x[3, bad].isnan().all()  # after their end
    for row, t in enumerate((0.1, 0.2)):  # before it, the partial trajectory is right
        torch.testing.assert_close(sol.x[row], X0 / (1 - t * X0), rtol=300 * tolerance, atol=0)
    assert sol.x[2, 3].isnan().all()  # the sample from 4 was infinite at 0.25
    work = sol.stats.accepted + sol.stats.rejected
    assert bool((work <= 3000).all())
    assert bool((sol.stats.accepted[bad] > 3).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_adaptive_blow_up_stops_within_rounding_of_its_time(dtype):
    sol = sk.solve(
        SQUARE, X0.to(dtype), 0.0, 1.5, solver=sk.Dopri5(), steps=sk.Adaptive(rtol=1e-5, atol=1e-5), on_failure="return"
    )
    assert sol.t.tolist() == pytest.approx([1.5, 0.5, 1.5, 0.25], abs=1e-5)
    assert torch.isfinite(sol.x).all()  # the last state that was good
    assert bool((sol.x[[1, 3]] > 1e4).all())


@pytest.mark.parametrize("kind", [kind for kind in ALL if sk.Noise.NONE in kind.orders], ids=lambda kind: kind.__name__)
def test_fixed_steps_go_through_a_blow_up_and_name_the_sample(kind):
    cubic = sk.ODE(lambda t, x: x**3)  # from 4, infinite at t = 1/32
    x0 = torch.tensor([[0.1], [2.0], [-0.2], [4.0]], dtype=torch.float64)
    sol = sk.solve(cubic, x0, 0.0, 1.5, solver=kind(), steps=sk.FixedSteps(60), on_failure="return")
    assert sol.status[[0, 2]].tolist() == [sk.Status.OK] * 2
    if kind not in (sk.TamedEuler, sk.DriftImplicitEuler, sk.SplitStepEuler, sk.Rodas5P):  # these may step over a pole
        assert sol.status[3] == sk.Status.NONFINITE
        assert float(sol.t.expand(4)[3]) < 1.0
        assert int(sol.stats.accepted[3]) == round(float(sol.t[3]) / 1.5 * 60)


# --- stiffness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [sk.Rodas5P()], ids=["Rodas5P"])
def test_a_stiff_equation_is_solved_by_a_method_for_it(solver):
    steps = sk.Adaptive(rtol=1e-6, atol=1e-6, max_steps=1000)
    sol = sk.solve(STIFF, torch.ones(2, 1, dtype=torch.float64), 0.0, 1.0, solver=solver, steps=steps)
    torch.testing.assert_close(sol.x, torch.full((2, 1), math.cos(1.0), dtype=torch.float64), rtol=1e-5, atol=0)
    assert int(sol.stats.accepted.max()) < 200


@pytest.mark.parametrize("kind", [sk.DriftImplicitEuler, sk.SplitStepEuler])
def test_implicit_steps_hold_at_any_stiffness(kind):
    sol = sk.solve(STIFF, torch.ones(2, 1, dtype=torch.float64), 0.0, 1.0, solver=kind(), steps=sk.FixedSteps(50))
    torch.testing.assert_close(sol.x, torch.full((2, 1), math.cos(1.0), dtype=torch.float64), rtol=0.03, atol=0)


def test_an_explicit_method_spends_its_budget_on_a_stiff_equation_and_says_so():
    steps = sk.Adaptive(rtol=1e-3, atol=1e-3, max_steps=300)
    began = time.process_time()
    with pytest.raises(
        sk.SolveFailed, match=r"2 MAX_STEPS: samples 0, 1 \(sample 0 stopped at t = \S+, after \d+ steps\)"
    ) as caught:
        sk.solve(STIFF, torch.full((2, 1), 1.1), 0.0, 1.0, solver=sk.Dopri5(), steps=steps)
    assert time.process_time() - began < 5
    sol = caught.value.solution
    assert (sol.stats.accepted + sol.stats.rejected).tolist() == [300, 300]
    assert bool((sol.t > 0).all())
    assert bool((sol.t < 1e-3).all())
    assert torch.isfinite(sol.x).all()


def test_fixed_explicit_steps_on_a_stiff_equation_are_not_finite_and_counted():
    sol = sk.solve(
        STIFF, torch.full((2, 1), 1.1), 0.0, 1.0, solver=sk.Euler(), steps=sk.FixedSteps(100), on_failure="return"
    )
    assert sol.status.tolist() == [sk.Status.NONFINITE] * 2
    assert sol.stats.accepted.tolist() == [6, 6]  # 1.1 (1e6)^k passes the largest float32 at k = 7
    assert sol.t.tolist() == pytest.approx([0.06, 0.06])


# --- budgets and tolerances ---------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [DECAY, NOISY], ids=["ODE", "SDE"])
def test_ten_steps_are_ten_steps_and_give_what_they_reached(sde):
    solver = sk.Dopri5() if sde is DECAY else sk.SRA1()
    steps = sk.Adaptive(rtol=1e-9, atol=1e-9, max_steps=10, first_step=1e-3, factors=(0.2, 1.5))
    x0, save = torch.ones(3, 2, dtype=torch.float64), sk.SaveAt(times=[0.0, 0.001, 1.0])
    sol = sk.solve(sde, x0, 0.0, 1.0, solver=solver, steps=steps, save=save, seed=1, on_failure="return")
    assert sol.status.tolist() == [sk.Status.MAX_STEPS] * 3
    assert (sol.stats.accepted + sol.stats.rejected).tolist() == [10] * 3
    assert torch.equal(sol.x[0], x0)
    assert torch.isfinite(sol.x[0]).all()
    assert sol.x[2].isnan().all()
    if sde is DECAY:
        torch.testing.assert_close(sol.x[1], torch.full_like(x0, math.exp(-0.001)), rtol=1e-9, atol=0)


def test_no_tolerance_at_all_is_refused_when_it_is_said():
    with pytest.raises(ValueError, match="rtol and atol are both zero"):
        sk.Adaptive(rtol=0, atol=0)


@pytest.mark.parametrize("rtol", [1e-100, 1e-20])
def test_a_tolerance_that_cannot_be_met_ends_in_bounded_steps(rtol):
    began = time.process_time()
    steps = sk.Adaptive(rtol=rtol, atol=0.0, max_steps=500)
    sol = sk.solve(
        sk.ODE(lambda t, x: torch.cos(3 * x)), X0, 0.0, 1.0, solver=sk.Heun(), steps=steps, on_failure="return"
    )
    assert all(s in (sk.Status.MAX_STEPS, sk.Status.STEP_TOO_SMALL) for s in sol.status.tolist())
    assert bool((sol.stats.accepted + sol.stats.rejected <= 500).all())
    assert time.process_time() - began < 10


def test_a_smallest_step_that_is_too_large_is_named():
    steps = sk.Adaptive(rtol=1e-8, atol=1e-8, min_step=0.2)
    with pytest.raises(sk.SolveFailed, match="4 STEP_TOO_SMALL: samples 0, 1, 2, 3") as caught:
        sk.solve(sk.ODE(lambda t, x: torch.cos(30 * t) * x), X0, 0.0, 1.0, solver=sk.Heun(), steps=steps)
    assert bool((caught.value.solution.stats.rejected >= 1).all())


# --- steps and times that are none --------------------------------------------------------------------

BAD_NUMBERS = [-0.1, math.nan, math.inf, -math.inf]


def _refused(call, *words):
    began = time.process_time()
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert time.process_time() - began < 1.0
    message = str(caught.value)
    assert all(str(word) in message for word in words), message


@pytest.mark.parametrize("dt", [0, 0.0, *BAD_NUMBERS, 1e-320, 5e-324])
def test_step_sizes_that_are_none_are_refused(dt):
    _refused(lambda: sk.solve(DECAY, X0, 0.0, 1.0, solver=sk.Euler(), steps=sk.FixedSteps(dt=dt)), "dt", dt)


@pytest.mark.parametrize("dt", [1.0, 1.5, 1e9, 1e300])
def test_a_step_longer_than_the_span_is_one_step_of_the_span(dt):
    sol = sk.solve(DECAY, X0, 0.0, 1.0, solver=sk.RK4(), steps=sk.FixedSteps(dt=dt))
    assert sol.stats.accepted.tolist() == [1] * 4
    assert torch.equal(sol.x, sk.solve(DECAY, X0, 0.0, 1.0, solver=sk.RK4(), steps=sk.FixedSteps(1)).x)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, math.nan, "3"])
def test_numbers_of_steps_that_are_none_are_refused(n):
    _refused(lambda: sk.FixedSteps(n), "number of steps", n)


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_tolerances_that_are_none_are_refused(name, value):
    _refused(lambda: sk.Adaptive(**{"rtol": 1e-3, "atol": 1e-3, name: value}), name, value)


@pytest.mark.parametrize("name", ["first_step", "max_step", "min_step"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_bounds_of_steps_that_are_none_are_refused(name, value):
    _refused(lambda: sk.Adaptive(rtol=1e-3, atol=1e-3, **{name: value}), name, value)


@pytest.mark.parametrize("sde", [DECAY, NOISY], ids=["ODE", "SDE"])
@pytest.mark.parametrize("first", [1e-320, 1e300])
def test_first_steps_of_no_use_are_made_of_use(sde, first):
    solver = sk.Dopri5() if sde is DECAY else sk.SRA1()
    steps = sk.Adaptive(rtol=1e-4, atol=1e-4, first_step=first, max_steps=2000)
    sol = sk.solve(sde, X0, 0.0, 1.0, solver=solver, steps=steps)
    assert sol.ok
    if sde is DECAY:
        torch.testing.assert_close(sol.x, X0 * math.exp(-1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["t0", "t1"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("each", [False, True])
def test_ends_that_are_no_times_are_refused(name, value, each):
    given = torch.tensor([0.5, value, 0.5, 0.5]) if each else value
    ends = {"t0": 0.0, "t1": 1.0, name: given}
    x0 = X0.float()
    _refused(lambda: sk.solve(DECAY, x0, **ends, solver=sk.Euler(), steps=sk.FixedSteps(3)), name)
    _refused(lambda: sk.solve(DECAY, x0, **ends, solver=sk.Dopri5(), steps=sk.Adaptive(rtol=1e-3, atol=1e-3)), name)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0.3, 0.3], "strictly increasing"),
        ([0.7, 0.3], "strictly increasing"),
        ([0.2, 0.5, 0.4], "strictly increasing"),
        ([0.2, math.nan], "finite"),
        ([math.inf], "finite"),
        ([-0.1, 0.5], "between t0 = 0.0 and t1 = 1.0"),
        ([0.5, 1.1], "between t0 = 0.0 and t1 = 1.0"),
        ([], "non-empty"),
        ([[0.1, 0.2]], "list of times"),
    ],
)
@pytest.mark.parametrize("steps", [sk.FixedSteps(4), sk.Adaptive(rtol=1e-3, atol=1e-3)], ids=["fixed", "adaptive"])
def test_saved_times_that_are_none_are_refused(times, words, steps):
    def call():
        sk.solve(DECAY, X0, 0.0, 1.0, solver=sk.Heun(), steps=steps, save=sk.SaveAt(times=times))

    _refused(call, "times", words, times)


@pytest.mark.parametrize(
    "times", [[0.0, 0.5, 0.5, 1.0], [0.0, 0.7, 0.3, 1.0], [0.0, math.nan, 1.0], [1.0], [0.0, math.inf]]
)
def test_grids_that_are_none_are_refused(times):
    _refused(lambda: sk.TimeGrid(times), "times", times)


@pytest.mark.parametrize("times", [[0.0, 0.5], [0.1, 1.0], [1.0, 0.0]])
def test_grids_of_another_span_are_refused(times):
    call = lambda: sk.solve(DECAY, X0, 0.0, 1.0, solver=sk.Heun(), steps=sk.TimeGrid(times))  # noqa: E731
    _refused(call, times[0], times[-1], "t0=0.0", "t1=1.0")


@pytest.mark.parametrize("sde", [DECAY, NOISY], ids=["ODE", "SDE"])
@pytest.mark.parametrize("steps", [sk.FixedSteps(4), sk.FixedSteps(dt=0.1), sk.Adaptive(rtol=1e-3, atol=1e-3)])
def test_no_time_changes_nothing_and_can_be_saved(sde, steps):
    solver = sk.Heun() if sde is DECAY else sk.SRA1()
    sol = sk.solve(sde, X0, 0.7, 0.7, solver=solver, steps=steps, save=sk.SaveAt(times=[0.7]))
    assert torch.equal(sol.x[0], X0)
    assert sol.ok
    assert sol.stats.accepted.tolist() == [0] * 4


@pytest.mark.parametrize("span", [(1e8, 1e8 + 1e-7), (0.0, 1e-300), (-1e-9, 1e-9)])
def test_spans_of_any_size_are_crossed_exactly(span):
    for steps in (sk.FixedSteps(7), sk.Adaptive(rtol=1e-6, atol=1e-6)):
        sol = sk.solve(DECAY, X0, *span, solver=sk.Bosh3(), steps=steps)
        assert float(sol.t) == span[1]
        torch.testing.assert_close(sol.x, X0 * math.exp(span[0] - span[1]), rtol=1e-9, atol=0)
