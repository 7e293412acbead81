"""Samplers of affine processes, measured on exact scores: orders, moments, and that samples mind their own business."""

from __future__ import annotations

import dataclasses
import math
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.brownian import BrownianGrid
from sdekit.errors import Incompatible, SolveFailed, Status
from sdekit.events import Event
from sdekit.protocols import Increment, Levy, Noise
from sdekit.save import SaveAt
from sdekit.scores import probability_flow, reverse
from sdekit.sdes.diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from sdekit.sdes.functions import ODE
from sdekit.sdes.process import AffineProcess
from sdekit.solve import solve
from sdekit.solvers import (
    DDIM,
    DEIS,
    SAMPLERS,
    SEEDS,
    AngularAdams,
    DPMSolver,
    DPMSolverPP,
    EDMHeun,
    GottaGoFast,
    Restart,
    SASolver,
    UniPC,
    denoise,
)
from sdekit.steps import Adaptive, FixedSteps, TimeGrid
from sdekit.steps.grids import angle_grid, log_snr_grid

PROCESSES = [VP(), SubVP(), VE(t_min=0.05), EDM(), Cosine(), RectifiedFlow()]
STOCHASTIC = [s for s in SAMPLERS if Noise.ADDITIVE in s.orders]


def name(thing: Any) -> str:
    fields = [str(v) for v in dataclasses.astuple(thing) if isinstance(v, int)]
    return f"{type(thing).__name__}{''.join(fields)}"


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sample(sde: Any, x: Tensor, solver: Any, grid: TimeGrid, **more: Any) -> Tensor:
    return solve(sde, x, grid.times[0], grid.times[-1], solver=solver, steps=grid, **more).x  # type: ignore[index]


def error(x: Tensor, exact: Tensor) -> float:
    """Geometric mean of the samples' RMSE."""
    return float((x - exact).square().flatten(1).mean(1).sqrt().log().mean().exp())


# --- orders of the probability flow ---------------------------------------------------------------------------------


@cache
def mixture_problem(process: Any) -> tuple[Any, Tensor, Tensor]:
    """A flow from the prior to a mixture, its start, and its converged end."""
    flow = probability_flow(process, GaussianMixture(normals(3, 6), 0.4).score(process))
    x = process.prior_std() * normals(24, 6, seed=1)
    return flow, x, sample(flow, x, AngularAdams(4, 0.7), angle_grid(process, 700))


def measured_order(solver: Any, process: Any) -> float:
    flow, x, exact = mixture_problem(process)
    n = 200 if solver.orders[Noise.NONE].strong in (3.0, 4.0) else 100  # at order 5 rounding is near
    coarse, fine = (error(sample(flow, x, solver, angle_grid(process, m)), exact) for m in (n, 2 * n))
    return math.log2(coarse / fine)


@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_order_on_the_exact_score_is_within_two_tenths_of_the_claim(solver):
    assert measured_order(solver, VP()) == pytest.approx(solver.orders[Noise.NONE].strong, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES[1:], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_order_is_within_two_tenths_of_the_claim_for_every_process(solver, process):
    found, claim = measured_order(solver, process), solver.orders[Noise.NONE].strong
    # on VE the error that a start with few values leaves in DEIS(4) has the other sign, and flatters the fit
    above = 0.5 if solver == DEIS(4) and isinstance(process, VE) else 0.2
    assert claim - 0.2 < found < claim + above


@pytest.mark.parametrize(
    ("start", "end"),
    [pytest.param(0.05, 20.0, id="towards noise", marks=pytest.mark.slow), pytest.param(1.0, 0.02, id="from half way")],
)
@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_order_away_from_the_prior_is_the_claim_up_to_three(solver, start, end):
    # methods of order four and five start with too few values for more, where these values are not nearly constant
    process, mean, std = RectifiedFlow(), torch.tensor([1.0, -0.5, 0.2]), torch.tensor([0.3, 1.2, 0.1])
    flow = probability_flow(process, GaussianData(mean.double(), std=std.double()).score(process))
    t0, t1 = (float(process.time(math.log(s))) for s in (start, end))
    z, spread = normals(16, 3), [(process.scale(t) * std.double()).hypot(process.std(t)) for t in (t0, t1)]
    x, exact = (process.scale(t) * mean + s * z for t, s in zip((t0, t1), spread, strict=True))
    grids = [log_snr_grid(process, n, t0=t0, t1=t1) for n in (60, 120)]
    errors = [error(sample(flow, x, solver, grid), exact) for grid in grids]
    claim = min(solver.orders[Noise.NONE].strong, 3.0)
    assert math.log2(errors[0] / errors[1]) > claim - 0.2


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_a_gaussian_of_the_right_width_takes_one_step(process):
    c = 0.7
    data = GaussianData(torch.zeros(3, dtype=torch.float64), std=c)
    flow, x = probability_flow(process, data.score(process)), normals(5, 3)
    exact = x * ((c * process.scale(process.t_min)).hypot(process.std(process.t_min)))
    exact = exact / ((c * process.scale(process.t_max)).hypot(process.std(process.t_max)))
    found = sample(flow, x, AngularAdams(1, c), log_snr_grid(process, 1))
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)


def test_a_step_to_no_noise_at_all_keeps_its_order_in_the_angle():
    process = VP()
    flow, x, _ = mixture_problem(process)
    exact = sample(flow, x, AngularAdams(4, 0.7), TimeGrid([*angle_grid(process, 500).times[:-1], 0.0]))

    def at(n: int) -> float:
        angles = torch.atan(process.sigma(process.t_max)) * (1.0 - torch.arange(n + 1, dtype=torch.float64) / n)
        times = process.time(torch.tan(angles[1:-1]).log()).tolist()
        return error(sample(flow, x, AngularAdams(3, 1.0), TimeGrid([process.t_max, *times, 0.0])), exact)

    assert math.log2(at(60) / at(120)) > 3.5


# --- formulas -------------------------------------------------------------------------------------------------------


def test_second_order_multistep_is_as_published():
    process = VP()
    flow, x, _ = mixture_problem(process)
    grid = log_snr_grid(process, 7)
    t = torch.tensor(grid.times, dtype=torch.float64)
    y, before, steps = x, None, (-process.log_sigma(t)).diff()
    for i in range(7):
        d = denoise(process, flow.score, t[i], y)
        ahead = d if before is None else d + (d - before) * steps[i] / (2.0 * steps[i - 1])
        y = process.std(t[i + 1]) / process.std(t[i]) * y - process.scale(t[i + 1]) * torch.expm1(-steps[i]) * ahead
        before = d
    torch.testing.assert_close(sample(flow, x, DPMSolverPP(2), grid), y, rtol=1e-11, atol=1e-11)


def test_first_order_methods_are_one_and_the_same():
    process = SubVP()
    flow, x, _ = mixture_problem(process)
    solvers = (DDIM(), DPMSolver(1), DPMSolverPP(1), DEIS(1), SEEDS(1))
    ends = [sample(flow, x, s, log_snr_grid(process, 9)) for s in solvers]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-10, atol=1e-10)
    back, grid = reverse(process, flow.score), log_snr_grid(process, 9)
    found = sample(back, x, DDIM(), grid)
    torch.testing.assert_close(found, sample(back, x, DPMSolverPP(1), grid), rtol=1e-10, atol=1e-10)


def test_a_corrector_changes_nothing_for_a_single_value():
    process = VE()
    flow, x, _ = mixture_problem(VE(t_min=0.05))
    grid = log_snr_grid(process, 1)
    torch.testing.assert_close(sample(flow, x, UniPC(3), grid), sample(flow, x, DDIM(), grid), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_calls_of_the_score_are_what_the_method_says(solver):
    process = VP()
    flow, x, _ = mixture_problem(process)
    per_step = {DPMSolver: getattr(solver, "order", 1), SEEDS: getattr(solver, "order", 1), EDMHeun: 2, GottaGoFast: 2}
    sol = solve(flow, x, process.t_max, process.t_min, solver=solver, steps=log_snr_grid(process, 6))
    assert sol.stats.model_calls == 6 * per_step.get(type(solver), 1) + (solver == AngularAdams(4))


# --- noise ----------------------------------------------------------------------------------------------------------


class UnitNoises:
    """Sample 0 has no noise; every other one a single unit normal: W of one step, or √12 H of one step.

    A linear SDE solved along it from (1, 0, …, 0) has the state's variance as the sum of squares, without sampling.
    """

    def __init__(self, n: int) -> None:
        self.n = n

    def increment(self, span: Any, like: Tensor, levy: Levy) -> Increment:
        w, h = torch.zeros_like(like), torch.zeros_like(like)
        w[1 + span.index], h[1 + self.n + span.index] = abs(span.h) ** 0.5, (abs(span.h) / 12) ** 0.5
        return Increment(w, h)


def variance(process: Any, std: float, solver: Any, n: int, churn: float = 1.0, make: Any = log_snr_grid) -> float:
    """Variance at t_min that the sampler gives for data N(0, std²), exactly."""
    sde = reverse(process, GaussianData(torch.zeros(1, dtype=torch.float64), std=std).score(process), churn=churn)
    x = torch.zeros(1 + 2 * n, 1, dtype=torch.float64)
    x[0] = (std * process.scale(process.t_max)).hypot(process.std(process.t_max))
    return float(sample(sde, x, solver, make(process, n), path=UnitNoises(n)).square().sum())


def exact_variance(process: Any, std: float) -> float:
    return float((std * process.scale(process.t_min)).square() + process.std(process.t_min).square())


# a method of first order promises no more than its order
ACCURATE = [s for s in STOCHASTIC if getattr(s, "order", 1) >= 2 or isinstance(s, (AngularAdams, GottaGoFast))]


@pytest.mark.parametrize("process", [VP(), VE(), SubVP()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("solver", ACCURATE, ids=name)
def test_standard_deviation_is_right_within_half_a_percent_at_a_hundred_calls(solver, process):
    n = 50 if isinstance(solver, (SEEDS, GottaGoFast)) else 100
    # Heun's rule does not know the linear part, and wants its steps where the data's structure is decided
    make = partial(angle_grid, tail=0.2) if isinstance(solver, GottaGoFast) else log_snr_grid
    for std in (0.25, 1.0):
        wrong = math.sqrt(variance(process, std, solver, n, make=make) / exact_variance(process, std)) - 1.0
        assert abs(wrong) < 0.005


@pytest.mark.parametrize("solver", STOCHASTIC, ids=name)
def test_weak_order_is_the_claim(solver):
    process, std = VP(), 0.3
    errors = [abs(variance(process, std, solver, n) - exact_variance(process, std)) for n in (100, 200)]
    assert math.log2(errors[0] / errors[1]) > solver.orders[Noise.ADDITIVE].weak - 0.2


@pytest.mark.parametrize("churn", [0.5, 1.3])
def test_any_amount_of_noise_keeps_the_variance(churn):
    process, std = SubVP(), 0.7
    for solver in (DPMSolverPP(3), DEIS(2), SASolver(3, 4), AngularAdams(2), SEEDS(2), GottaGoFast()):
        assert variance(process, std, solver, 100, churn) == pytest.approx(exact_variance(process, std), rel=0.02)


@cache
def path_problem() -> tuple[Any, Tensor, Any, tuple[float, ...], Tensor]:
    """A reverse SDE, its start, a path, the times on which it is known, and the converged end along it."""
    process = VP(t_min=0.01)
    sde = reverse(process, GaussianMixture(normals(2, 3), 0.6).score(process))
    times = log_snr_grid(process, 768).times
    path = BrownianGrid(times[::-1], (64, 3), seed=3)  # type: ignore[index]
    x = process.prior_sample((64, 3), seed=1, dtype=torch.float64)
    return sde, x, path, times, sample(sde, x, DPMSolverPP(3), TimeGrid(times), path=path)  # type: ignore[return-value]


@pytest.mark.parametrize("solver", [DDIM(), DPMSolverPP(2), SASolver(3, 4), AngularAdams(3), SEEDS(2)], ids=name)
def test_strong_order_along_one_path_is_the_claim(solver):
    sde, x, path, times, exact = path_problem()
    ends = [sample(sde, x, solver, TimeGrid(times[:: 768 // n]), path=path) for n in (24, 96)]
    errors = [float((end - exact).square().mean().sqrt()) for end in ends]
    assert math.log2(errors[0] / errors[1]) / 2 > solver.orders[Noise.ADDITIVE].strong - 0.2


def test_noise_may_be_set_apart_from_the_equation():
    process, n = VP(), 1500
    score = GaussianData(torch.zeros(4, dtype=torch.float64), std=0.5).score(process)
    flow, back = probability_flow(process, score), reverse(process, score)
    x, grid = process.prior_sample((n, 4), seed=2, dtype=torch.float64), angle_grid(process, 60)
    quiet = sample(flow, x, DPMSolverPP(2), grid)
    torch.testing.assert_close(sample(back, x, DPMSolverPP(2, eta=0.0), grid), quiet, rtol=1e-12, atol=1e-12)
    exact, spread = math.sqrt(exact_variance(process, 0.5)), 4.0 / math.sqrt(8 * n)
    for solver in (AngularAdams(2, eta=1.0), AngularAdams(2, eta=0.3), SASolver(2, 2, eta=0.2), SEEDS(2, eta=0.5)):
        for sde in (flow, back):
            assert float(sample(sde, x, solver, grid, seed=5).std()) == pytest.approx(exact, rel=spread + 0.01)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_noise_follows_its_formula(eta):
    process, x = VP(), normals(6, 2)
    score = GaussianMixture(normals(2, 2), 0.5).score(process)
    s0, s1, d0, d1 = (f(t) for f in (process.scale, process.std) for t in (0.7, 0.4))
    data = denoise(process, score, 0.7, x)
    spread = eta * d1 / d0 * (1 - (s0 / s1).square()).sqrt()  # equation 16 with α = s², 1 − α = std²
    mean = s1 * data + (d1.square() - spread.square()).sqrt() * (x - s0 * data) / d0
    sol = solve(reverse(process, score), x, 0.7, 0.4, solver=DDIM(eta), steps=FixedSteps(1), seed=3)
    assert sol.mean is not None
    torch.testing.assert_close(sol.mean, mean, rtol=1e-10, atol=1e-12)
    if eta:
        z = (sol.x - sol.mean) / spread
        follow = solve(reverse(process, score), x, 0.7, 0.4, solver=DDIM(1.0), steps=FixedSteps(1), seed=3)
        assert follow.mean is not None
        full = d1 / d0 * (1 - (s0 / s1).square()).sqrt()
        torch.testing.assert_close((follow.x - follow.mean) / full, z, rtol=1e-9, atol=1e-9)


def test_churn_and_restarts_keep_the_law():
    process, n, std = EDM(), 2000, 0.5
    flow = probability_flow(process, GaussianData(torch.zeros(4, dtype=torch.float64), std=std).score(process))
    x = math.sqrt(process.t_max**2 + std**2) * normals(n, 4)
    exact, spread = math.hypot(std, process.t_min), 4.0 / math.sqrt(8 * n)
    for solver in (
        EDMHeun(gamma=0.2),
        EDMHeun(gamma=0.4, sigma_min=0.05, sigma_max=10.0),
        Restart(EDMHeun(), low=0.1, high=1.0, repeats=2, steps=6),
        Restart(UniPC(2), low=0.05, high=2.0, repeats=3, steps=12),
    ):
        found = float(sample(flow, x, solver, angle_grid(process, 60), seed=1).std())
        assert found == pytest.approx(exact, rel=spread + 0.004)


def test_restarts_forget_errors_made_at_high_noise():
    process, data = EDM(), GaussianData(torch.zeros(8, dtype=torch.float64), std=0.5)
    flow, x = probability_flow(process, data.score(process)), 120.0 * normals(800, 8)  # half too wide a start
    exact, grid = math.hypot(0.5, process.t_min), angle_grid(process, 30)
    plain = abs(float(sample(flow, x, UniPC(2), grid).std()) / exact - 1.0)
    restarted = sample(flow, x, Restart(UniPC(2), low=0.05, high=3.0, repeats=2, steps=10), grid, seed=4)
    assert plain > 0.4
    assert abs(float(restarted.std()) / exact - 1.0) < 0.05


def test_a_restart_costs_its_inner_steps():
    process = VP()
    flow, x, _ = mixture_problem(process)
    solver = Restart(DPMSolverPP(2), low=0.1, high=1.0, repeats=3, steps=4)
    sol = solve(flow, x, process.t_max, process.t_min, solver=solver, steps=log_snr_grid(process, 20))
    assert sol.stats.model_calls == 20 + 3 * 4


# --- every sample by itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_a_sample_does_not_depend_on_its_batch(solver):
    process = VP()
    score = GaussianMixture(normals(3, 5), 0.4).score(process)
    x, grid = process.prior_sample((64, 5), seed=1, dtype=torch.float64), angle_grid(process, 8)
    sdes = [probability_flow(process, score)] + ([reverse(process, score)] if solver in STOCHASTIC else [])
    for sde in sdes:
        whole = sample(sde, x, solver, grid, seed=7)
        for first, size in ((0, 1), (63, 1), (24, 8)):
            part = sample(sde, x[first : first + size], solver, grid, seed=7, first=first)
            torch.testing.assert_close(part, whole[first : first + size], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_images_in_single_precision_agree_with_double(solver):
    process, shape = SubVP(), (3, 2, 4, 4)
    score = GaussianMixture(normals(3, *shape[1:]), 0.5).score(process)
    x, grid = process.prior_sample(shape, seed=1, dtype=torch.float64), angle_grid(process, 24)
    sdes = [probability_flow(process, score)] + ([reverse(process, score)] if solver in STOCHASTIC else [])
    for sde in sdes:
        path = BrownianGrid(grid.times[::-1], shape, seed=2)  # type: ignore[index]
        paths = {} if sde.noise is Noise.NONE else {"path": path}
        exact = sample(sde, x, solver, grid, **paths)
        single = {"path": BrownianGrid.from_increments(path.times, *(_single(path)))} if paths else {}
        found = sample(sde, x.float(), solver, grid, **single)
        assert found.dtype is torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=2e-3)


def _single(path: BrownianGrid) -> tuple[Tensor, Tensor]:
    parts = [path(float(a), float(b)) for a, b in pairwise(path.times)]
    return torch.stack([p.W for p in parts]).float(), torch.stack([p.H for p in parts if p.H is not None]).float()


@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_every_sample_may_have_times_of_its_own(solver):
    process = Cosine()
    flow = probability_flow(process, GaussianMixture(normals(3, 4), 0.4).score(process))
    x = normals(3, 4)
    t0, t1 = torch.tensor([0.9, 0.8, 0.99], dtype=torch.float64), torch.tensor([0.1, 0.05, 0.3], dtype=torch.float64)
    together = solve(flow, x, t0, t1, solver=solver, steps=FixedSteps(9)).x
    for i in range(3):
        alone = solve(flow, x[i : i + 1], float(t0[i]), float(t1[i]), solver=solver, steps=FixedSteps(9)).x
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", [DPMSolverPP(3), UniPC(3), AngularAdams(3)], ids=name)
def test_a_sample_stopped_by_an_event_leaves_the_others_alone(solver):
    process = VP()
    flow, x, _ = mixture_problem(process)
    grid = log_snr_grid(process, 40)
    free = sample(flow, x, solver, grid)
    threshold = float(free[:, 0].median())
    stopped = solve(
        flow,
        x,
        process.t_max,
        process.t_min,
        solver=solver,
        steps=grid,
        event=Event(lambda t, x: x[:, 0] - threshold - 0.1),
        on_failure="return",
    )
    through = stopped.status == Status.OK
    assert 0 < int(through.sum()) < len(x)
    torch.testing.assert_close(stopped.x[through], free[through], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("solver", [*SAMPLERS, Restart(DPMSolverPP(2), 0.1, 1.0)], ids=name)
def test_a_bad_score_spoils_its_own_sample_only(solver, value):
    process = VP()
    flow, x, _ = mixture_problem(process)

    def bad(t: Tensor, x: Tensor) -> Tensor:
        found = flow.score(t, x).clone()
        found[2] = value
        return found

    grid = log_snr_grid(process, 9)
    others = torch.arange(len(x)) != 2
    equations = (probability_flow, reverse) if solver in STOCHASTIC else (probability_flow,)
    for make in equations:
        good = sample(make(process, flow.score), x, solver, grid, seed=3)
        ends, options = (process.t_max, process.t_min), {"solver": solver, "steps": grid, "seed": 3}
        sol = solve(make(process, bad), x, *ends, on_failure="return", **options)
        assert sol.status.tolist() == [Status.NONFINITE if i == 2 else Status.OK for i in range(len(x))]
        torch.testing.assert_close(sol.x[others], good[others], rtol=1e-12, atol=1e-12)
        with pytest.raises(SolveFailed, match="1 of 24 samples did not reach t1: 1 NONFINITE: samples 2"):
            solve(make(process, bad), x, *ends, **options)


@pytest.mark.parametrize("solver", SAMPLERS, ids=name)
def test_a_score_of_wrong_shape_or_dtype_is_an_error_that_says_so(solver):
    process, x = VP(), torch.ones(4, 3)
    for score, error, message in (
        (lambda t, x: x[:, :1], ValueError, r"score\(t, x\) returned shape \(4, 1\) for x of shape \(4, 3\)"),
        (lambda t, x: x.double(), TypeError, "returned torch.float64 for x of torch.float32"),
        (lambda t, x: None, TypeError, "must return a tensor shaped like x, got NoneType"),
    ):
        with pytest.raises(error, match=message):
            sample(probability_flow(process, score), x, solver, log_snr_grid(process, 3))


def test_saving_between_steps_changes_nothing_and_is_accurate():
    process = VP()
    flow, x, _ = mixture_problem(process)
    grid, times = angle_grid(process, 60), [0.61, 0.37, 0.113, 0.0042]
    free = sample(flow, x, AngularAdams(3), grid)
    t1 = process.t_min
    sol = solve(flow, x, process.t_max, t1, solver=AngularAdams(3), steps=grid, save=SaveAt(times=[*times, t1]))
    torch.testing.assert_close(sol.x[-1], free, rtol=1e-12, atol=1e-12)
    for t, found in zip(times, sol.x[:-1], strict=True):
        fine = angle_grid(process, 300, t1=t)
        torch.testing.assert_close(found, sample(flow, x, AngularAdams(4), fine), rtol=1e-3, atol=1e-3)


# --- adaptive steps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [DPMSolver(2), DPMSolver(3), EDMHeun()], ids=name)
def test_adaptive_steps_follow_the_tolerance_for_every_sample(solver):
    process = VP()
    flow, x, exact = mixture_problem(process)
    errors, calls = [], []
    for tol in (1e-2, 1e-4):
        sol = solve(flow, x, process.t_max, process.t_min, solver=solver, steps=Adaptive(rtol=tol, atol=tol))
        errors.append(error(sol.x, exact))
        calls.append(sol.stats.evaluations.double().mean())
    assert errors[0] < 0.1
    assert errors[1] < 30 * 1e-4
    assert calls[1] > calls[0]
    alone = solve(flow, x[3:4], process.t_max, process.t_min, solver=solver, steps=Adaptive(rtol=1e-2, atol=1e-2))
    both = solve(flow, x, process.t_max, process.t_min, solver=solver, steps=Adaptive(rtol=1e-2, atol=1e-2))
    torch.testing.assert_close(alone.x, both.x[3:4], rtol=1e-9, atol=1e-9)


def test_gotta_go_fast_keeps_the_law_with_steps_of_each_samples_own():
    process, n, std = VP(), 400, 0.3
    data = GaussianData(torch.zeros(8, dtype=torch.float64), std=std)
    x = process.prior_sample((n, 8), seed=3, dtype=torch.float64)
    steps = Adaptive(rtol=0.02, atol=0.0078, pid=(0.0, 1.35, 0.0))
    sde = reverse(process, data.score(process))
    sol = solve(sde, x, process.t_max, process.t_min, solver=GottaGoFast(), steps=steps, seed=2)
    found = float(sol.x.std()) / math.sqrt(exact_variance(process, std)) - 1.0
    assert abs(found) < 4.0 / math.sqrt(2 * 8 * n) + 0.01
    assert sol.stats.accepted.unique().numel() > 1
    tried = sol.stats.accepted + sol.stats.rejected
    # two calls for each step tried; all further calls are those that choose the first step
    assert bool(((sol.stats.evaluations - 2 * tried) <= 4).all())


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [s for s in SAMPLERS if not isinstance(s, GottaGoFast)], ids=name)
def test_an_equation_without_an_affine_process_is_refused(solver):
    with pytest.raises(Incompatible, match="probability_flow"):
        solve(ODE(lambda t, x: -x), torch.ones(2, 1), 1.0, 0.0, solver=solver, steps=FixedSteps(3))


def test_any_affine_process_will_do():
    process = AffineProcess(lambda t: 1 / (1 + t), lambda t: 40.0 * t**2, t_min=0.02)
    data = GaussianMixture(normals(3, 4), 0.5)
    flow, x = probability_flow(process, data.score(process)), process.prior_sample((8, 4), seed=2, dtype=torch.float64)
    exact = sample(flow, x, AngularAdams(4), angle_grid(process, 400))
    for solver in (AngularAdams(3), DEIS(3), EDMHeun()):
        assert error(sample(flow, x, solver, angle_grid(process, 100)), exact) < 2e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(eta=1.5), "between 0 and 1"),
        (lambda: DPMSolver(4), "1, 2 or 3"),
        (lambda: DPMSolverPP(0), "from 1 to 3"),
        (lambda: DPMSolverPP(2, eta=-1.0), "eta must be 0 or more"),
        (lambda: DEIS(7), "from 1 to 4"),
        (lambda: UniPC(True), "from 1 to 3"),
        (lambda: SASolver(2, 1), "corrector"),
        (lambda: AngularAdams(3, sigma_data=0.0), "positive"),
        (lambda: SEEDS(3), "1 or 2"),
        (lambda: EDMHeun(gamma=0.5), "0.414"),
        (lambda: EDMHeun(noise_scale=0.0), "positive"),
        (lambda: Restart(DDIM(), low=2.0, high=1.0), "0 < low < high"),
        (lambda: Restart(DDIM(), low=0.1, high=1.0, repeats=0), "1 or more"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_more_noise_than_ddim_has_is_refused():
    process = VP()
    with pytest.raises(Incompatible, match="DPMSolverPP"):
        sample(reverse(process, lambda t, x: -x, churn=1.5), normals(2, 2), DDIM(), log_snr_grid(process, 3))
