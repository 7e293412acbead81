"""Images from a trained model.

Image i depends on (model, sampler, seed, i) only: generated alone, in a batch of 64, or in chunks of 10, it is the same
up to the float32 rounding of the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.arguments import check_has, check_integer
from sdekit.random import Purpose, as_draws
from sdekit.save import SaveAt

from .model import Labels, ScoreModel
from .samplers import ODE, PC, Fast, Progress, Route, Sampler, part_of

__all__ = [
    "ODE",
    "PC",
    "Fast",
    "Progress",
    "Route",
    "Sampler",
    "Samples",
    "draw",
    "forward_trajectory",
    "generate",
    "trajectory",
]

_FIRST_SEEN, _LAST_SEEN = 6.0, 0.04  # noise levels between which images of unit range take shape


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
    labels: Labels = None,
    guidance: float = 1.0,
) -> Samples:
    """Images first … first + n − 1 of the seed, with the count of work. See `generate`.

    Raises what `generate` raises.
    """
    check_integer("n: the number of images", n, 1)
    check_integer("batch", batch, 1)
    check_integer("first: the index of an image", first, 0)
    if labels is None:
        labels, guidance = model.labels, model.guidance
    if labels is not None and not model.knows_classes:
        raise ValueError(f"labels were given to a {type(model.network).__name__}, which knows no classes")
    if isinstance(labels, Tensor) and labels.ndim == 1 and len(labels) != n:
        raise ValueError(f"labels: got {len(labels)} for {n} images; give one for each, or one class for all")
    chunks: list[Tensor] = []
    evaluations = 0
    for start in range(first, first + n, batch):
        count = min(batch, first + n - start)
        part = part_of(progress, (start - first) / n, count / n)
        x = model.process.prior_sample((count, *model.shape), seed=as_draws(seed, start), device=model.device)
        some = labels[start - first :][:count] if isinstance(labels, Tensor) and labels.ndim == 1 else labels
        route = _route(model if some is None else model.conditional(some, guidance), sampler)
        solution = route.solve(x, seed, start, None, part)
        end = solution.x if solution.mean is None else solution.mean
        chunks.append(model.data_range.leave(end).clamp(0.0, 1.0))
        evaluations = max(evaluations, int(solution.stats.evaluations.max()))
    return Samples(torch.cat(chunks), evaluations)


def _route(model: ScoreModel, sampler: Sampler | None) -> Route:
    sampler = PC() if sampler is None else sampler
    check_has("sampler", sampler, ("route",), "a sampler such as PC(steps=500), ODE() or Fast(steps=20)")
    return sampler.route(model)


def generate(
    model: ScoreModel,
    n: int,
    sampler: Sampler | None = None,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    progress: Progress | None = None,
    labels: Labels = None,
    guidance: float = 1.0,
) -> Tensor:
    """Images as floats in [0, 1], `(n, C, H, W)`.

    sampler  `PC(…)` (default), `ODE(…)` or `Fast(…)`
    seed     with `first`, says which images: image i of a seed is always the same
    first    index of the first image
    batch    images made at a time; changes memory and speed, nothing else
    progress called with the fraction of the work done
    labels   classes `(n,)` of the images, or one class for all; see `ScoreModel.conditional`
    guidance how much the classes count

    Raises ValueError for impossible requests, SolveFailed where the model's score is not finite.
    """
    return draw(model, n, sampler, seed, first, batch, progress, labels, guidance).images


@torch.no_grad()
def trajectory(
    model: ScoreModel,
    n: int,
    frames: int,
    sampler: Sampler | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """The way of n images from the prior: (states `(frames, n, C, H, W)` in the model's range, log σ `(frames,)`).

    The images are those that `generate` makes with the same sampler, seed and first.

    The first frame is the prior, the last the denoised image; those between are even in ln σ, which is how structure
    appears, over the levels where there is any to be seen.

    Raises ValueError for fewer than three frames.
    """
    check_integer("frames", frames, 3)
    process, route = model.process, _route(model, sampler)
    low, high = (float(process.log_sigma(t)) for t in (route.t1, route.t0))
    top, bottom = min(math.log(_FIRST_SEEN), high - 0.1), max(math.log(_LAST_SEEN), low + 0.1)
    between = torch.linspace(top, bottom, frames - 2, dtype=torch.float64).tolist()
    levels = torch.tensor([high, *between, low], dtype=torch.float64)
    times = [route.t0, *(float(process.time(c)) for c in levels[1:-1]), route.t1]
    x = process.prior_sample((n, *model.shape), seed=as_draws(seed, first), device=model.device)
    solution = route.solve(x, seed, first, SaveAt(times=times), progress)
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
