"""The sampler benchmark's claims in small: a mixture of four Gaussians in R¹⁶, errors against the converged flow."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit.analytic import GaussianMixture
from sdekit.scores import Ancestral, Langevin, PredictorCorrector, ReverseDiffusion, probability_flow, reverse
from sdekit.sdes.diffusion import EDM, VE, VP, RectifiedFlow, SubVP
from sdekit.solve import solve
from sdekit.solvers import AngularAdams, DPMSolverPP, EDMHeun, SASolver, denoise
from sdekit.steps import FixedSteps
from sdekit.steps.grids import angle_grid, log_snr_grid

PROCESSES: dict[str, Any] = {"VP": VP(), "SubVP": SubVP(), "VE": VE(), "EDM": EDM(), "RectifiedFlow": RectifiedFlow()}


@cache
def law() -> GaussianMixture:
    return GaussianMixture(torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 0.25)


@cache
def converged(name: str) -> tuple[Any, Tensor, Tensor]:
    process = PROCESSES[name]
    flow = probability_flow(process, law().score(process))
    x = process.prior_sample((48, 16), seed=1, dtype=torch.float64)
    return flow, x, run(flow, x, AngularAdams(4), angle_grid(process, 800))


def run(sde: Any, x: Tensor, solver: Any, grid: Any, **more: Any) -> Tensor:
    return solve(sde, x, grid.times[0], grid.times[-1], solver=solver, steps=grid, **more).x


def median_error(name: str, solver: Any, make: Any, n: int) -> float:
    flow, x, exact = converged(name)
    return float((run(flow, x, solver, make(PROCESSES[name], n)) - exact).square().mean(1).sqrt().median())


@pytest.mark.parametrize(("calls", "limit"), [(10, 9e-3), (20, 1e-3), (50, 3e-5)])
def test_variance_preserving_flow_is_followed_within_the_targets(calls, limit):
    assert median_error("VP", AngularAdams(3), angle_grid, calls) < limit


@pytest.mark.parametrize("calls", [5, 10, 20, 50, 100])
@pytest.mark.parametrize("name", ["SubVP", "VE", "EDM", "RectifiedFlow"])
def test_angular_adams_is_ahead_of_third_order_on_the_log_snr_grid(name, calls):
    usual = median_error(name, DPMSolverPP(3), log_snr_grid, calls)
    mine = median_error(name, AngularAdams(2 if calls < 10 else 3), angle_grid, calls)
    assert mine < usual / 1.5


@pytest.mark.parametrize("name", ["VP", "VE"])
@pytest.mark.parametrize("solver", [DPMSolverPP(2), SASolver(3, 4), AngularAdams(2)], ids=lambda s: type(s).__name__)
def test_samples_with_noise_have_the_components_width_and_weights(solver, name):
    process, n = PROCESSES[name], 3000
    x = process.prior_sample((n, 16), seed=2, dtype=torch.float64)
    found = run(reverse(process, law().score(process)), x, solver, log_snr_grid(process, 100), seed=4)
    at_end = law().at(process, process.t_min)
    component = at_end.responsibilities(found).argmax(1)
    inner = (found - at_end.means[component]).square().mean().sqrt()
    exact = float((0.25 * process.scale(process.t_min)).hypot(process.std(process.t_min)))
    assert float(inner) / exact == pytest.approx(1.0, abs=0.005 + 4 / (2 * 16 * n) ** 0.5)
    share = component.bincount(minlength=4) / n
    assert float((share - 0.25).abs().max()) < 4 * (0.25 * 0.75 / n) ** 0.5 + 0.01


def test_a_denoising_step_takes_the_last_noise_away():
    process = EDM(sigma_min=0.1)
    flow = probability_flow(process, law().score(process))
    x = process.prior_sample((2000, 16), seed=3, dtype=torch.float64)
    end = run(flow, x, EDMHeun(), angle_grid(process, 40))
    clean = denoise(process, flow.score, process.t_min, end)
    component = law().responsibilities(clean).argmax(1)
    # D shrinks a component's width c to c²/√(c² + σ²)
    inner = float((clean - law().means[component]).square().mean().sqrt())
    assert inner == pytest.approx(0.25**2 / (0.25**2 + 0.1**2) ** 0.5, rel=0.01)


def test_predictors_of_the_paper_converge_to_the_same_law():
    process, n = VE(), 600
    x = process.prior_sample((n, 16), seed=2, dtype=torch.float64)
    sde = reverse(process, law().score(process))
    for solver in (ReverseDiffusion(), Ancestral(), PredictorCorrector(ReverseDiffusion(), Langevin(0.05))):
        found = solve(sde, x, process.t_max, process.t_min, solver=solver, steps=FixedSteps(300), seed=1).x
        at_end = law().at(process, process.t_min)
        inner = (found - at_end.means[at_end.responsibilities(found).argmax(1)]).square().mean().sqrt()
        assert float(inner) / 0.25 == pytest.approx(1.0, abs=0.04)
