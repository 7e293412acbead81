"""Adaptive steps: the tolerance is met, per sample, both ways in time; what cannot go on says why."""

import math

import pytest
import torch

from sdekit.errors import Incompatible, SolveFailed, Status
from sdekit.protocols import Dense, Direction, Noise
from sdekit.random import KeyedDraws, Purpose
from sdekit.sdes.functions import ODE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers import Bosh3, Dopri5, EulerMaruyama, Heun
from sdekit.steps import Adaptive, FixedSteps
from sdekit.steps.controller import scaled_norm

CPU = torch.device("cpu")
DECAY = ODE(lambda t, x: -x + torch.cos(t))  # from 0: x = (cos t + sin t − e^−t)/2


def _exact(t):
    return (math.cos(t) + math.sin(t) - math.exp(-t)) / 2


def _start(t, shape=(1, 1)):
    return torch.full(shape, _exact(t), dtype=torch.float64)


@pytest.mark.parametrize("solver", [Heun(), Bosh3(), Dopri5()])
@pytest.mark.parametrize("span", [(0.0, 3.0), (3.0, 0.0)])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 4, 4)])
def test_the_error_falls_with_the_tolerance_and_stays_near_it(solver, span, shape):
    errors = []
    for tol in (1e-2, 1e-4, 1e-6):
        sol = solve(DECAY, _start(span[0], shape), *span, solver=solver, steps=Adaptive(rtol=tol, atol=tol))
        errors.append(float((sol.x - _exact(span[1])).abs().max()))
        assert errors[-1] < 30 * tol * (math.exp(3) if span[0] else 1)  # backwards, errors grow by e³
    assert errors[2] < errors[1] / 5


def test_the_norm_is_the_root_mean_square_per_sample_and_per_block():
    error = torch.tensor([[3.0, 4.0, 0.0], [1.0, 1.0, 1.0]])
    x, new = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    norm = scaled_norm(error, x, new, rtol=1.0, atol=1.0)
    torch.testing.assert_close(norm, torch.tensor([math.sqrt((1.5**2 + 2.0**2) / 3), 1.0]))
    blocks = scaled_norm(error, x, new, 1.0, 1.0, blocks=(2, 1))
    torch.testing.assert_close(blocks, torch.tensor([math.sqrt((1.5**2 + 2.0**2) / 2), 1.0]))


def test_a_component_that_stays_zero_needs_no_absolute_tolerance():
    x0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    sol = solve(ODE(lambda t, x: -x), x0, 0.0, 1.0, solver=Dopri5(), steps=Adaptive(rtol=1e-8, atol=0.0))
    torch.testing.assert_close(sol.x, math.exp(-1) * x0, rtol=1e-7, atol=0)


def test_a_sample_of_many_is_as_accurate_as_it_is_alone():
    # the one oscillating sample among 9 999 trivial ones, whose error an average over the batch would hide
    sde = ODE(lambda t, x: torch.stack((x[:, 1], -400.0 * x[:, 0]), dim=1))
    x0 = torch.zeros(10_000, 2, dtype=torch.float64)
    x0[17, 0] = 1.0
    sol = solve(sde, x0, 0.0, 1.0, solver=Dopri5(), steps=Adaptive(rtol=1e-6, atol=1e-6))
    alone = solve(sde, x0[17:18], 0.0, 1.0, solver=Dopri5(), steps=Adaptive(rtol=1e-6, atol=1e-6))
    assert abs(float(sol.x[17, 0]) - math.cos(20.0)) < 1e-4
    torch.testing.assert_close(sol.x[17:18], alone.x, rtol=1e-12, atol=1e-13)
    assert 8 * int(sol.stats.accepted[0]) < int(sol.stats.accepted[17])


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("solver", [Heun(), Bosh3(), Dopri5()])
def test_steps_land_on_jump_times(back, solver):
    # a force switched on at 0.3 and off at 0.7: x(1) = 0.4 · 5
    nodes = []

    def force(t, x):
        nodes.append(t.reshape(-1)[0].item())
        on = (t >= 0.3) & (t < 0.7)
        return 5.0 * on * torch.ones_like(x)

    t0, t1 = (1.0, 0.0) if back else (0.0, 1.0)
    x0 = torch.zeros(2, 1, dtype=torch.float64)
    plain = solve(ODE(force), x0, t0, t1, solver=solver, steps=Adaptive(rtol=1e-6, atol=1e-6))
    nodes.clear()
    steps = Adaptive(rtol=1e-6, atol=1e-6, jump_times=[0.7, 0.3, 5.0, -1.0])
    sol = solve(ODE(force), x0, t0, t1, solver=solver, steps=steps)
    sign = -1.0 if back else 1.0
    for jump in (0.3, 0.7):
        assert {math.nextafter(jump, 0), math.nextafter(jump, 1)} <= set(nodes)
        assert jump not in nodes
    assert sol.stats.rejected.tolist() == [0, 0]
    # without them steps are rejected at the jumps, or pass over the pulse unseen
    assert int(plain.stats.rejected[0]) > 10 or float((plain.x - 2.0 * sign).abs().max()) > 1.0
    torch.testing.assert_close(sol.x, torch.full_like(x0, 2.0 * sign), rtol=1e-12, atol=0)


def test_the_first_and_largest_steps_may_be_given():
    lengths = []

    class Watching(Heun):
        def step(self, sde, span, x, dw, state):
            lengths.append(float((span.t1 - span.t0).reshape(-1)[0]))
            return super().step(sde, span, x, dw, state)

    steps = Adaptive(rtol=1e-2, atol=1e-2, first_step=0.0078125, max_step=0.0625)
    solve(DECAY, _start(0.0), 0.0, 2.0, solver=Watching(), steps=steps)
    assert lengths[0] == 0.0078125
    assert max(lengths) <= 0.0625 + 1e-12
    assert sum(lengths) >= 2.0


def test_a_sample_that_spends_its_steps_says_so_and_the_others_finish():
    sde = ODE(lambda t, x: torch.stack((-x[:, 1] * (x[:, 0] - torch.cos(t.reshape(-1))), 0.0 * x[:, 1]), dim=1))
    x0 = torch.tensor([[0.0, 1.0], [0.0, 1000.0]], dtype=torch.float64)
    steps = Adaptive(rtol=1e-6, atol=1e-6, max_steps=50)
    with pytest.raises(SolveFailed, match=r"1 MAX_STEPS: samples 1 \(sample 1 stopped at t = 0\.") as caught:
        solve(sde, x0, 0.0, 5.0, solver=Dopri5(), steps=steps)
    sol = caught.value.solution
    assert sol.status.tolist() == [Status.OK, Status.MAX_STEPS]
    assert int(sol.stats.accepted[1] + sol.stats.rejected[1]) == 50
    assert float(sol.t[0]) == 5.0
    assert 0.0 < float(sol.t[1]) < 5.0
    alone = solve(sde, x0[:1], 0.0, 5.0, solver=Dopri5(), steps=steps)
    torch.testing.assert_close(sol.x[:1], alone.x, rtol=1e-13, atol=0)


def test_an_error_too_large_at_the_smallest_step_is_named():
    sde = ODE(lambda t, x: -1000.0 * (x - torch.cos(50 * t)))
    steps = Adaptive(rtol=1e-9, atol=1e-9, min_step=0.01)
    sol = solve(sde, _start(0.0), 0.0, 1.0, solver=Dopri5(), steps=steps, on_failure="return")
    assert sol.status.tolist() == [Status.STEP_TOO_SMALL]


def test_a_drift_that_turns_nan_ends_the_sample_there():
    sde = ODE(lambda t, x: torch.where(t * torch.ones_like(x) > 0.5, math.nan, 1.0).to(x))
    sol = solve(sde, _start(0.0), 0.0, 1.0, solver=Dopri5(), steps=Adaptive(rtol=1e-6, atol=1e-6), on_failure="return")
    assert sol.status.tolist() == [Status.NONFINITE]
    assert float(sol.t) == pytest.approx(0.5, abs=1e-6)
    assert bool(torch.isfinite(sol.x).all())
    assert int(sol.stats.rejected) < 200


def test_a_tolerance_below_rounding_ends_rather_than_hangs():
    x0 = torch.ones(1, 2, dtype=torch.float32)
    steps = Adaptive(rtol=1e-14, atol=1e-14, max_steps=3000)
    sol = solve(ODE(lambda t, x: -x), x0, 0.0, 1.0, solver=Dopri5(), steps=steps, on_failure="return")
    if sol.ok:
        torch.testing.assert_close(sol.x, math.exp(-1) * x0, rtol=1e-5, atol=0)
    else:
        assert int(sol.status) in (Status.MAX_STEPS, Status.STEP_TOO_SMALL)


def test_step_sizes_of_any_scale_and_offset_work():
    for t0, length in ((0.0, 1e-9), (1e6, 1e-3), (-5.0, 1e4), (0.0, 1e8)):
        sde = ODE(lambda t, x, length=length: -x / length)
        steps = Adaptive(rtol=1e-7, atol=1e-9)
        sol = solve(sde, torch.ones(1, 1, dtype=torch.float64), t0, t0 + length, solver=Dopri5(), steps=steps)
        assert abs(float(sol.x) - math.exp(-1)) < 1e-6


@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0)])
def test_an_adaptive_sde_solve_has_the_moments_of_the_process(span):
    sign = 1.0 if span[1] > span[0] else -1.0
    sde = StratonovichSDE(
        lambda t, x: -sign * x,
        lambda t, x: torch.ones_like(x),
        Noise.ADDITIVE,
        direction=Direction(int(sign)),
    )
    count = 4000
    x0 = torch.full((count, 1), 2.0, dtype=torch.float64)
    sol = solve(sde, x0, *span, solver=Heun(), steps=Adaptive(rtol=1e-2, atol=3e-2), seed=3)
    variance = (1 - math.exp(-2)) / 2
    assert abs(float(sol.x.mean()) - 2 / math.e) < 4.5 * math.sqrt(variance / count) + 2e-3
    assert abs(float(sol.x.var()) / variance - 1) < 4.5 * math.sqrt(2 / count) + 1e-2


def test_rejected_steps_revisit_the_same_path():
    """With x = exp(0.3 t + 0.9 W) beside W: were a rejected increment drawn anew, the two would part."""
    sde = StratonovichSDE(
        lambda t, x: torch.stack((0.3 * x[:, 0], torch.zeros_like(x[:, 0])), dim=1),
        lambda t, x: Dense(torch.stack((0.9 * x[:, 0], torch.ones_like(x[:, 0])), dim=1)[..., None]),
        Noise.SCALAR,
    )
    x0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(500, 2)
    errors = []
    for tol in (3e-2, 3e-3):
        sol = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=Adaptive(rtol=tol, atol=tol), seed=1)
        assert int(sol.stats.rejected.sum()) > 300
        x, w = sol.x.unbind(1)
        errors.append(float((x - torch.exp(0.3 + 0.9 * w)).square().mean().sqrt()))
        assert abs(float(w.mean())) < 4.5 / math.sqrt(500)  # rejections do not select paths
        assert abs(float(w.var()) - 1) < 4.5 * math.sqrt(2 / 500)
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rtol": -1e-3, "atol": 1e-3}, "rtol"),
        ({"rtol": 1e-3, "atol": math.nan}, "atol"),
        ({"rtol": 0.0, "atol": 0.0}, "both zero"),
        ({"rtol": math.inf, "atol": 0.0}, "rtol"),
        ({"rtol": "1e-3", "atol": 0.0}, "rtol"),
        ({"rtol": 1e-3, "atol": 0.0, "first_step": 0.0}, "first_step"),
        ({"rtol": 1e-3, "atol": 0.0, "min_step": 1.0, "max_step": 0.5}, "min_step"),
        ({"rtol": 1e-3, "atol": 0.0, "min_step": -1.0}, "min_step"),
        ({"rtol": 1e-3, "atol": 0.0, "max_steps": 0}, "max_steps"),
        ({"rtol": 1e-3, "atol": 0.0, "max_steps": 2.5}, "max_steps"),
        ({"rtol": 1e-3, "atol": 0.0, "jump_times": [math.nan]}, "jump_times"),
        ({"rtol": 1e-3, "atol": 0.0, "safety": 1.0}, "safety"),
        ({"rtol": 1e-3, "atol": 0.0, "factors": (2.0, 3.0)}, "factors"),
        ({"rtol": 1e-3, "atol": 0.0, "pid": (1.0,)}, "pid"),
    ],
)
def test_nonsense_is_refused_when_it_is_said(arguments, words):
    with pytest.raises(ValueError, match=words):
        Adaptive(**arguments)


def test_a_solver_without_an_error_estimate_is_refused_and_a_way_out_named():
    with pytest.raises(Incompatible, match=r"FixedSteps\(n\) or Halving\(EulerMaruyama\(\)\)"):
        solve(DECAY, _start(0.0), 0.0, 1.0, solver=EulerMaruyama(), steps=Adaptive(rtol=1e-3, atol=1e-3))


@pytest.mark.parametrize("back", [False, True])
def test_a_sample_with_its_own_span_does_not_know_the_spans_around_it(back):
    sign = -1.0 if back else 1.0
    sde = StratonovichSDE(
        lambda t, x: -sign * x,
        lambda t, x: 0.5 + 0.2 * torch.sin(x),
        Noise.DIAGONAL,
        direction=Direction(int(sign)),
    )
    x0 = torch.full((5, 2), 0.3, dtype=torch.float64)
    t0 = torch.tensor([0.0, 0.3, -2.0, 1.0, 5.0], dtype=torch.float64)
    t1 = t0 + torch.tensor([1.0, 0.7, 0.01, 0.0, 2.0], dtype=torch.float64)
    t0, t1 = (t1, t0) if back else (t0, t1)
    steps = Adaptive(rtol=1e-2, atol=1e-2)
    whole = solve(sde, x0, t0, t1, solver=Heun(), steps=steps, seed=5).x
    for i in range(5):
        rows = slice(i, i + 1)
        alone = solve(sde, x0[rows], t0[rows], t1[rows], solver=Heun(), steps=steps, seed=5, first=i).x
        torch.testing.assert_close(alone, whole[rows], rtol=1e-10, atol=1e-12)
    assert torch.equal(whole[3], x0[3])


def test_samples_with_spans_of_their_own_have_the_variance_of_theirs():
    sde = StratonovichSDE(lambda t, x: 0.0 * x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    t1 = torch.tensor([0.1, 2.0], dtype=torch.float64).repeat_interleave(3000)
    x0 = torch.zeros(6000, 1, dtype=torch.float64)
    steps = Adaptive(rtol=1e-2, atol=1e-2, first_step=0.06)
    x = solve(sde, x0, 0.0, t1, solver=Heun(), steps=steps, seed=2).x
    for rows, variance in ((x[:3000], 0.1), (x[3000:], 2.0)):
        assert abs(float(rows.var()) / variance - 1) < 4.5 * math.sqrt(2 / 3000)


def test_adaptive_beats_fixed_steps_where_time_scales_differ():
    # a van der Pol oscillator with jumps a hundred times faster than its plateaus
    sde = ODE(lambda t, x: torch.stack((x[:, 1], 30.0 * (1 - x[:, 0] ** 2) * x[:, 1] - 3 * x[:, 0]), dim=1))
    x0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    truth = solve(sde, x0, 0.0, 20.0, solver=Dopri5(), steps=Adaptive(rtol=1e-9, atol=1e-9)).x
    sol = solve(sde, x0, 0.0, 20.0, solver=Dopri5(), steps=Adaptive(rtol=1e-5, atol=1e-5))
    spent = int(sol.stats.evaluations)
    fixed = solve(sde, x0, 0.0, 20.0, solver=Dopri5(), steps=FixedSteps(spent // 6), on_failure="return")
    error, fixed_error = (float((s.x - truth).abs().max()) for s in (sol, fixed))
    assert error < 1e-2
    assert not fixed.ok or error < 0.2 * fixed_error


def test_a_sample_at_its_own_pace_draws_what_it_would_draw_alone():
    sde = StratonovichSDE(lambda t, x: torch.sin(3 * x), lambda t, x: 0.4 + 0.2 * torch.sin(x), Noise.DIAGONAL)
    x0 = KeyedDraws(0).normal(Purpose.DATA, 0, (16, 2), torch.float64, CPU)
    steps = Adaptive(rtol=1e-2, atol=1e-2)
    whole = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=steps, seed=5)
    for i in (0, 7, 15):
        alone = solve(sde, x0[i : i + 1], 0.0, 1.0, solver=Heun(), steps=steps, seed=5, first=i)
        torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-10, atol=1e-12)
    assert len(set(whole.stats.accepted.tolist())) > 3
