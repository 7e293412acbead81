"""Images from a trained model.

Image i depends on (model, sampler, seed, i) only: generated alone, in a batch of 64, or in chunks of 10, it is the same
up to the float32 rounding of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sdekit.protocols import Solver
from sdekit.random import Purpose, as_draws
from sdekit.save import SaveAt
from sdekit.scores.correctors import Langevin
from sdekit.scores.predictor_corrector import PredictorCorrector
from sdekit.scores.predictors import ReverseDiffusion
from sdekit.scores.reverse import probability_flow, reverse
from sdekit.solution import Solution
from sdekit.solve import solve
from sdekit.solvers import Bosh3
from sdekit.steps import Adaptive, FixedSteps

from .model import ScoreModel

Progress = Callable[[float], None]
_FIRST_SEEN, _LAST_SEEN = 6.0, 0.04  # noise levels between which images of unit range take shape


class Sampler(Protocol):
    """A way from the prior to images."""

    def solve(
        self, model: ScoreModel, x: Tensor, seed: int, first: int, save: SaveAt | None, progress: Progress | None
    ) -> Solution:
        """Solve from x at t_max down to where the sampler stops; `Solution.mean` is the denoised end, if known."""
        ...


@dataclass(frozen=True)
class PC:
    """Predictor–corrector: reverse diffusion steps, each after a Langevin correction. 2 evaluations a step.

    steps        predictor steps, uniform in t
    snr          signal-to-noise ratio of the corrector's step
    corrections  corrector steps at each time; 0 for the predictor alone
    t_end        time at which to stop (never below the process's t_min); the last step returns its noise-free mean

    Reference: Song et al. (2021), Algorithm 1 and appendix G.
    """

    steps: int = 500
    snr: float = 0.16
    corrections: int = 1
    t_end: float = 1e-3

    def solver(self) -> Solver:
        predictor = ReverseDiffusion()
        if self.corrections == 0:
            return predictor
        return PredictorCorrector(predictor, Langevin(snr=self.snr, steps=self.corrections))

    def solve(
        self,
        model: ScoreModel,
        x: Tensor,
        seed: int,
        first: int,
        save: SaveAt | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        process = model.process
        return solve(
            reverse(process, model),
            x,
            process.t_max,
            max(process.t_min, self.t_end),
            solver=self.solver(),
            steps=FixedSteps(self.steps),
            save=save,
            seed=seed,
            first=first,
            progress=progress,
        )


@dataclass(frozen=True)
class ODE:
    """The probability-flow ODE, with steps chosen for each image.

    rtol, atol  tolerances of the state, in the model's range
    t_end       as in `PC`
    solver      any ODE solver with an error estimate. A network is not smooth enough for high orders to pay: on the
                digits Bosh3 at 1e-3 errs by 0.002 (rms) in 54 evaluations, Dopri5 by 0.005 in 57

    Reference: Song et al. (2021), §4.3; Bogacki, Shampine (1989).
    """

    rtol: float = 1e-3
    atol: float = 1e-3
    t_end: float = 1e-3
    solver: Solver = field(default_factory=Bosh3)

    def solve(
        self,
        model: ScoreModel,
        x: Tensor,
        seed: int,
        first: int,
        save: SaveAt | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        process = model.process
        return solve(
            probability_flow(process, model),
            x,
            process.t_max,
            max(process.t_min, self.t_end),
            solver=self.solver,
            steps=Adaptive(rtol=self.rtol, atol=self.atol),
            save=save,
            seed=seed,
            first=first,
            progress=progress,
        )


@dataclass(frozen=True)
class Samples:
    """Images as floats in [0, 1] `(N, C, H, W)`, and the number of network evaluations an image took (the largest)."""

    images: Tensor
    network_evaluations: int


@torch.no_grad()
def draw(
    model: ScoreModel,
    n: int,
    sampler: Sampler | None = None,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    progress: Progress | None = None,
) -> Samples:
    """Images first … first + n − 1 of the seed, with the count of work. See `generate`."""
    if n < 1 or batch < 1 or first < 0:
        raise ValueError(f"expected n ≥ 1, batch ≥ 1 and first ≥ 0, got n={n}, batch={batch}, first={first}")
    sampler = PC() if sampler is None else sampler
    chunks: list[Tensor] = []
    evaluations = 0
    for start in range(first, first + n, batch):
        count = min(batch, first + n - start)
        part = None if progress is None else _share(progress, (start - first) / n, count / n)
        x = model.process.prior_sample((count, *model.shape), seed=as_draws(seed, start), device=model.device)
        solution = sampler.solve(model, x, seed, start, None, part)
        end = solution.x if solution.mean is None else solution.mean
        chunks.append(model.data_range.leave(end).clamp(0.0, 1.0))
        evaluations = max(evaluations, int(solution.stats.evaluations.max()))
    return Samples(torch.cat(chunks), evaluations)


def _share(progress: Progress, done: float, share: float) -> Progress:
    """The progress of one chunk as a part of the whole."""
    return lambda fraction: progress(done + share * fraction)


def generate(
    model: ScoreModel,
    n: int,
    sampler: Sampler | None = None,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """N images as floats in [0, 1], `(n, C, H, W)`.

    sampler  `PC(…)` (default) or `ODE(…)`
    seed     with `first`, says which images: image i of a seed is always the same
    first    index of the first image
    batch    images made at a time; changes memory and speed, nothing else
    progress called with the fraction of the work done

    Raises SolveFailed where the model's score is not finite.
    """
    return draw(model, n, sampler, seed, first, batch, progress).images


@torch.no_grad()
def trajectory(
    model: ScoreModel, n: int, frames: int, sampler: Sampler | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The way of n images from the prior: (states `(frames, n, C, H, W)` in the model's range, log σ `(frames,)`).

    The first frame is the prior, the last the denoised image; those between are even in ln σ, which is how structure
    appears, over the levels where there is any to be seen.
    """
    sampler = PC() if sampler is None else sampler
    process = model.process
    t_end = max(process.t_min, getattr(sampler, "t_end", process.t_min))
    low, high = (float(process.log_sigma(t)) for t in (t_end, process.t_max))
    top, bottom = min(math.log(_FIRST_SEEN), high - 0.1), max(math.log(_LAST_SEEN), low + 0.1)
    between = torch.linspace(top, bottom, frames - 2, dtype=torch.float64).tolist()
    levels = torch.tensor([high, *between, low], dtype=torch.float64)
    times = [process.t_max, *(float(process.time(c)) for c in levels[1:-1]), t_end]
    x = process.prior_sample((n, *model.shape), seed=seed, device=model.device)
    solution = sampler.solve(model, x, seed, 0, SaveAt(times=times), None)
    states = solution.x.clone()
    if solution.mean is not None:
        states[-1] = solution.mean
    return states, levels


def forward_trajectory(model: ScoreModel, images: Tensor, levels: Tensor, seed: int = 0) -> Tensor:
    """Images `(n, C, H, W)` in the model's range on their way to noise, exact in law, at the given ln σ.

        x(c_k) = s_k (x₀ + σ_k z_k),   σ_k z_k = σ_{k−1} z_{k−1} + √(σ_k² − σ_{k−1}²) ξ_k

    One Brownian path an image, so that the frames belong together. Returns `(frames, n, C, H, W)`, least noise first.
    """
    draws = as_draws(seed)
    noise, before = torch.zeros_like(images), 0.0
    frames = []
    for step, level in enumerate(sorted(levels.tolist())):
        sigma = math.exp(level)
        xi = draws.normal(Purpose.PATH, step, tuple(images.shape), images.dtype, images.device)
        noise = noise + math.sqrt(sigma**2 - before**2) * xi
        before = sigma
        scale = float(model.process.scale(model.process.time(level)))
        frames.append(scale * (images + noise))
    return torch.stack(frames)
