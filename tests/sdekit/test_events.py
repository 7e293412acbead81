"""Events end a sample where its state crosses, located in time; the other samples never notice."""

import math

import pytest
import torch
from scipy import stats

from sdekit.errors import Status
from sdekit.events import Event
from sdekit.protocols import Noise
from sdekit.save import SaveAt
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers import RK4, Dopri5, EulerMaruyama, Heun
from sdekit.steps import Adaptive, FixedSteps

GRAVITY = 9.81
FALL = ODE(lambda t, x: torch.stack((x[:, 1], torch.full_like(x[:, 0], -GRAVITY)), dim=1))
GROUND = Event(lambda t, x: x[:, 0])
CLOCK = ODE(lambda t, x: torch.ones_like(x))


def _heights(*values):
    return torch.tensor([[h, 0.0] for h in values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("solver", "steps"),
    [
        (RK4(), FixedSteps(30)),
        (Heun(), FixedSteps(30)),
        (Dopri5(), FixedSteps(9)),
        (Dopri5(), Adaptive(rtol=1e-9, atol=1e-9)),
    ],
)
def test_a_falling_body_meets_the_ground_when_it_should(solver, steps):
    heights = torch.tensor([1.0, 5.0, 20.0, 60.0], dtype=torch.float64)
    sol = solve(FALL, _heights(*heights.tolist()), 0.0, 3.0, solver=solver, steps=steps, event=GROUND)
    exact = (2 * heights / GRAVITY).sqrt()  # the last one takes 3.5 and does not arrive
    assert sol.status.tolist() == [Status.EVENT] * 3 + [Status.OK]
    torch.testing.assert_close(sol.t[:3], exact[:3], rtol=0, atol=1e-8)
    assert float(sol.t[3]) == 3.0
    torch.testing.assert_close(sol.x[:3, 1], -GRAVITY * exact[:3], rtol=1e-7, atol=0)
    torch.testing.assert_close(sol.x[:3, 0], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-7)
    assert sol.ok


def test_events_are_found_going_back_in_time_too():
    x0 = torch.full((1, 1), 2.0, dtype=torch.float64)
    sol = solve(
        ODE(lambda t, x: x), x0, 3.0, 0.0, solver=RK4(), steps=FixedSteps(50), event=Event(lambda t, x: x[:, 0] - 1)
    )
    assert float(sol.t) == pytest.approx(3.0 - math.log(2.0), abs=1e-7)


@pytest.mark.parametrize(("rising", "first"), [(True, 2 * math.pi), (False, math.pi), (None, math.pi)])
def test_the_direction_of_the_crossing_may_be_chosen(rising, first):
    # the state is time itself, started a little after zero
    event = Event(lambda t, x: torch.sin(x[:, 0]), rising=rising)
    x0 = torch.full((1, 1), 0.5, dtype=torch.float64)
    sol = solve(CLOCK, x0, 0.5, 10.0, solver=RK4(), steps=FixedSteps(40), event=event)
    assert float(sol.t) == pytest.approx(first, abs=1e-8)


def test_a_condition_may_look_at_the_time():
    event = Event(lambda t, x: t.reshape(-1) - 0.7 + 0.0 * x[:, 0])
    sol = solve(CLOCK, torch.zeros(3, 1, dtype=torch.float64), 0.0, 1.0, solver=RK4(), steps=FixedSteps(4), event=event)
    torch.testing.assert_close(sol.x, torch.full((3, 1), 0.7, dtype=torch.float64))


@pytest.mark.parametrize("steps", [FixedSteps(60), Adaptive(rtol=1e-2, atol=1e-2)])
def test_samples_without_an_event_are_bit_for_bit_what_they_are_without_one_asked_for(steps):
    sde = StratonovichSDE(lambda t, x: -x, lambda t, x: 0.5 + 0.2 * torch.cos(x), Noise.DIAGONAL)
    x0 = torch.zeros(40, 1, dtype=torch.float64)
    plain = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=steps, seed=4)
    sol = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=steps, seed=4, event=Event(lambda t, x: x[:, 0] - 0.5))
    alive = sol.status == Status.OK
    assert 5 < int(alive.sum()) < 35
    assert torch.equal(sol.x[alive], plain.x[alive])
    torch.testing.assert_close(sol.x[~alive], torch.full_like(sol.x[~alive], 0.5), rtol=0, atol=1e-5)
    assert bool((sol.t[~alive] < 1.0).all())


def test_work_after_the_event_is_not_the_samples():
    steps = FixedSteps(dt=0.1)
    sol = solve(FALL, _heights(1.0, 60.0), 0.0, 3.0, solver=RK4(), steps=steps, event=GROUND)
    assert sol.stats.accepted.tolist() == [5, 30]
    assert int(sol.stats.evaluations[0]) < int(sol.stats.evaluations[1])


@pytest.mark.parametrize("steps", [FixedSteps(dt=0.1), Adaptive(rtol=1e-7, atol=1e-7)])
@pytest.mark.parametrize("solver", [Heun(), Dopri5()])
def test_nothing_is_saved_of_a_sample_after_its_event(solver, steps):
    times = [0.0, 0.2, 0.44, 0.47, 0.5, 1.0]  # a body from 1 m lands at 0.4515
    sol = solve(FALL, _heights(1.0, 60.0), 0.0, 3.0, solver=solver, steps=steps, event=GROUND, save=SaveAt(times=times))
    t = torch.tensor(times, dtype=torch.float64)
    exact = torch.stack((1.0 - GRAVITY * t**2 / 2, 60.0 - GRAVITY * t**2 / 2), dim=1)
    exact[3:, 0] = math.nan
    torch.testing.assert_close(sol.x[:, :, 0], exact, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_every_step_and_dense_output_end_at_the_event():
    steps = FixedSteps(dt=0.1)
    every = solve(FALL, _heights(1.0, 60.0), 0.0, 3.0, solver=RK4(), steps=steps, event=GROUND, save=SaveAt(every=5))
    assert every.x[:, 0, 0].isnan().tolist() == [True] * 6
    assert not bool(every.x[:, 1].isnan().any())
    dense = solve(
        FALL, _heights(1.0, 60.0), 0.0, 3.0, solver=Dopri5(), steps=steps, event=GROUND, save=SaveAt(dense=True)
    )
    assert float(dense.at(0.45)[0, 0]) == pytest.approx(1.0 - GRAVITY * 0.45**2 / 2, abs=1e-9)
    with pytest.raises(ValueError, match="outside the solved interval"):
        dense.at(0.46)


def test_first_passage_of_brownian_motion_with_drift_has_its_known_law():
    # time to reach a from 0 at drift m: mean a/m, an inverse Gaussian; a grid of steps h sees the barrier at
    # a + 0.5826 √h. Reference: Broadie, Glasserman, Kou (1997), Mathematical Finance 7(4), theorem 1
    a, m, h, count = 1.0, 2.0, 1 / 256, 4000
    sde = ItoSDE(lambda t, x: torch.full_like(x, m), lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.zeros(count, 1, dtype=torch.float64)
    sol = solve(
        sde, x0, 0.0, 8.0, solver=EulerMaruyama(), steps=FixedSteps(dt=h), event=Event(lambda t, x: x[:, 0] - a), seed=6
    )
    assert sol.status.tolist() == [Status.EVENT] * count
    torch.testing.assert_close(sol.x[:, 0], torch.full((count,), a, dtype=torch.float64), rtol=0, atol=1e-3)
    seen = a + 0.5826 * math.sqrt(h)
    error = math.sqrt(seen / m**3 / count)  # variance of the passage time: a/m³
    assert abs(float(sol.t.mean()) - seen / m) < 4 * error + 0.5 * h
    law = stats.invgauss(mu=1 / (m * seen), scale=seen**2)
    assert stats.kstest((sol.t + h / 2).numpy(), law.cdf).pvalue > 1e-3


def test_an_event_beside_a_bad_sample():
    x0 = _heights(1.0, math.nan)
    for steps in (FixedSteps(30), Adaptive(rtol=1e-6, atol=1e-6)):
        sol = solve(FALL, x0, 0.0, 3.0, solver=Dopri5(), steps=steps, event=GROUND, on_failure="return")
        assert sol.status.tolist() == [Status.EVENT, Status.NONFINITE]
        assert float(sol.t[0]) == pytest.approx(math.sqrt(2 / GRAVITY), abs=1e-6)


@pytest.mark.parametrize("condition", [lambda t, x: x, lambda t, x: x.sum(), lambda t, x: 1.0])
def test_a_condition_gives_one_number_a_sample(condition):
    with pytest.raises(ValueError, match=r"one number a sample, shape \(2,\)"):
        solve(FALL, _heights(1.0, 2.0), 0.0, 1.0, solver=RK4(), steps=FixedSteps(3), event=Event(condition))
