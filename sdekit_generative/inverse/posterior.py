"""Samples of images given what was observed of them.

    images = restore(model, Inpaint(mask), observed, method=MMPS(), noise=0.05, n=8, seed=0)

Sample j of observation i depends on (seed, first + i, j), n and its own observation only: not on the others, nor on how
many are made at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from sdekit.arguments import check_has, check_integer
from sdekit.random import as_draws
from sdekit.solvers import DPMSolverPP

from ..model import ScoreModel
from ..samplers import Fast, Progress, Route, Sampler, part_of
from .gradients import DPS, MMPS
from .guided import Method, Tally
from .measurement import Measurement, enter
from .operator import Operator


@dataclass(frozen=True)
class Posterior:
    """Samples `(N, n, *shape)` for N observations, and the work that each took.

    network_evaluations  calls of the model for one sample
    gradients            vector–Jacobian products of the model for one sample; each costs about two calls
    """

    samples: Tensor
    network_evaluations: int
    gradients: int

    @property
    def mean(self) -> Tensor:
        """`(N, *shape)`: the estimate of least squared error, if the samples are those of the posterior."""
        return self.samples.mean(1)

    @property
    def std(self) -> Tensor:
        """`(N, *shape)`: the standard deviation of every pixel."""
        return self.samples.std(1) if self.samples.shape[1] > 1 else torch.zeros_like(self.samples[:, 0])


@torch.no_grad()
def sample_posterior(
    route: Route,
    measurement: Measurement,
    method: Method,
    n: int = 1,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    progress: Progress | None = None,
) -> Posterior:
    """Samples, n for every observation in the measurement, along a route from the prior of any process and score.

    route   equation, solver and steps, as a sampler's `route(model)` gives them
    others  as in `restore`; states have the dtype and device of the observation, and nothing is cut off

    Raises ValueError or TypeError for impossible requests, SolveFailed where a result is not finite.
    """
    check_integer("n: samples of an observation", n, 1)
    check_integer("batch", batch, 1)
    check_integer("first", first, 0)
    check_has("method", method, ("condition", "start", "finish"), "a method such as inverse.MMPS()")
    cloud = getattr(method, "particles", None)
    if cloud is not None and cloud < n:
        raise ValueError(f"{type(method).__name__} has {cloud} particles, of which {n} samples cannot be drawn")
    # a unit of work is one sample, or one cloud of particles
    each = n if cloud is None else 1
    units, held = len(measurement.y) * each, max(1, batch // (cloud or 1))
    tally, ends = Tally(), []
    for start in range(0, units, held):
        count = min(held, units - start)
        rows = torch.arange(start, start + count, device=measurement.y.device) // each
        part = Measurement(measurement.operator, measurement.y[rows], measurement.noise, measurement.shape)
        shape = (count, *measurement.shape) if cloud is None else (count, cloud, *measurement.shape)
        spent = Tally()
        way = method.condition(route, part, spent)
        index = first * each + start
        prior = cast(Any, route.equation.process).prior_sample
        x = prior(shape, seed=as_draws(seed, index), dtype=part.y.dtype, device=part.y.device)
        report = part_of(progress, start / units, count / units)
        solution = way.solve(method.start(x, part), seed, index, None, report)
        ends.append(method.finish(solution.x if solution.mean is None else solution.mean, part))
        tally = Tally(max(tally.scores, spent.scores), max(tally.gradients, spent.gradients))
    samples = torch.cat(ends)
    if cloud is None:
        samples = samples.reshape(-1, n, *measurement.shape)
    else:
        samples = samples[:, torch.arange(n, device=samples.device) * cloud // n]
    return Posterior(samples, tally.scores, tally.gradients)


def default_method(operator: Operator) -> Method:
    """`MMPS()` for linear operators, `DPS()` for others."""
    return MMPS() if hasattr(operator, "adjoint") else DPS()


def default_sampler() -> Sampler:
    """The reverse SDE in 100 steps of order 2: at that number, DDIM with noise gives 7 % more covariance than there is."""
    return Fast(DPMSolverPP(2), steps=100, churn=1.0)


def restorations(
    model: ScoreModel,
    operator: Operator,
    observed: Tensor,
    method: Method | None = None,
    noise: float = 0.0,
    n: int = 1,
    sampler: Sampler | None = None,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    progress: Progress | None = None,
) -> Posterior:
    """Samples of the images behind observations, with the count of work. See `restore`."""
    y = observed.to(model.device) if isinstance(observed, Tensor) and observed.device.type != "meta" else observed
    measurement = enter(Measurement.of(operator, y, noise, model.shape), model.data_range)
    chosen = default_method(operator) if method is None else method
    route = (default_sampler() if sampler is None else sampler).route(model)
    found = sample_posterior(route, measurement, chosen, n, seed, first, batch, progress)
    images = model.data_range.leave(found.samples).clamp(0.0, 1.0)
    return Posterior(images, found.network_evaluations, found.gradients)


def restore(
    model: ScoreModel,
    operator: Operator,
    observed: Tensor,
    *,
    method: Method | None = None,
    noise: float = 0.0,
    n: int | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """Images in [0, 1] given observations of them: `(N, C, H, W)`, or `(N, n, C, H, W)` where n is given.

    operator  what was observed: `Inpaint(mask)`, `Colorize()`, `Downsample(4)`, …, `FromFunction(function, shape)`
    observed  `(N, …)`, as `operator(images)` gives for images in [0, 1]
    method    `MMPS()`, `PiGDM()`, `DPS()`, `DDNM()`, …; None for `MMPS()`, or `DPS()` where the operator is not linear
    noise     standard deviation of the observation's noise, in the same units
    n         samples for each observation, different from one another as far as the observation leaves it open
    sampler   `Fast(…)`, `PC(…)`, `ODE(…)`; None for 100 steps of the reverse SDE
    seed, first, batch, progress   as in `generate`

    Raises MeasurementError where operator, observation and model do not fit; SolveFailed where a result is not finite.
    """
    found = restorations(model, operator, observed, method, noise, n or 1, sampler, seed, first, batch, progress)
    return found.samples[:, 0] if n is None else found.samples
