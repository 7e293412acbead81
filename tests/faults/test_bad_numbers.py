"""NaN and infinities from drift, diffusion and score: the sample they strike fails with a status, and it alone."""

import itertools
import math
import random

import pytest
import torch

import sdekit as sk

from .broken import CASES, COUNT, EACH_SOLVER, NOTHING, VALUES, Case, Fault, start

FIXED = sk.FixedSteps(6)
ADAPTIVE = sk.Adaptive(rtol=1e-2, atol=1e-2, max_steps=200)
DTYPES = (torch.float32, torch.float64)


Setting = tuple[tuple[int, ...], torch.dtype, sk.StepControl]


def _clean(case: Case, setting: Setting) -> tuple[sk.Solution, dict[str, int]]:
    """The solve where nothing fails, and how often each function is called."""
    fault = Fault(NOTHING)
    return case.run(fault, *setting), fault.calls


def _verify(case: Case, fault: Fault, setting: Setting, good: sk.Solution) -> sk.Solution:
    """Solve with the fault: all samples but one are the same to the bit, and that one says what it is."""
    bad, steps = case.run(fault, *setting), setting[2]
    rest = [i for i in range(COUNT) if i != fault.sample]
    assert good.ok
    assert torch.equal(bad.x[rest], good.x[rest])
    assert torch.equal(bad.stats.accepted[rest], good.stats.accepted[rest])
    assert torch.equal(bad.stats.rejected[rest], good.stats.rejected[rest])
    assert bad.status[rest].tolist() == [sk.Status.OK] * (COUNT - 1)
    assert torch.equal(bad.t.expand(COUNT)[rest], good.t.expand(COUNT)[rest])
    finite = bool(torch.isfinite(bad.x[fault.sample]).all())
    status = bad.status[fault.sample]
    if steps.adaptive:  # a sample keeps the last state that was any good
        assert finite
        assert status in (sk.Status.OK, sk.Status.NONFINITE)
    else:
        assert status == (sk.Status.OK if finite else sk.Status.NONFINITE)
    assert bool((bad.stats.accepted + bad.stats.rejected <= 200).all())
    return bad


def _steps(case: Case) -> list[sk.StepControl]:
    return [FIXED, ADAPTIVE] if case.adapts else [FIXED]


@pytest.mark.parametrize("case", EACH_SOLVER, ids=lambda case: case.name)
def test_a_function_that_fails_half_way_ends_one_sample_with_a_status(case):
    # the kinds of fault are dealt out among the cases; all of them for each are in the slow test below
    turn = EACH_SOLVER.index(case)
    value, dtype, shape = VALUES[turn % 3], DTYPES[turn % 2], case.shapes[turn // 2 % len(case.shapes)]
    place = case.places[turn % len(case.places)]
    for steps in _steps(case):
        setting = (shape, dtype, steps)
        good, calls = _clean(case, setting)
        bad = _verify(case, Fault(place, value, call=calls[place] // 2), setting, good)
        assert bad.status[2] == sk.Status.NONFINITE


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_function_that_fails_at_any_call_ends_one_sample_with_a_status(case):
    for setting in itertools.product(case.shapes, DTYPES, _steps(case)):
        good, calls = _clean(case, setting)
        for place in case.places:
            last = calls[place] - 1
            for value, call in itertools.product(VALUES, (0, last // 2, last)):
                bad = _verify(case, Fault(place, value, call=call), setting, good)
                ended = setting[2].adaptive and torch.equal(bad.x[2], good.x[2])  # before that call
                if call < last and not ended:
                    assert bad.status[2] == sk.Status.NONFINITE
            for call in (0, last // 2, last):  # at one call only
                _verify(case, Fault(place, call=call, lasting=False), setting, good)


def _at_random(dice: random.Random) -> None:
    case = dice.choice(CASES)
    setting = (dice.choice(case.shapes), dice.choice(DTYPES), dice.choice(_steps(case)))
    good, calls = _clean(case, setting)
    place = dice.choice(case.places)
    call, value, sample = dice.randrange(calls[place]), dice.choice(VALUES), dice.randrange(COUNT)
    _verify(case, Fault(place, value, sample, call, dice.random() < 0.7), setting, good)


@pytest.mark.parametrize("seed", range(10))
def test_a_random_fault_leaves_the_other_samples_as_they_were(seed):
    _at_random(random.Random(seed))


@pytest.mark.slow
def test_a_hundred_random_faults_leave_the_other_samples_as_they_were():
    for seed in range(100):
        _at_random(random.Random(1000 + seed))


# --- when and where ----------------------------------------------------------------------------------


def _failing_at(time: float, sample: int, back: bool = False) -> sk.SDE:
    def drift(t, x):
        late = (t <= time) if back else (t >= time)
        return torch.where(late & (torch.arange(len(x)) == sample)[:, None], math.nan, -x)

    direction = sk.Direction.BACKWARD if back else sk.Direction.FORWARD
    return sk.ItoSDE(drift, lambda t, x: 0.3 * torch.ones_like(x), sk.Noise.ADDITIVE, direction)


@pytest.mark.parametrize("n", [10, 1000])
@pytest.mark.parametrize("back", [False, True])
def test_a_solve_says_at_which_time_and_step_which_sample_was_lost(n, back):
    x0, ends = start((3,), torch.float64), (1.0, 0.0) if back else (0.0, 1.0)
    arguments = {"solver": sk.EulerMaruyama(), "steps": sk.FixedSteps(n), "seed": 1}
    # 0.4 is a node: a drift that fails there spoils the step that begins there
    sde, step = _failing_at(0.6 if back else 0.4, 3, back), 4 * n // 10
    sol = sk.solve(sde, x0, *ends, on_failure="return", **arguments)
    assert sol.status.tolist() == [0, 0, 0, sk.Status.NONFINITE, 0]
    assert sol.t.tolist() == pytest.approx([ends[1]] * 3 + [0.6 if back else 0.4, ends[1]], abs=1e-12)
    assert sol.stats.accepted.tolist() == [n, n, n, step, n]
    assert sol.stats.model_calls == n  # the steps that are made again to find the place are not the solve's
    with pytest.raises(sk.SolveFailed, match=rf"sample 3 stopped at t = 0\.\d+, after {step} steps") as caught:
        sk.solve(sde, x0, *ends, **arguments)
    assert torch.equal(caught.value.solution.x.isnan(), sol.x.isnan())


def test_saved_states_end_where_the_sample_does():
    x0, save = start((3,), torch.float64), sk.SaveAt(times=[0.2, 0.4, 0.5, 1.0])
    arguments = {"solver": sk.EulerMaruyama(), "seed": 1, "save": save, "on_failure": "return"}
    bad = sk.solve(_failing_at(0.4, 3), x0, 0.0, 1.0, steps=sk.FixedSteps(10), **arguments).x
    good = sk.solve(_failing_at(2.0, 3), x0, 0.0, 1.0, steps=sk.FixedSteps(10), **arguments).x
    assert torch.equal(bad[:2], good[:2])
    assert bad[2:, 3].isnan().all()
    assert torch.equal(bad[:, [0, 1, 2, 4]], good[:, [0, 1, 2, 4]])


@pytest.mark.parametrize("steps", [FIXED, ADAPTIVE])
@pytest.mark.parametrize("value", VALUES)
def test_a_start_that_is_not_finite_fails_at_once_and_alone(steps, value):
    x0 = start((2, 4, 4), torch.float32)
    sde = sk.ODE(lambda t, x: -x)
    good = sk.solve(sde, x0, 0.0, 1.0, solver=sk.Heun(), steps=steps)
    x0[1, 0, 2, 3] = value
    bad = sk.solve(sde, x0, 0.0, 1.0, solver=sk.Heun(), steps=steps, on_failure="return")
    assert bad.status.tolist() == [0, sk.Status.NONFINITE, 0, 0, 0]
    assert float(bad.t[1]) == 0.0
    assert int(bad.stats.accepted[1]) == 0
    assert torch.equal(bad.x[[0, 2, 3, 4]], good.x[[0, 2, 3, 4]])


def test_recorded_noise_is_drawn_no_second_time_to_find_where_a_sample_was_lost():
    z = [torch.ones(5, 3, dtype=torch.float64) * k for k in range(10)]
    sol = sk.solve(
        _failing_at(0.4, 1), start((3,), torch.float64), 0.0, 1.0, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(10),
        seed=sk.Replay({sk.Purpose.PATH: z}), on_failure="return",
    )  # fmt: skip
    assert sol.stats.accepted.tolist() == [10, 4, 10, 10, 10]
    assert torch.isfinite(sol.x[[0, 2, 3, 4]]).all()


@pytest.mark.parametrize("gradient", [sk.Checkpointed(), sk.ReversibleAdjoint()])
def test_derivatives_of_the_other_samples_are_as_they_were(gradient):
    def slope(time):
        x0 = start((3,), torch.float64).requires_grad_()
        sol = sk.solve(
            _failing_at(time, 1), x0, 0.0, 1.0, solver=sk.ReversibleHeun(), steps=sk.FixedSteps(20), gradient=gradient,
            on_failure="return",
        )  # fmt: skip
        return torch.autograd.grad(sol.x[[0, 2, 3, 4]].square().sum(), x0)[0][[0, 2, 3, 4]], sol

    (bad, sol), (good, _) = slope(0.4), slope(2.0)
    assert torch.equal(bad, good)
    assert int(sol.status[1]) == sk.Status.NONFINITE
    assert float(sol.t[1]) == pytest.approx(0.35, abs=0.051)  # this solver looks at the drift at the end of a step


@pytest.mark.slow
def test_a_compiled_solve_says_the_same(monkeypatch):
    monkeypatch.setattr("sdekit.compiled.fixed._SMALL_STEPS", 4)
    arguments = {"solver": sk.EulerMaruyama(), "steps": sk.FixedSteps(40), "seed": 1, "on_failure": "return"}
    for time in (0.4, 2.0):
        sde, x0 = _failing_at(time, 3), start((3,), torch.float64)
        plain, graph = (sk.solve(sde, x0, 0.0, 1.0, compile=compiled, **arguments) for compiled in (False, True))
        assert torch.equal(graph.status, plain.status)
        assert torch.equal(graph.t.expand(COUNT), plain.t.expand(COUNT))
        assert torch.equal(graph.stats.accepted, plain.stats.accepted)
        torch.testing.assert_close(graph.x[[0, 1, 2, 4]], plain.x[[0, 1, 2, 4]], rtol=1e-12, atol=1e-14)
