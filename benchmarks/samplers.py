"""Samplers on exact scores: `python -m benchmarks.samplers [--size full|short|fast] [--out DIR]`.

The target is a mixture of four Gaussians in R¹⁶ (component standard deviation 0.25, means standard normal from a fixed
seed), float64. Every sampler of the flow starts from the same 256 states at t_max and is compared, sample by sample, with
the converged solution of the probability flow at t_min: the figure is the median of the samples' RMSE. Samplers with
noise are judged by sliced Wasserstein distance to exact samples, and by the standard deviation that they give a Gaussian,
which is computed without sampling. The budget is in calls of the score; of adaptive samplers, which take steps of every
sample's own, the mean is what counts. The bias of Langevin correctors is measured on a Gaussian at 1000 steps.

Writes samplers.json, samplers.md and samplers_*.png. Schedulers of diffusers run on the same scores and starts where that
package is installed. Grids of `optimal_grid` and choices of `tune` are found on other starts than those they are judged on.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.samplers_report import draw, write_tables
from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.protocols import Increment, Levy, Noise
from sdekit.scores.budget import steps_within
from sdekit.scores.correctors import Langevin
from sdekit.scores.pilot import Pilots
from sdekit.scores.predictor_corrector import PredictorCorrector
from sdekit.scores.predictors import Ancestral, ReverseDiffusion
from sdekit.scores.reverse import probability_flow, reverse
from sdekit.scores.tune import optimal_grid, tune
from sdekit.sdes.diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from sdekit.solve import solve
from sdekit.solvers import (
    SAMPLERS,
    AngularAdams,
    DPMSolver,
    DPMSolverPP,
    EulerMaruyama,
    GottaGoFast,
    UniPC,
)
from sdekit.steps.adaptive import Adaptive
from sdekit.steps.fixed import FixedSteps, TimeGrid
from sdekit.steps.grids import angle_grid, karras_grid, log_snr_grid, quadratic_grid, uniform_grid

RESULTS = Path(__file__).parent / "results"
PROCESSES: dict[str, Any] = {"VP": VP(), "SubVP": SubVP(), "VE": VE(), "EDM": EDM()}
PROCESSES |= {"RectifiedFlow": RectifiedFlow(), "Cosine": Cosine()}
GRIDS = {
    "uniform": uniform_grid,
    "quadratic": quadratic_grid,
    "log-SNR": log_snr_grid,
    "Karras": karras_grid,
    "angle": angle_grid,
}
BUDGETS = (5, 10, 20, 50, 100)
DIMENSION = 16


class Size(NamedTuple):
    """How much is measured: starts of the flow, samples of stochastic samplers, budgets, samples for correctors' bias, and
    the budgets for which grids and samplers are tuned.
    """

    starts: int = 256
    samples: int = 2048
    budgets: tuple[int, ...] = BUDGETS
    bias: int = 32768
    tuned: tuple[int, ...] = BUDGETS


MAIN = ("VP", "SubVP", "VE")
SIZES = {
    "full": Size(),
    "short": Size(starts=96, samples=1024, bias=8192, tuned=(5, 10, 20, 50)),
    "fast": Size(32, 256, (5, 10, 20), 2048, (5, 10, 20)),
}


class Row(NamedTuple):
    """One figure. error: median RMSE, or sliced Wasserstein distance where `noisy`; far: share of samples that err by more
    than a component's standard deviation; std: relative error of a Gaussian's standard deviation, NaN if not measured.
    """

    process: str
    sampler: str
    grid: str
    calls: int
    error: float
    far: float = math.nan
    std: float = math.nan
    noisy: bool = False
    package: str = "sdekit"


def target() -> GaussianMixture:
    """The benchmark's law."""
    means = torch.randn(4, DIMENSION, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return GaussianMixture(means, 0.25)


def label(solver: Any) -> str:
    """The solver as one would type it, with what differs from its defaults in the benchmark."""
    if isinstance(solver, PredictorCorrector):
        return f"{label(solver.predictor)} + Langevin({getattr(solver.corrector, 'snr', '')})"
    names = ("order", "corrector", "eta", "gamma")
    values = [getattr(solver, f.name) for f in dataclasses.fields(solver) if f.name in names]
    kept = [f"{value:g}" for value in values if value is not None]
    return f"{type(solver).__name__}({', '.join(kept)})"


class Flow:
    """The probability flow of one process with its starts and converged ends."""

    def __init__(self, name: str, size: Size) -> None:
        self.name, self.process = name, PROCESSES[name]
        self.score = target().score(self.process)
        self.starts = self.process.prior_sample((size.starts, DIMENSION), seed=1, dtype=torch.float64)
        self.sde = probability_flow(self.process, self.score)
        self.exact, coarser = (self._solve(AngularAdams(4, 0.5), angle_grid(self.process, n)).x for n in (1200, 600))
        self.uncertainty = float((self.exact - coarser).square().mean(1).sqrt().max())

    def _solve(self, solver: Any, grid: TimeGrid) -> Any:
        ends: Any = grid.times
        return solve(self.sde, self.starts, ends[0], ends[-1], solver=solver, steps=grid, on_failure="return")

    def adaptive(self, solver: Any, tolerance: float) -> Row:
        """Steps of every sample's own, as DPM-Solver-12 and -23 take them; calls are the mean over samples."""
        ends, steps = (self.process.t_max, self.process.t_min), Adaptive(rtol=tolerance, atol=0.1 * tolerance)
        solution = solve(self.sde, self.starts, *ends, solver=solver, steps=steps, on_failure="return")
        calls = round(float(solution.stats.evaluations.double().mean()))
        rmse = (solution.x - self.exact).square().mean(1).sqrt()
        far = float((rmse > 0.25).double().mean())
        return Row(self.name, f"{label(solver)} {tolerance:.0e}", "adaptive", calls, float(rmse.median()), far)

    def row(self, solver: Any, name: str, grid: TimeGrid, sampler: str | None = None) -> Row:
        solution = self._solve(solver, grid)
        rmse = (solution.x - self.exact).square().mean(1).sqrt()
        far = float((rmse > 0.25).double().mean())
        calls = solution.stats.model_calls
        return Row(self.name, label(solver) if sampler is None else sampler, name, calls, float(rmse.median()), far)


def flow_rows(name: str, size: Size) -> list[Row]:
    """All samplers of the flow on one process."""
    flow = Flow(name, size)
    rows: list[Row] = []
    for solver in SAMPLERS:
        for budget in size.budgets:
            n = steps_within(solver, budget)
            rows += [flow.row(solver, kind, make(flow.process, n)) for kind, make in GRIDS.items() if n]
    rows += [flow.adaptive(solver, 10.0**-k) for solver in (DPMSolver(2), DPMSolver(3)) for k in (1, 2, 3, 4, 5)]
    pilots = Pilots.of(
        flow.process, flow.score, flow.process.prior_sample((16, DIMENSION), seed=99, dtype=torch.float64)
    )
    for budget in size.tuned:
        for solver in (AngularAdams(2), AngularAdams(3), UniPC(3), DPMSolverPP(3)):
            grid = optimal_grid(flow.process, flow.score, budget, solver, pilots=pilots)
            rows.append(flow.row(solver, "optimal", grid))
        tuned = tune(flow.process, flow.score, budget, pilots=pilots)
        rows.append(flow.row(tuned.solver, "tuned", tuned.steps, sampler="tune"))
    return rows


# --- samplers with noise -------------------------------------------------------------------------------------------------


class UnitNoises:
    """Sample 0 has no noise; every other one a single unit normal: W of one step, or √12 H of one step."""

    def __init__(self, n: int) -> None:
        self.n = n

    def increment(self, span: Any, like: Tensor, levy: Levy) -> Increment:
        w, h = torch.zeros_like(like), torch.zeros_like(like)
        w[1 + span.index], h[1 + self.n + span.index] = abs(span.h) ** 0.5, (abs(span.h) / 12.0) ** 0.5
        return Increment(w, h)


def gaussian_std_error(process: Any, solver: Any, grid: TimeGrid, std: float = 0.25) -> float:
    """Relative error of the standard deviation at t_min for data N(0, std²): the sampler is linear there, so that the
    variance is the sum of squares of its answers to unit noises, and no sampling is needed.
    """
    ends: Any = grid.times
    n = len(ends) - 1
    sde = reverse(process, GaussianData(torch.zeros(1, dtype=torch.float64), std=std).score(process))
    x = torch.zeros(1 + 2 * n, 1, dtype=torch.float64)
    x[0] = (std * process.scale(ends[0])).hypot(process.std(ends[0]))
    path: Any = UnitNoises(n)  # which no solver here asks for a part of a step
    found = solve(sde, x, ends[0], ends[-1], solver=solver, steps=grid, path=path).x
    exact = (std * process.scale(ends[-1])).hypot(process.std(ends[-1]))
    return float(found.square().sum().sqrt() / exact) - 1.0


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 128) -> float:
    """Mean over directions of the Wasserstein-1 distance of the projections of two samples of one size."""
    generator = torch.Generator().manual_seed(7)
    lines = torch.randn(directions, x.shape[1], dtype=x.dtype, generator=generator)
    lines = lines / lines.norm(dim=1, keepdim=True)
    return float(((x @ lines.T).sort(0).values - (y @ lines.T).sort(0).values).abs().mean())


def noisy_solvers(name: str) -> Iterator[tuple[Any, str, bool]]:
    """(solver, grid, whether it is linear on linear problems) of the reverse SDE."""
    for solver in (EulerMaruyama(), *(s for s in SAMPLERS if Noise.ADDITIVE in s.orders)):
        for grid in ("log-SNR", "angle"):
            yield solver, grid, True
    yield ReverseDiffusion(), "uniform", True
    if name in ("VP", "VE", "EDM"):
        yield Ancestral(), "uniform", True
    yield PredictorCorrector(ReverseDiffusion(), Langevin(0.16)), "uniform", False
    yield PredictorCorrector(AngularAdams(2), Langevin(0.05)), "angle", False


def noisy_rows(name: str, size: Size) -> list[Row]:
    """All samplers of the reverse SDE on one process, and the distance between two exact samples."""
    process, law = PROCESSES[name], target()
    shape = (size.samples, DIMENSION)
    at_end = law.at(process, process.t_min)
    exact, other = at_end.sample(size.samples, seed=5), at_end.sample(size.samples, seed=6)
    rows = [Row(name, "exact samples", "", 0, sliced_wasserstein(exact, other), noisy=True)]
    sde, starts = reverse(process, law.score(process)), process.prior_sample(shape, seed=1, dtype=torch.float64)
    for solver, kind, linear in noisy_solvers(name):
        for budget in size.budgets:
            n = steps_within(solver, budget, stochastic=True)
            grid = GRIDS[kind](process, n)
            try:
                solution = solve(
                    sde, starts, process.t_max, process.t_min, solver=solver, steps=grid, seed=3, on_failure="return"
                )
                std = gaussian_std_error(process, solver, grid) if linear else math.nan
            except ValueError:  # predictors of the discrete processes refuse steps with β h ≥ 1
                continue
            error = sliced_wasserstein(solution.x, exact)
            rows.append(Row(name, label(solver), kind, solution.stats.model_calls, error, std=std, noisy=True))
    for tolerance in (0.1, 0.03, 0.01, 0.003):
        steps = Adaptive(rtol=tolerance, atol=0.3 * tolerance, pid=(0.0, 1.35, 0.0))
        part = starts[: size.samples // 4]  # a Brownian tree costs more than the score here
        solution = solve(
            sde, part, process.t_max, process.t_min, solver=GottaGoFast(), steps=steps, on_failure="return"
        )
        calls = round(float(solution.stats.evaluations.double().mean()))
        error = sliced_wasserstein(solution.x, exact[: len(part)])
        rows.append(Row(name, f"GottaGoFast() {tolerance:g}", "adaptive", calls, error, noisy=True))
    return rows


# --- the bias of correctors ------------------------------------------------------------------------------------------

CORRECTORS: dict[str, Any] = {
    "none": None,
    "Langevin(), corrected": Langevin(),
    "Langevin(corrected=False)": Langevin(corrected=False),
    'Langevin(compat="song2021")': Langevin(compat="song2021"),
}


def bias_rows(name: str, size: Size) -> list[dict[str, Any]]:
    """Relative error of the standard deviation of N(0, 0.5²) in R¹⁶ after 1000 predictor–corrector steps, by sampling."""
    process, data = PROCESSES[name], GaussianData(torch.zeros(DIMENSION, dtype=torch.float64), std=0.5)
    exact = float(data.at(process, process.t_min).covariance.diagonal().mean().sqrt())

    def score(t: Tensor, x: Tensor) -> Tensor:  # the law's own, without the detour over mixtures
        return x / -((0.5 * process.scale(t)) ** 2 + process.std(t) ** 2)

    x = process.prior_sample((size.bias, DIMENSION), seed=1, dtype=torch.float32)
    found = []
    for word, corrector in CORRECTORS.items():
        solver = ReverseDiffusion() if corrector is None else PredictorCorrector(ReverseDiffusion(), corrector)
        ends = (process.t_max, process.t_min)
        end = solve(reverse(process, score), x, *ends, solver=solver, steps=FixedSteps(1000), seed=2).x
        error = float(end.double().square().mean().sqrt()) / exact - 1.0
        found.append({"process": name, "corrector": word, "error": error, "uncertainty": (2.0 * x.numel()) ** -0.5})
    return found


# --- all of it -----------------------------------------------------------------------------------------------------------


def work(job: tuple[str, str, Size]) -> list[Any]:
    """Rows of a job; of a corrector's bias, dictionaries."""
    torch.set_num_threads(1)
    kind, name, size = job
    if kind == "bias":
        return bias_rows(name, size)
    if kind == "diffusers":
        from benchmarks.samplers_peer import peer_rows

        return [Row(**row) for row in peer_rows(target(), size.starts, size.budgets)]
    return flow_rows(name, size) if kind == "flow" else noisy_rows(name, size)


def settings(size: Size) -> dict[str, Any]:
    """What a reader needs to make the figures again."""
    ends = {
        name: {"process": repr(p), "sigma at t_max": float(p.sigma(p.t_max)), "sigma at t_min": float(p.sigma(p.t_min))}
        for name, p in PROCESSES.items()
    }
    doubt = {name: Flow(name, Size(starts=16)).uncertainty for name in PROCESSES}
    return {
        "target": "4 Gaussians in R^16, std 0.25, means randn(4, 16) from seed 0, float64",
        "size": size._asdict(),
        "processes": ends,
        "error of the converged solution": doubt,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full", help="how much is measured")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    size, start = SIZES[options.size], time.time()
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs = [("flow", name, size) for name in PROCESSES] + [("noisy", name, size) for name in MAIN]
    jobs += [("bias", name, size) for name in MAIN]
    if importlib.util.find_spec("diffusers"):
        jobs.append(("diffusers", "VP", size))
    else:
        print("diffusers is not installed: its schedulers are left out")
    with multiprocessing.get_context("spawn").Pool(min(len(jobs), os.cpu_count() or 1)) as pool:
        found = []
        for (kind, name, _), part in zip(jobs, pool.imap(work, jobs, chunksize=1), strict=True):
            print(f"{kind}, {name}: {len(part)} figures after {time.time() - start:.0f} s", flush=True)
            found += part
    rows = [row._asdict() for row in found if isinstance(row, Row)]
    bias = [row for row in found if not isinstance(row, Row)]
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"settings": settings(size), "rows": rows, "bias": bias}
    (options.out / "samplers.json").write_text(json.dumps(record, indent=0, allow_nan=True) + "\n")
    print(write_tables(record, options.out / "samplers.md"))
    draw(record, options.out)
    print(f"{len(rows)} figures in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
