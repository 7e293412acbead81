"""Time grids of affine processes, against their formulas."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from sdekit.scores import probability_flow
from sdekit.sdes.diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from sdekit.sdes.process import AffineProcess, DiffusionProcess
from sdekit.solve import solve
from sdekit.solvers import DDIM, AngularAdams, UniPC, denoise
from sdekit.steps.grids import (
    angle_grid,
    density_grid,
    karras_grid,
    log_snr_grid,
    polyexponential_grid,
    quadratic_grid,
    sigma_grid,
    uniform_grid,
)

CUSTOM = AffineProcess(lambda t: 1 / (1 + t), lambda t: 3 * t)
PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), CUSTOM]
GRIDS = [uniform_grid, quadratic_grid, log_snr_grid, karras_grid, polyexponential_grid, angle_grid]
WITH_ZERO = [VP(), SubVP(), EDM(), Cosine(), RectifiedFlow()]


def levels(process: DiffusionProcess, grid: object) -> torch.Tensor:
    return process.log_sigma(torch.tensor(grid.times, dtype=torch.float64))  # type: ignore[attr-defined]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("make", GRIDS, ids=lambda g: g.__name__)
def test_n_steps_asked_is_n_steps_strictly_monotone_with_exact_ends(make, process):
    for n in (1, 2, 7, 100, 1000):
        times = make(process, n).times
        assert len(times) == n + 1
        assert (times[0], times[-1]) == (process.t_max, process.t_min)
        assert all(a > b for a, b in pairwise(times))


@pytest.mark.parametrize("make", GRIDS, ids=lambda g: g.__name__)
def test_a_grid_asked_the_other_way_round_has_the_same_times(make):
    process = VP()
    down, up = make(process, 9), make(process, 9, t0=process.t_min, t1=process.t_max)
    assert up.times == down.times[::-1]


@pytest.mark.parametrize("process", WITH_ZERO, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("make", GRIDS, ids=lambda g: g.__name__)
def test_the_last_of_n_steps_may_go_to_no_noise_at_all(make, process):
    for n in (1, 2, 12):
        times = make(process, n, final="zero").times
        assert len(times) == n + 1
        assert float(process.log_sigma(times[-1])) == -math.inf
        if n > 1:
            assert times[:-1] == make(process, n - 1).times


def test_a_process_that_never_reaches_zero_noise_says_what_to_do_instead():
    with pytest.raises(ValueError, match="denoise"):
        log_snr_grid(VE(), 10, final="zero")


def test_the_last_step_to_zero_noise_is_the_denoiser():
    process = VP()

    def score(t, x):
        return -x / (process.std(t) ** 2 + 0.3 * process.scale(t) ** 2)

    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow = probability_flow(process, score)
    for solver in (DDIM(), UniPC(3)):
        grid = karras_grid(process, 9, final="zero")
        zero = solve(flow, x, grid.times[0], grid.times[-1], solver=solver, steps=grid)
        stop = karras_grid(process, 8)
        there = solve(flow, x, stop.times[0], stop.times[-1], solver=solver, steps=stop)
        # UniPC corrects the last state once it knows its score, which `denoise` alone does not
        tolerance = 1e-12 if isinstance(solver, DDIM) else 1e-3
        denoised = denoise(process, score, process.t_min, there.x)
        torch.testing.assert_close(zero.x, denoised, rtol=tolerance, atol=tolerance)
        assert zero.stats.model_calls == 9


def test_grids_follow_their_formulas():
    process, n = EDM(sigma_min=0.002, sigma_max=80.0), 17
    u = torch.arange(n + 1, dtype=torch.float64) / n
    karras = (80 ** (1 / 7) + u * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    expected = {
        karras_grid: karras,
        log_snr_grid: 80 ** (1 - u) * 0.002**u,
        uniform_grid: 80 + u * (0.002 - 80),
        quadratic_grid: (80**0.5 + u * (0.002**0.5 - 80**0.5)) ** 2,
        lambda p, n: polyexponential_grid(p, n, rho=2.0): 0.002 * torch.exp((1 - u) ** 2 * math.log(80 / 0.002)),
    }
    for make, sigma in expected.items():
        torch.testing.assert_close(levels(process, make(process, n)).exp(), sigma, rtol=1e-11, atol=0.0)


def test_noise_levels_are_the_same_for_all_processes():
    reference = levels(EDM(), log_snr_grid(EDM(), 10, t0=20.0, t1=0.05))
    for process in (VP(), SubVP(), VE(), Cosine(), RectifiedFlow()):
        ends = [float(process.time(math.log(s))) for s in (20.0, 0.05)]
        found = levels(process, log_snr_grid(process, 10, t0=ends[0], t1=ends[1]))
        torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-9)


def test_angle_grid_takes_equal_steps_of_its_clock():
    process, c, tail = VP(), 0.7, 0.03
    log_sigma = levels(process, angle_grid(process, 40, c, tail))
    steps = (torch.atan(log_sigma.exp() / c) + tail * log_sigma).diff()
    torch.testing.assert_close(steps, steps.mean().expand(40), rtol=1e-4, atol=0.0)


def test_density_grid_shares_its_integral_equally():
    process = VE()
    log_sigma = levels(process, density_grid(process, 25, lambda v: 1.0 + v.square()))
    mass = (log_sigma + log_sigma**3 / 3).diff()
    torch.testing.assert_close(mass, mass.mean().expand(25), rtol=1e-4, atol=0.0)


def test_given_noise_levels_make_a_grid():
    process = EDM()
    assert sigma_grid(process, [80.0, 3.0, 0.5, 0.0]).times == pytest.approx((80.0, 3.0, 0.5, 0.0))
    with pytest.raises(ValueError, match="0 or more"):
        sigma_grid(process, [1.0, -0.5])


def test_a_solve_runs_as_many_steps_as_the_grid_was_asked_for():
    process = RectifiedFlow()
    flow = probability_flow(process, lambda t, x: -x)
    x = torch.ones(2, 3)
    for n in (1, 5, 33):
        sol = solve(flow, x, process.t_max, process.t_min, solver=AngularAdams(2), steps=angle_grid(process, n))
        assert sol.stats.accepted.tolist() == [n, n]
        assert sol.stats.model_calls == n


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_snr_grid(VP(), 0), "1 or more"),
        (lambda: log_snr_grid(VP(), 2.5), "1 or more"),
        (lambda: log_snr_grid(VP(), 3, t0=0.5, t1=0.5), "two different ends"),
        (lambda: log_snr_grid(VP(), 3, final="end"), "'stop'"),
        (lambda: log_snr_grid(VP(), 3, t0=0.1, t1=0.9, final="zero"), "towards the data"),
        (lambda: log_snr_grid(VP(), 3, t1=0.0), "infinite"),
        (lambda: karras_grid(VP(), 3, rho=0.0), "positive"),
        (lambda: angle_grid(VP(), 3, sigma_data=-1.0), "positive"),
        (lambda: angle_grid(VP(), 3, tail=-1.0), "0 or more"),
        (lambda: density_grid(VP(), 3, lambda v: v), "positive and finite"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
