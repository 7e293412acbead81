"""Measured orders of convergence.

    strong error at step h   E|X_h(t) − X(t)|, both along the same Brownian path
    weak error               |E φ(X_h(t)) − E φ(X(t))| for a test function φ
    order                    slope of log error against log h, by least squares, with a bootstrap interval over paths

Reference: Kloeden, Platen (1992), §9.3 and §9.4; Efron, Tibshirani (1993), "An Introduction to the Bootstrap", §13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..protocols import Noise, Solver, sample_norm
from ..save import SaveAt
from ..solution import Stats
from ..solve import solve
from ..steps import FixedSteps
from .path import RecordedPath
from .problem import Moment, Problem, reflected
from .reference import fine_solution
from .special import posed


class OrderFit(NamedTuple):
    """A fitted order and the bounds of its bootstrap interval; infinite where the error is rounding alone."""

    order: float
    low: float
    high: float


@dataclass(frozen=True)
class Errors:
    """Errors of one solver on one problem at several step sizes.

    steps: numbers of steps over the span.  h: step sizes `(L,)`.
    paths: `(L, B)`, error of every path at the end; strong errors are norms, weak errors have a sign.
    saved: `(L, S, B)`, the same at the save times, None where there were none.
    drift_calls, diffusion_calls: evaluations of f and of G of each solve.  scale: typical size of the solution.
    """

    steps: tuple[int, ...]
    h: Tensor
    paths: Tensor
    saved: Tensor | None
    drift_calls: tuple[int, ...]
    diffusion_calls: tuple[int, ...]
    scale: float

    @property
    def mean(self) -> Tensor:
        """`|mean over paths|`, `(L,)`: the strong or weak error."""
        return self.paths.mean(-1).abs()

    def between(self) -> Errors:
        """The same study looked at between the steps: each path's error is its mean over the save times."""
        if self.saved is None:
            raise ValueError("these errors hold no save times: call strong_errors(…, save_times=[…])")
        return replace(self, paths=self.saved.mean(1), saved=None)

    @property
    def standard_error(self) -> Tensor:
        """Standard error of `mean`, `(L,)`."""
        return self.paths.std(-1) / math.sqrt(max(1, self.paths.shape[-1]))


def _nodes(problem: Problem, steps: Sequence[int], save_times: Sequence[float]) -> Tensor:
    """Elapsed times at which the path is recorded: all step grids, the finest one refined, and the save times."""
    counts = sorted({*steps, max(steps) * problem.refine})
    grids = [torch.linspace(0.0, problem.length, n + 1, dtype=torch.float64) for n in counts]
    saved = torch.tensor([abs(t - problem.t0) for t in save_times], dtype=torch.float64)
    times = torch.cat((*grids, saved)).sort().values
    return times[torch.cat((torch.ones(1, dtype=torch.bool), times.diff() > 1e-9 * problem.length))]


def record(
    problem: Problem, steps: Sequence[int], batch: int, seed: int, save_times: Sequence[float] = ()
) -> RecordedPath:
    """A path for solves of the problem with the given numbers of steps, and for its values at the save times."""
    shape = problem.noise_shape(batch) or (batch, 0)
    return RecordedPath(problem.t0, _nodes(problem, steps, save_times), shape, seed)


@dataclass(frozen=True)
class Experiment:
    """A problem with its paths and true solutions, ready to try solvers on: what all of them share is computed once.

    steps: numbers of steps, such as (16, 32, 64, 128).  batch: number of paths.
    save_times: times strictly inside the span, in the order of travel; they need not lie on any grid.
    path, x0, truth: the recorded path, the initial states, and the solutions at the save times and at the end.
    """

    problem: Problem
    steps: tuple[int, ...]
    seed: int
    save_times: tuple[float, ...]
    path: RecordedPath
    x0: Tensor
    truth: tuple[Tensor, ...]

    @classmethod
    def of(
        cls,
        problem: Problem,
        steps: Sequence[int],
        batch: int,
        seed: int = 0,
        save_times: Sequence[float] | None = None,
    ) -> Experiment:
        """Draw the paths and find the true solutions along them."""
        times = tuple(save_times or ())
        path, x0 = record(problem, steps, batch, seed, times), problem.x0(batch)
        return cls(problem, tuple(steps), seed, times, path, x0, tuple(_truth(problem, path, x0, [*times, problem.t1])))

    def reflected(self) -> Experiment:
        """The mirror image in time, along the same path taken in the other direction of time."""
        whole = self.problem.t0 + self.problem.t1
        times = tuple(whole - t for t in self.save_times)
        mirrored = reflected(self.problem)
        return replace(self, problem=mirrored, save_times=times, path=self.path.starting_at(mirrored.t0))

    def strong_errors(self, solver: Solver) -> Errors:
        """`|X_h(t) − X(t)|` path by path (Euclidean norm over the state), at the end and at the save times."""
        ends: list[Tensor] = []
        saved: list[list[Tensor]] = []
        counts: list[Stats] = []
        for n in self.steps:
            inner, end, stats = self.run(solver, n)
            ends.append(_distance(end, self.truth[-1]))
            saved.append([_distance(x, exact) for x, exact in zip(inner, self.truth[:-1], strict=True)])
            counts.append(stats)
        scale = float(self.truth[-1].abs().mean())
        return _collect(self.problem, self.steps, ends, saved if self.save_times else None, counts, scale)

    def run(self, solver: Solver, n: int) -> tuple[list[Tensor], Tensor, Stats]:
        """(states at the save times, state at the end, counts)."""
        problem, times = self.problem, self.save_times
        solution = solve(
            posed(problem.sde, solver),
            self.x0,
            problem.t0,
            problem.t1,
            solver=solver,
            steps=FixedSteps(n),
            save=SaveAt(times=[*times, problem.t1]) if times else None,
            seed=self.seed,
            path=None if problem.noise is Noise.NONE else self.path,
        )
        return (list(solution.x[:-1]), solution.x[-1], solution.stats) if times else ([], solution.x, solution.stats)


def _truth(problem: Problem, path: RecordedPath, x0: Tensor, times: Sequence[float]) -> list[Tensor]:
    elapsed = [abs(t - problem.t0) for t in times]
    if problem.exact is not None:
        return [problem.exact(path, x0, s) for s in elapsed]
    return fine_solution(problem, path, x0, elapsed)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return sample_norm(x - y).flatten()


def strong_errors(
    problem: Problem,
    solver: Solver,
    steps: Sequence[int],
    batch: int,
    seed: int = 0,
    save_times: Sequence[float] | None = None,
) -> Errors:
    """Strong errors of one solver on one problem; arguments as in `Experiment`."""
    return Experiment.of(problem, steps, batch, seed, save_times).strong_errors(solver)


def weak_errors(
    problem: Problem, solver: Solver, steps: Sequence[int], batch: int, seed: int = 0, chunk: int = 65536
) -> Errors:
    """`φ(X_h) − E φ(X)` path by path, with φ of the exact solution on the same path as control variate.

    The values are `φ(X_h) − β (φ(X) − E φ(X)) − E φ(X)` with the least-squares β, or β = 1 where only the exact path
    and not E φ(X) is known; their mean is the weak error. The closer a solver is to the path, the smaller the variance.

    batch: number of paths, run in chunks of `chunk`.  Raises ValueError for a problem without a `moment`.
    """
    moment = problem.moment
    if moment is None:
        raise ValueError(f"problem {problem.name!r} has no test function: give it a Moment")
    values: list[list[Tensor]] = [[] for _ in steps]
    controls: list[Tensor] = []
    counts: list[Stats] = []
    for number, low in enumerate(range(0, batch, chunk)):
        size, key = min(chunk, batch - low), seed + 7919 * number
        trial = Experiment(problem, tuple(steps), key, (), record(problem, steps, size, key), problem.x0(size), ())
        controls.append(_control(problem, moment, trial.path, trial.x0))
        counts = []
        for level, n in enumerate(steps):
            _, end, stats = trial.run(solver, n)
            values[level].append(moment.of(end))
            counts.append(stats)
    control = torch.cat(controls)
    mean = None if moment.mean is None else moment.mean(problem.length)
    errors = [_controlled(torch.cat(v), control, mean) for v in values]
    # a moment may be zero by symmetry or by chance: the spread of φ is a scale too
    scale = 1.0 if mean is None else max(abs(mean), float(control.std()), 1e-3)
    return _collect(problem, steps, errors, None, counts, scale)


def _control(problem: Problem, moment: Moment, path: RecordedPath, x0: Tensor) -> Tensor:
    if moment.control is not None:
        return moment.control(path, x0, problem.length)
    if problem.exact is not None:
        return moment.of(problem.exact(path, x0, problem.length))
    return torch.zeros(len(x0), dtype=torch.float64)


def _controlled(value: Tensor, control: Tensor, mean: float | None) -> Tensor:
    if mean is None:
        return value - control
    spread = (control - control.mean()).square().mean()
    if float(spread) == 0.0:
        return value - mean
    slope = ((value - value.mean()) * (control - control.mean())).mean() / spread
    return value - slope * (control - mean) - mean


def _collect(
    problem: Problem,
    steps: Sequence[int],
    ends: list[Tensor],
    saved: list[list[Tensor]] | None,
    counts: list[Stats],
    scale: float,
) -> Errors:
    return Errors(
        tuple(steps),
        torch.tensor([problem.length / n for n in steps], dtype=torch.float64),
        torch.stack(ends),
        None if saved is None else torch.stack([torch.stack(row) for row in saved]),
        tuple(s.drift_calls for s in counts),
        tuple(s.diffusion_calls for s in counts),
        scale,
    )


ROUNDING = 2e-14
"""Relative error below which a value is rounding and says nothing of the order."""

_ASYMPTOTIC = 0.05
"""Relative deviation from a pure power of h that a fit allows an error whose sampling error is nil."""


def fit_order(errors: Errors, *, level: float = 0.95, resamples: int = 500, seed: int = 0) -> OrderFit:
    """Slope of log|mean error| against log h by least squares, with a percentile bootstrap interval over paths.

    A step size weighs 1/(r² + 0.05²), r the relative standard error of its mean: the same for all in a strong study,
    little where a weak error drowns in sampling noise.

    level: coverage of the interval.  For the order between steps pass `errors.between()`.
    Step sizes at which the error is rounding (below `ROUNDING` times the scale of the solution) are left out; if fewer
    than two are left the order is infinite.
    """
    mean = errors.mean
    keep = mean > ROUNDING * max(errors.scale, 1e-300)
    if int(keep.sum()) < 2:
        return OrderFit(math.inf, math.inf, math.inf)
    x, values, mean = errors.h[keep].log(), errors.paths[keep], mean[keep]
    relative = errors.standard_error[keep] / mean if values.shape[1] > 1 else torch.zeros_like(mean)
    weight = 1.0 / (relative.square() + _ASYMPTOTIC**2)
    x = weight * (x - (weight * x).sum() / weight.sum())
    coefficients = x / (x * errors.h[keep].log()).sum()
    slope = float((coefficients * mean.log()).sum())
    slopes = _resampled_means(values, resamples, seed).abs().clamp(min=1e-300).log() @ coefficients
    tail = 0.5 * (1.0 - level)
    low, high = torch.quantile(slopes, torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return OrderFit(slope, float(low), float(high))


def _resampled_means(values: Tensor, resamples: int, seed: int) -> Tensor:
    """Means over paths drawn with replacement, `(resamples, L)`; block by block, to hold memory down."""
    count = values.shape[1]
    generator = torch.Generator().manual_seed(seed)
    means: list[Tensor] = []
    for low in range(0, resamples, 50):
        size = min(50, resamples - low)
        drawn = torch.randint(count, (size, count), generator=generator)
        times = torch.zeros(size, count, dtype=values.dtype)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        means.append(times @ values.T / count)
    return torch.cat(means)


class Work(NamedTuple):
    """Cost and error of one solve: evaluations of drift and diffusion together, and the mean error."""

    evaluations: int
    error: float


def work_precision(errors: Errors) -> list[Work]:
    """Evaluations of f and G against error, one entry a step size."""
    calls = zip(errors.drift_calls, errors.diffusion_calls, errors.mean, strict=True)
    return [Work(f + g, float(error)) for f, g, error in calls]
