"""The choice of grid, sampler and corrector strength for a budget of score evaluations, by measurement.

Everything is judged on pilot paths, which are solved to convergence first: a sampler of the flow by its distance from
them, a stochastic sampler by the energy distance of its samples from theirs. What it costs is said for each function in
calls of the score on a batch of pilots; it is paid once for a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_integer, check_state
from ..protocols import Score
from ..solve import solve
from ..solvers.exponential_multistep import DEIS, AngularAdams, DPMSolverPP, UniPC
from ..solvers.exponential_single import DPMSolver
from ..steps.fixed import TimeGrid
from ..steps.grids import angle_grid, density_grid, interpolate, karras_grid, log_snr_grid
from .budget import steps_within
from .correctors import Langevin
from .pilot import Pilots, table
from .predictor_corrector import PredictorCorrector
from .predictors import ReverseDiffusion
from .reverse import reverse

_KNOTS = 8
_STRIDES = (0.6, 0.3, 0.15)  # changes of a knot's log-density that are tried, large ones first


def optimal_grid(
    process: Any,
    score: Score,
    n: int,
    solver: Any,
    *,
    shape: tuple[int, ...] | None = None,
    pilots: int | Tensor | Pilots = 16,
    seed: int = 0,
    rounds: int = 1,
) -> TimeGrid:
    """The grid of n steps on which this solver follows the probability flow best.

    First the steps share the local error equally, as it is measured along converged pilot paths. Then the density of nodes
    over ln σ, known by its logarithm at 8 knots, is varied knot by knot as long as the pilots' error at t_min falls.

    solver: a sampler of `probability_flow(process, score)`.  shape: of one sample.
    pilots: their number, or their starts `(P, *shape)` at t_max, or `Pilots` in use already.  seed: of the starts.
    rounds: rounds of variation, each 48 solves of n steps; 0 leaves it at equal local errors.

    Costs about 550 calls of the score for the pilots, and at most 8 + 48·rounds solves of n steps.

    Raises TypeError where neither shape nor starts are given, ValueError for n < 1.
    """
    paths = as_pilots(process, score, shape, pilots, seed)
    order = max(1, round(next(iter(solver.orders.values())).strong))
    starts: list[Callable[[Tensor], Tensor]] = [
        table(*paths.local_error_density(k)) for k in sorted({min(order, 4), min(order, 2), 1})
    ]
    starts += [_angle_density(c * paths.width, tail) for c, tail in ((1.0, 0.05), (0.5, 0.05), (1.0, 0.3))]
    # the usual grids, log-SNR and Karras's: what is found is at least as good for the pilots as they are
    starts += [torch.ones_like, _karras_density]
    grids = [density_grid(process, n, density) for density in starts]
    errors = [paths.error(solver, grid) for grid in grids]
    best = min(range(len(starts)), key=errors.__getitem__)
    if n == 1 or rounds < 1:
        return grids[best]
    return _vary(paths, solver, n, starts[best], errors[best], rounds)


def _angle_density(c: float, tail: float) -> Callable[[Tensor], Tensor]:
    return lambda log_sigma: tail + 0.5 / torch.cosh(log_sigma - math.log(c))


def _vary(
    paths: Pilots, solver: Any, n: int, density: Callable[[Tensor], Tensor], error: float, rounds: int
) -> TimeGrid:
    """Coordinate descent on the logarithm of a factor of the density, linear between knots."""
    process = paths.process
    low, high = (float(process.log_sigma(t)) for t in (process.t_min, process.t_max))
    knots, heights = torch.linspace(low, high, _KNOTS, dtype=torch.float64), torch.zeros(_KNOTS, dtype=torch.float64)

    def grid(heights: Tensor) -> TimeGrid:
        return density_grid(process, n, lambda v: density(v) * interpolate(v.clamp(low, high), knots, heights).exp())

    for _ in range(rounds):
        for stride in _STRIDES:
            for knot in range(_KNOTS):
                for change in (stride, -stride):
                    trial = heights.clone()
                    trial[knot] += change
                    found = paths.error(solver, grid(trial))
                    if found < error:
                        heights, error = trial, found
                        break
    return grid(heights)


def as_pilots(
    process: Any, score: Score, shape: tuple[int, ...] | None, pilots: int | Tensor | Pilots, seed: int
) -> Pilots:
    """Pilots from a number of them, their starts, or themselves."""
    if isinstance(pilots, Pilots):
        return pilots
    if isinstance(pilots, Tensor):
        check_state("pilots", pilots)
        return Pilots.of(process, score, pilots)
    if shape is None:
        raise TypeError("the score does not tell the shape of a sample: give shape=(…), or pilots=starts (P, *shape)")
    check_integer("pilots", pilots, 1)
    return Pilots.of(process, score, process.prior_sample((pilots, *shape), seed=seed, dtype=torch.float64))


@dataclass(frozen=True)
class Trial:
    """One combination that was tried, with its error on the pilots."""

    solver: Any
    grid: str
    error: float


@dataclass(frozen=True)
class Tuned:
    """What `tune` found: solve with `solver` and `steps`, from t_max to t_min.

    error: on the pilots (see the module).  trials: all that was tried, best first.  stochastic: whether it is for
    `reverse(process, score)`, else for `probability_flow(process, score)`.
    """

    solver: Any
    steps: TimeGrid
    error: float
    trials: tuple[Trial, ...]
    stochastic: bool = False


def tune(
    process: Any,
    score: Score,
    budget: int,
    *,
    shape: tuple[int, ...] | None = None,
    pilots: int | Tensor | Pilots | None = None,
    stochastic: bool = False,
    snrs: Sequence[float] = (0.02, 0.05, 0.1, 0.16, 0.25),
    seed: int = 0,
    rounds: int = 1,
) -> Tuned:
    """The sampler and grid, and for stochastic sampling the strength of the corrector, that do best at `budget` calls.

    budget: calls of the score for one sample, 1 or more (2 for a corrector).
    pilots: as in `optimal_grid`; by default 16, and 512 for stochastic sampling.
    stochastic: choose among samplers of the reverse SDE, with noise η of 1 and less, and predictor–correctors with
    the signal-to-noise ratios `snrs`; else among samplers of the flow.
    rounds: of `optimal_grid`, for the three best samplers of the flow; 0 for none.

    Costs about 550 calls for the pilots, and `budget` calls for each of some forty combinations, and what `optimal_grid`
    does for each of three.

    Raises TypeError and ValueError like `optimal_grid`.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget: expected a number of score evaluations of 1 or more, got {budget!r}")
    paths = as_pilots(process, score, shape, (512 if stochastic else 16) if pilots is None else pilots, seed)
    return _tune_noisy(paths, budget, snrs, seed) if stochastic else _tune_flow(paths, budget, rounds)


def _grids(paths: Pilots, n: int) -> dict[str, TimeGrid]:
    process, c = paths.process, paths.width
    return {
        "angle": angle_grid(process, n, c),
        "angle, half width": angle_grid(process, n, 0.5 * c),
        "log-SNR": log_snr_grid(process, n),
        "Karras": karras_grid(process, n),
    }


def _tune_flow(paths: Pilots, budget: int, rounds: int) -> Tuned:
    c = paths.width
    solvers: list[Any] = [AngularAdams(p, share * c) for p in (1, 2, 3, 4) for share in (0.5, 1.0)]
    solvers += [DPMSolverPP(2), DPMSolverPP(3), DEIS(2), DEIS(3), UniPC(2), UniPC(3)]
    found: list[tuple[Trial, TimeGrid]] = []
    for solver in (*solvers, DPMSolver(2), DPMSolver(3)):
        n = steps_within(solver, budget)
        for name, grid in _grids(paths, n).items() if n else ():
            found.append((Trial(solver, name, paths.error(solver, grid)), grid))
    found.sort(key=lambda pair: pair[0].error)
    if rounds:
        for solver in _leaders(found, 3):
            n = steps_within(solver, budget)
            grid = optimal_grid(paths.process, paths.score, n, solver, pilots=paths, rounds=rounds)
            found.append((Trial(solver, "optimal", paths.error(solver, grid)), grid))
        found.sort(key=lambda pair: pair[0].error)
    best, grid = found[0]
    return Tuned(best.solver, grid, best.error, tuple(trial for trial, _ in found))


def _karras_density(log_sigma: Tensor) -> Tensor:
    """That of Karras's grid with ρ = 7, up to a factor."""
    return torch.exp(log_sigma / 7.0)


def _leaders(found: list[tuple[Trial, TimeGrid]], count: int) -> list[Any]:
    """The solvers of the best trials, each once."""
    distinct: list[Any] = []
    for trial, _ in found:
        if trial.solver not in distinct:
            distinct.append(trial.solver)
    return distinct[:count]


def _tune_noisy(paths: Pilots, budget: int, snrs: Sequence[float], seed: int) -> Tuned:
    c, process = paths.width, paths.process
    plain: list[Any] = [solver for eta in (1.0, 0.25) for solver in (AngularAdams(2, c, eta), DPMSolverPP(2, eta))]
    correcting = [PredictorCorrector(ReverseDiffusion(), Langevin(snr)) for snr in snrs] if budget > 1 else []
    sde = reverse(process, paths.score)
    found: list[tuple[Trial, TimeGrid]] = []
    # other noise than the pilots', so that nothing is compared with itself
    starts = process.prior_sample(tuple(paths.starts.shape), seed=seed + 1, dtype=paths.starts.dtype)
    for solver in (*plain, *correcting):
        n = steps_within(solver, budget, stochastic=True)
        for name, grid in _grids(paths, n).items():
            try:
                x = solve(sde, starts, process.t_max, process.t_min, solver=solver, steps=grid, seed=seed).x
                error = energy_distance(x, paths.ends)
            except (ValueError, RuntimeError):  # a predictor that cannot take steps this large
                error = math.inf
            found.append((Trial(solver, name, error), grid))
    found.sort(key=lambda pair: pair[0].error)
    best, grid = found[0]
    return Tuned(best.solver, grid, best.error, tuple(trial for trial, _ in found), stochastic=True)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """`√(2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖)` of two samples, without the zero distances of a point to itself.

    Reference: Székely, Rizzo (2013), J. Stat. Plan. Inference 143(8), equation 2.1.
    """
    a, b = x.flatten(1), y.flatten(1)
    n, m = len(a), len(b)
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return math.sqrt(max(0.0, float(2.0 * torch.cdist(a, b).mean() - within)))
