"""The one loop: exact step counts, samples that know nothing of each other, failures that stay where they are."""

import math
import resource
import time

import pytest
import torch

from sdekit.brownian import BrownianTree
from sdekit.errors import Incompatible, SolveFailed, Status
from sdekit.protocols import Dense, Direction, Noise
from sdekit.random import KeyedDraws, Purpose, Replay
from sdekit.save import SaveAt
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers import Dopri5, EulerMaruyama, Heun
from sdekit.steps import Adaptive, FixedSteps, TimeGrid

CPU = torch.device("cpu")
DECAY = ODE(lambda t, x: -x)
GBM = ItoSDE(lambda t, x: 0.5 * x, lambda t, x: 0.8 * x, Noise.DIAGONAL)
MARKED = StratonovichSDE(lambda t, x: torch.sin(x) - t * x, lambda t, x: 0.5 + 0.3 * torch.cos(x), Noise.DIAGONAL)
FIXED, ADAPTIVE = FixedSteps(20), Adaptive(rtol=1e-2, atol=1e-2)
SHAPES = [(3,), (2, 4, 4)]


def _x0(count, tail=(1,), dtype=torch.float64, seed=0):
    return KeyedDraws(seed).normal(Purpose.DATA, 0, (count, *tail), dtype, CPU)


# --- steps land exactly ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("t0", "t1", "dt", "count"),
    [
        (0, 1, 0.1, 10),
        (0, 1, 1e-3, 1000),
        (0.2, 1.2, 0.1, 10),
        (1, 0, 0.1, 10),
        (0, 0.35, 0.1, 4),
        (0, 0.05, 0.1, 1),
        (-3, 4, 0.7, 10),
    ],
)
def test_the_number_of_steps_is_exact(dtype, t0, t1, dt, count):
    sol = solve(DECAY, _x0(2, dtype=dtype), t0, t1, solver=EulerMaruyama(), steps=FixedSteps(dt=dt))
    assert sol.stats.accepted.tolist() == [count, count]
    assert sol.stats.model_calls == count
    assert float(sol.t) == t1


def test_equal_steps_are_equal_and_the_last_one_ends_at_t1():
    visited = []
    sde = ODE(lambda t, x: visited.append(float(t)) or torch.zeros_like(x))
    solve(sde, _x0(1), 0.0, 1.0, solver=EulerMaruyama(), steps=FixedSteps(dt=0.1))
    assert visited == [i / 10 for i in range(10)]


def test_a_grid_of_times_is_followed():
    visited = []
    sde = ODE(lambda t, x: visited.append(float(t)) or torch.zeros_like(x))
    sol = solve(sde, _x0(1), 1.0, 0.0, solver=EulerMaruyama(), steps=TimeGrid([1.0, 0.9, 0.5, 0.0]))
    assert visited == [1.0, 0.9, 0.5]
    assert sol.stats.accepted.tolist() == [3]


@pytest.mark.parametrize("sde", [DECAY, MARKED])
@pytest.mark.parametrize(
    ("steps", "t"),
    [(FixedSteps(dt=0.1), 0.3)] + [(s, t) for s in (FIXED, ADAPTIVE) for t in (0.3, torch.full((4,), 0.3))],
)
def test_a_solve_over_no_time_returns_the_start(sde, steps, t):
    x = _x0(4)
    sol = solve(sde, x, t, t, solver=Heun(), steps=steps)
    assert torch.equal(sol.x, x)
    assert sol.ok


@pytest.mark.parametrize("tail", SHAPES)
def test_euler_maruyama_is_the_loop_one_would_write_by_hand(tail):
    x0, n = _x0(6, tail), 10
    sol = solve(GBM, x0, 0.0, 2.0, solver=EulerMaruyama(), steps=FixedSteps(n), seed=3)
    draws, x, h = KeyedDraws(3), x0, 0.2
    for k in range(n):
        z = draws.normal(Purpose.PATH, k, tuple(x.shape), x.dtype, CPU)
        x = x + h * 0.5 * x + 0.8 * x * (math.sqrt(h) * z)
    torch.testing.assert_close(sol.x, x, rtol=1e-13, atol=0)


def test_recorded_noise_is_replayed():
    z = [_x0(4, (2,), seed=k) for k in range(5)]
    sde = ItoSDE(lambda t, x: torch.zeros_like(x), lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    sol = solve(
        sde,
        torch.zeros(4, 2, dtype=torch.float64),
        0.0,
        1.0,
        solver=EulerMaruyama(),
        steps=FixedSteps(5),
        seed=Replay({Purpose.PATH: z}),
    )
    torch.testing.assert_close(sol.x, sum(z) * math.sqrt(0.2), rtol=1e-13, atol=1e-15)


# --- per-sample times ------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [FixedSteps(16), Adaptive(rtol=1e-8, atol=1e-10)])
def test_every_sample_may_have_a_span_of_its_own(steps):
    x0 = torch.ones(3, 2, dtype=torch.float64)
    t0, t1 = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 2.5, 1.0])
    sol = solve(ODE(lambda t, x: -t * x), x0, t0, t1, solver=Dopri5(), steps=steps)
    exact = torch.exp(-(t1**2 - t0**2).double() / 2)[:, None].expand(3, 2)
    torch.testing.assert_close(sol.x, exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(sol.t.expand(3), t1.double())


def test_a_sample_with_its_own_span_takes_the_path_it_takes_alone():
    x0, t1 = _x0(3, (2,)), [0.5, 1.0, 3.0]
    sol = solve(MARKED, x0, 0.0, torch.tensor(t1), solver=Heun(), steps=FixedSteps(12), seed=5)
    for i in range(3):
        alone = solve(MARKED, x0[i : i + 1], 0.0, t1[i], solver=Heun(), steps=FixedSteps(12), seed=5, first=i)
        torch.testing.assert_close(sol.x[i : i + 1], alone.x, rtol=1e-12, atol=1e-13)


# --- samples know nothing of each other ------------------------------------------------------------


@pytest.mark.parametrize("tail", SHAPES)
@pytest.mark.parametrize("steps", [FIXED, ADAPTIVE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_alone_is_the_sample_in_a_batch(tail, steps, dtype):
    x0 = _x0(64, tail, dtype)

    def run(rows, first):
        return solve(MARKED, x0[rows], 0.0, 1.0, solver=Heun(), steps=steps, seed=2, first=first)

    whole = run(slice(None), 0)
    for rows in (slice(0, 1), slice(37, 38), slice(32, 64)):
        part = run(rows, rows.start)
        torch.testing.assert_close(part.x, whole.x[rows], rtol=2e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)
        assert torch.equal(part.stats.accepted, whole.stats.accepted[rows])
        assert torch.equal(part.stats.rejected, whole.stats.rejected[rows])
        assert torch.equal(part.stats.evaluations, whole.stats.evaluations[rows])


@pytest.mark.parametrize("steps", [FIXED, ADAPTIVE])
@pytest.mark.parametrize("sde", [ODE(lambda t, x: torch.cos(x)), MARKED])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_sample_leaves_the_others_bit_identical(steps, sde, bad):
    x0 = _x0(8, (3,))
    spoiled = x0.clone()
    spoiled[4, 1] = bad
    good = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=steps, seed=9)
    sol = solve(sde, spoiled, 0.0, 1.0, solver=Heun(), steps=steps, seed=9, on_failure="return")
    rest = torch.arange(8) != 4
    assert torch.equal(sol.x[rest], good.x[rest])
    assert sol.status.tolist() == [Status.NONFINITE if i == 4 else Status.OK for i in range(8)]
    assert torch.equal(sol.stats.accepted[rest], good.stats.accepted[rest])


@pytest.mark.parametrize(("solver", "steps"), [(Heun(), FixedSteps(50)), (Dopri5(), Adaptive(rtol=1e-5, atol=1e-5))])
def test_a_sample_that_blows_up_on_the_way_leaves_the_others_bit_identical(solver, steps):
    square = ODE(lambda t, x: x**2)  # x = x0 / (1 − x0 t): the sample from 2 is infinite at t = 0.5
    calm = torch.tensor([[0.1], [0.2], [-1.0], [0.3]], dtype=torch.float64)
    wild = calm.clone()
    wild[2] = 2.0
    good = solve(square, calm, 0.0, 1.5, solver=solver, steps=steps)
    with pytest.raises(SolveFailed, match=r"1 of 4 samples did not reach t1.*samples 2") as caught:
        solve(square, wild, 0.0, 1.5, solver=solver, steps=steps)
    sol = caught.value.solution
    rest = torch.tensor([0, 1, 3])
    assert torch.equal(sol.x[rest], good.x[rest])
    assert int(sol.status[2]) in (Status.NONFINITE, Status.STEP_TOO_SMALL)
    assert sol.status[rest].tolist() == [Status.OK] * 3
    if steps.adaptive:
        assert float(sol.t[2]) == pytest.approx(0.5, abs=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_path():
    def run(seed):
        return solve(GBM, torch.ones(5, 2), 0.0, 1.0, solver=EulerMaruyama(), steps=FIXED, seed=seed).x

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_nothing_touches_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for steps in (FIXED, ADAPTIVE):
        solve(MARKED, _x0(3), 0.0, 1.0, solver=Heun(), steps=steps, save=SaveAt(times=[0.123]))
    assert torch.equal(torch.get_rng_state(), before)


# --- counts ----------------------------------------------------------------------------------------


def test_work_is_counted():
    sol = solve(GBM, torch.ones(5, 2), 0.0, 1.0, solver=EulerMaruyama(), steps=FixedSteps(10))
    assert (sol.stats.model_calls, sol.stats.drift_calls, sol.stats.diffusion_calls) == (10, 10, 10)
    assert sol.stats.evaluations.tolist() == [10] * 5
    assert sol.stats.rejected.tolist() == [0] * 5
    sol = solve(DECAY, torch.ones(5, 2), 0.0, 1.0, solver=Dopri5(), steps=FixedSteps(10))
    assert sol.stats.drift_calls == 61  # six a step, and one to start
    assert sol.stats.evaluations.tolist() == [61] * 5


def test_an_easy_sample_beside_a_stiff_one_costs_what_it_costs_alone():
    # dx/dt = −rate (x − cos t), the rate riding along as a second component
    sde = ODE(
        lambda t, x: torch.stack((-x[:, 1] * (x[:, 0] - torch.cos(t.reshape(-1))), torch.zeros_like(x[:, 1])), dim=1)
    )
    x0 = torch.tensor([[0.0, 1.0], [0.0, 300.0]], dtype=torch.float64)
    steps = Adaptive(rtol=1e-6, atol=1e-6)
    both = solve(sde, x0, 0.0, 5.0, solver=Dopri5(), steps=steps)
    alone = [solve(sde, x0[i : i + 1], 0.0, 5.0, solver=Dopri5(), steps=steps) for i in range(2)]
    assert both.stats.evaluations.tolist() == [int(a.stats.evaluations) for a in alone]
    assert both.stats.accepted.tolist() == [int(a.stats.accepted) for a in alone]
    assert 8 * both.stats.evaluations[0] < both.stats.evaluations[1]
    assert both.stats.model_calls == int(both.stats.evaluations[1])


def test_progress_rises_to_one():
    for steps in (FixedSteps(7), ADAPTIVE):
        seen = []
        solve(MARKED, _x0(3), 0.0, 1.0, solver=Heun(), steps=steps, progress=seen.append)
        assert seen == sorted(seen)
        assert 0.0 <= seen[0] < 1.0  # a step that is refused gets nowhere
        assert seen[-1] == 1.0


# --- directions ------------------------------------------------------------------------------------


def test_a_law_is_not_run_against_its_direction_by_accident():
    with pytest.raises(Incompatible, match=r"runs forward in time.*reverse\(sde, score\)"):
        solve(GBM, _x0(2), 1.0, 0.0, solver=EulerMaruyama(), steps=FIXED)
    back = ItoSDE(GBM.drift, GBM.diffusion, Noise.DIAGONAL, direction=Direction.BACKWARD)
    with pytest.raises(Incompatible, match="runs backward in time"):
        solve(back, _x0(2), 0.0, 1.0, solver=EulerMaruyama(), steps=FIXED)
    solve(back, _x0(2), 1.0, 0.0, solver=EulerMaruyama(), steps=FIXED)


def test_a_backward_law_has_the_mean_and_variance_of_the_forward_one_in_reversed_time():
    # dx = +x dt + dW̄ run from t = 1 to 0 is dx = −x ds + dW in s = 1 − t: variance (1 − e⁻²)/2
    back = ItoSDE(lambda t, x: x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE, direction=Direction.BACKWARD)
    count = 20_000
    x = solve(back, torch.full((count, 1), 2.0), 1.0, 0.0, solver=Heun(), steps=FixedSteps(64), seed=1).x.double()
    variance = (1 - math.exp(-2)) / 2
    assert abs(float(x.mean()) - 2 * math.exp(-1)) < 4 * math.sqrt(variance / count) + 1e-4
    assert abs(float(x.var()) / variance - 1) < 4 * math.sqrt(2 / count) + 1e-3


def test_a_stratonovich_path_runs_back_on_its_own_noise():
    x0, errors = _x0(32, (2,)), []
    tree = BrownianTree(0.0, 1.0, (32, 2), seed=4, dtype=torch.float64)
    for n in (32, 64, 128):
        there = solve(MARKED, x0, 0.0, 1.0, solver=Heun(), steps=FixedSteps(n), path=tree)
        back = solve(MARKED, there.x, 1.0, 0.0, solver=Heun(), steps=FixedSteps(n), path=tree)
        errors.append(float((back.x - x0).square().mean().sqrt()))
    assert errors[-1] < 5e-3
    assert errors[-1] < 0.4 * errors[0]


def test_dense_scalar_and_element_wise_noise_agree_where_they_are_the_same():
    x0, n = _x0(5, (3,)), 8
    wide = ItoSDE(GBM.drift, lambda t, x: Dense(torch.diag_embed(0.8 * x)), Noise.GENERAL)
    one = ItoSDE(GBM.drift, lambda t, x: 0.8 * x, Noise.SCALAR)
    one_column = ItoSDE(GBM.drift, lambda t, x: Dense(0.8 * x[..., None]), Noise.SCALAR)
    plain, general, scalar, column = (
        solve(sde, x0, 0.0, 1.0, solver=EulerMaruyama(), steps=FixedSteps(n), seed=8).x
        for sde in (GBM, wide, one, one_column)
    )
    torch.testing.assert_close(plain, general, rtol=1e-12, atol=0)
    torch.testing.assert_close(scalar, column, rtol=1e-12, atol=0)
    ratio = scalar / x0  # one Brownian motion for all components: they all grow by one factor
    torch.testing.assert_close(ratio, ratio[:, :1].expand(5, 3), rtol=1e-12, atol=0)


# --- endurance -------------------------------------------------------------------------------------


def test_twenty_thousand_default_steps_run_through():
    began = time.process_time()
    sol = solve(GBM, torch.ones(1, 1), 0.0, 20.0, solver=EulerMaruyama(), steps=FixedSteps(dt=1e-3))
    assert sol.stats.accepted.tolist() == [20_000]
    assert sol.ok
    assert time.process_time() - began < 20


@pytest.mark.slow
def test_a_million_steps_take_no_more_memory_than_a_few():
    sde = ItoSDE(lambda t, x: -x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)

    def peak(n):
        sol = solve(
            sde, torch.zeros(4, 1), 0.0, 1000.0, solver=EulerMaruyama(), steps=FixedSteps(n), save=SaveAt(times=[999.9])
        )
        assert sol.stats.accepted.tolist() == [n] * 4
        assert sol.ok
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB

    few = peak(20_000)
    assert peak(1_000_000) - few < 8.0
