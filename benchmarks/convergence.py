"""Measures every claimed order: `python -m benchmarks.convergence [--fast] [--out DIR]`.

Writes convergence.json (every solver × class of noise × direction × problem: fitted order with bootstrap interval, the
claim, errors, evaluations; torchsde on the same paths), convergence.md (the order tables) and convergence_*.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.convergence_peer import methods, torchsde_errors
from benchmarks.convergence_report import draw, write_tables
from sdekit.brownian.area import piece_lengths
from sdekit.convergence import (
    Errors,
    Experiment,
    Problem,
    fit_order,
    problems_for,
    reflected,
    step_numbers,
    weak_errors,
)
from sdekit.convergence.problems import additive_decay, geometric, wave
from sdekit.protocols import Direction, Levy, Noise, Solver
from sdekit.solvers import ALL, SRA1, SRI, STRUCTURED, ItoMilstein

RESULTS = Path(__file__).parent / "results"

# what torchsde reaches at dt = 2⁻⁷: (problem, its method, our solver, root-mean-square error to stay below)
TARGETS = (
    (geometric(0.5, 1.0)[0], "milstein", ItoMilstein(), 2.2e-2),
    (geometric(0.5, 1.0)[0], "srk", SRI(), 6.5e-4),
    (wave(1.0)[0], "milstein", ItoMilstein(), 2.0e-3),
    (wave(1.0)[0], "srk", SRI(), 2.6e-4),
    (additive_decay(), "srk", SRA1(), 2.0e-7),
)


class Size(NamedTuple):
    """How much is measured: paths of strong and weak studies, step sizes of a strong one, problems of a class."""

    strong: int = 400
    weak: int = 16_000
    levels: int = 5
    problems: int | None = None


FAST = Size(strong=200, weak=4000, levels=3, problems=1)


class Study(NamedTuple):
    """One problem and all solvers that claim to solve it."""

    problem: Problem
    weak: bool
    solvers: tuple[Solver, ...]


def label(solver: Solver) -> str:
    """The solver's name with its `order` and `corrector`, if it has them."""
    if not dataclasses.is_dataclass(solver):
        return type(solver).__name__
    kept = [str(getattr(solver, f.name)) for f in dataclasses.fields(solver) if f.name in ("order", "corrector")]
    return f"{type(solver).__name__}({', '.join(kept)})" if kept else type(solver).__name__


def solvers() -> tuple[Solver, ...]:
    """All that make claims."""
    return tuple(kind() for kind in (*ALL, *STRUCTURED))


@cache
def studies(limit: int | None = None) -> tuple[Study, ...]:
    """All that is to be measured, the costly first; the same in every process."""
    found: dict[tuple[str, bool], tuple[Problem, list[Solver]]] = {}
    for solver in solvers():
        for noise in solver.orders:
            for weak in (False, True):
                if weak and noise is Noise.NONE:
                    continue
                for problem in problems_for(solver, noise, weak)[:limit]:
                    found.setdefault((problem.name, weak), (problem, []))[1].append(solver)
    listed = [Study(problem, weak, tuple(able)) for (_, weak), (problem, able) in found.items()]
    return tuple(sorted(listed, key=lambda s: -len(s.solvers) * s.problem.refine * math.prod(s.problem.noise_shape(1))))


# --- one study ------------------------------------------------------------------------------------------


def measure(task: tuple[int, Size]) -> list[dict[str, Any]]:
    """Rows of one study."""
    index, size = task
    study = studies(size.problems)[index]
    return _weak_rows(study, size) if study.weak else _strong_rows(study, size)


def _strong_rows(study: Study, size: Size) -> list[dict[str, Any]]:
    problem, rows = study.problem, []
    motions = math.prod(problem.noise_shape(1))
    batch = 1 if problem.noise is Noise.NONE else max(200, size.strong // max(1, motions // 4))
    times = [problem.t0 + (problem.t1 - problem.t0) * k / 7 for k in range(1, 7)]
    by_steps: dict[tuple[int, ...], list[Solver]] = {}
    for solver in study.solvers:
        steps = step_numbers(problem, solver.orders[problem.noise].strong, size.levels)
        by_steps.setdefault(steps, []).append(solver)
    trials = [Experiment.of(problem, steps, batch, seed=1, save_times=times) for steps in by_steps]
    for forth, able in zip(trials, by_steps.values(), strict=True):
        both = (forth,) if problem.one_way else (forth, forth.reflected())
        for trial in both:
            rows.extend(_row(trial.problem, solver, trial.strong_errors(solver), weak=False) for solver in able)
    peers = () if problem.one_way else methods(problem.noise, problem.calculus)
    return rows + [_peer_row(problem, method, torchsde_errors(trials[-1], method)) for method in peers]


def _weak_rows(study: Study, size: Size) -> list[dict[str, Any]]:
    problem, rows = study.problem, []
    for way in (problem,) if problem.one_way else (problem, reflected(problem)):
        for solver in study.solvers:
            claim, strong = solver.orders[problem.noise].weak, solver.orders[problem.noise].strong
            # a weak order no higher than the strong one follows from it, and needs few paths to be seen
            batch = size.weak // ((8 if claim <= strong else 1) * (4 if problem.refine > 1 else 1))
            # a reverse SDE is stiff near the data
            steps = (16, 32, 64, 128) if claim <= 1.0 or problem.one_way else (8, 16, 32, 64)
            errors = weak_errors(way, solver, steps, batch, seed=3, chunk=10_000)
            rows.append(_row(way, solver, errors, weak=True))
    return rows


def _row(problem: Problem, solver: Solver, errors: Errors, weak: bool) -> dict[str, Any]:
    order = solver.orders[problem.noise]
    calculus = solver.calculus
    return {
        "library": "sdekit",
        "solver": label(solver),
        "calculus": None if calculus is None else calculus.name,
        "claim": order.weak if weak else order.strong,
        "between_steps": None if errors.saved is None else _fit(errors.between()),
        "normals_per_step": _normals(problem, solver, errors),
        **_common(problem, errors, weak),
    }


def _peer_row(problem: Problem, method: str, errors: Errors) -> dict[str, Any]:
    named = {"library": "torchsde", "solver": method, "calculus": problem.calculus.name}
    return {**named, **_common(problem, errors, weak=False)}


def _common(problem: Problem, errors: Errors, weak: bool) -> dict[str, Any]:
    return {
        "kind": "weak" if weak else "strong",
        "noise": problem.noise.name,
        "problem": problem.name.removesuffix(", backward"),
        "direction": "backward" if problem.direction is Direction.BACKWARD else "forward",
        "depends_on_time": not problem.autonomous,
        "truth": "exact" if problem.exact is not None or weak else "fine solution on the same path",
        "paths": errors.paths.shape[-1],
        **_fit(errors),
        "h": errors.h.tolist(),
        "error": errors.mean.tolist(),
        "root_mean_square": errors.paths.square().mean(-1).sqrt().tolist(),
        "standard_error": errors.standard_error.tolist() if errors.paths.shape[-1] > 1 else None,
        "drift_per_step": errors.drift_calls[-1] / errors.steps[-1],
        "diffusion_per_step": errors.diffusion_calls[-1] / errors.steps[-1],
    }


def _fit(errors: Errors) -> dict[str, float | None]:
    """Order and interval; None where the error is rounding alone."""
    fit = fit_order(errors)
    names = ("order", "low", "high")
    return {name: value if math.isfinite(value) else None for name, value in zip(names, fit, strict=True)}


def _normals(problem: Problem, solver: Solver, errors: Errors) -> list[int]:
    """Normals that `solve` draws a step and sample by default, for each step size."""
    motions = math.prod(problem.noise_shape(1)) if problem.noise is not Noise.NONE else 0
    if solver.levy is not Levy.AREA:
        return [motions * (1, 2, 3)[solver.levy]] * len(errors.steps)
    like = torch.empty(1, motions)
    return [2 * motions * len(piece_lengths(h, 1.0, like)) for h in errors.h.tolist()]


def targets(size: Size) -> list[dict[str, Any]]:
    """Errors at dt = 2⁻⁷ beside those of torchsde on the same paths."""
    rows = []
    for problem, method, solver, bound in TARGETS:
        trial = Experiment.of(problem, (8, 16, 32, 64, 128), 2 * size.strong, seed=1)
        ours, theirs = trial.strong_errors(solver), torchsde_errors(trial, method)
        rows.append(
            {
                "problem": problem.name,
                "bound": bound,
                "ours": _peer_summary(label(solver), ours),
                "torchsde": _peer_summary(method, theirs),
                "evaluations_ratio": (ours.drift_calls[-1] + ours.diffusion_calls[-1])
                / (theirs.drift_calls[-1] + theirs.diffusion_calls[-1]),
            }
        )
    return rows


def _peer_summary(name: str, errors: Errors) -> dict[str, Any]:
    return {
        "solver": name,
        "steps": list(errors.steps),
        "error": errors.mean.tolist(),
        "root_mean_square": errors.paths.square().mean(-1).sqrt().tolist(),
        "evaluations": [f + g for f, g in zip(errors.drift_calls, errors.diffusion_calls, strict=True)],
    }


# --- all of them ----------------------------------------------------------------------------------------


def _one_thread() -> None:
    torch.set_num_threads(1)


def run(size: Size, workers: int) -> dict[str, Any]:
    """Everything that goes into convergence.json."""
    start = time.perf_counter()
    tasks = [(i, size) for i in range(len(studies(size.problems)))]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(workers, _one_thread) as pool:
        for i, found in enumerate(pool.imap_unordered(measure, tasks), 1):
            rows.extend(found)
            seconds = time.perf_counter() - start
            print(f"{i}/{len(tasks)} {found[0]['kind']:6} {found[0]['problem']} ({seconds:.0f} s)", flush=True)
    rows.sort(key=lambda r: (r["library"], r["kind"], r["noise"], r["problem"], r["solver"], r["direction"]))
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "workers": workers,
        "seconds": round(time.perf_counter() - start, 1),
        "size": size._asdict(),
        "solvers": [label(solver) for solver in solvers()],
        "targets": targets(size),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one problem a class and few paths")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (default: benchmarks/results)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    _one_thread()
    found = run(FAST if options.fast else Size(), workers=min(2, os.cpu_count() or 1))
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (options.out / "convergence.json").write_text(text + "\n", encoding="utf-8")
    write_tables(found, options.out / "convergence.md")
    draw(found, options.out)
    print(f"wrote convergence.json, convergence.md and plots to {options.out} in {found['seconds']} s")


if __name__ == "__main__":
    main()
