"""What can be done with a model besides sampling it: rework images, pass between them, sample cooler or towards a class.

    rework       SDEdit: noise to a level, then back                      x(t) = s (x₀ + σ z), solved from t to 0
    encode       image → latent, by the probability flow to t_max;  decode the way back
    interpolate  decode(great circle between the latents of neighbours)
    temper       decode(τ z): latents of less (τ < 1) or more length
    towards      images of one class, by a classifier of noisy images

Latents are states at t_max over its standard deviation: about N(0, 1). Image i of a seed is always the same.

Reference: Meng et al. (2022), arXiv 2108.01073 (SDEdit); Song et al. (2021), §4.3 and appendices D.3 and I.1.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdekit.arguments import check_integer, check_number, check_state
from sdekit.random import KeyedDraws, Purpose
from sdekit.scores import latent
from sdekit.solvers import Bosh3, DPMSolverPP
from sdekit.steps import Adaptive, TimeGrid

from .data import DataRange, Dataset
from .errors import UserError
from .model import ClassifierGuided, ScoreModel
from .samplers import Fast, Progress, Route, Sampler, part_of
from .sampling import draw


def _check_images(model: ScoreModel, images: Tensor, what: str = "images") -> Tensor:
    check_state(what, images)
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(model.shape):
        raise UserError(f"{what}: the model makes (N, {', '.join(map(str, model.shape))}), got {tuple(images.shape)}")
    if not bool(torch.isfinite(images).all()):
        raise UserError(f"{what}: expected finite values, got NaN or infinite ones")
    return model.data_range.enter(images.to(model.device))


def stochastic(steps: int = 100) -> Sampler:
    """The reverse SDE by DPM-Solver++ 2M. A corrector would go on changing images at noise levels below the one asked for."""
    return Fast(DPMSolverPP(2), steps, churn=1.0)


def start_at(route: Route, t: float) -> Route:
    """A route that starts at t: what is left of a grid of times, or as many steps as there were."""
    steps = route.steps
    if isinstance(steps, TimeGrid):
        rest = [u for u in steps.times if float(u) < t * (1.0 - 1e-9)]
        steps = TimeGrid([t, *map(float, rest)])
    return dataclasses.replace(route, t0=t, steps=steps)


@torch.no_grad()
def rework(
    model: ScoreModel,
    images: Tensor,
    noise: float,
    sampler: Sampler | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Images `(N, C, H, W)` in [0, 1] made more like the model's: noise is added and taken out again (SDEdit).

    noise    standard deviation of the noise, for images in [0, 1]: details smaller than it are made anew
    sampler  None for `stochastic()`; of its grid of times the part below the noise is used
    others   as in `generate`

    Raises UserError for images of another shape, ValueError for a noise level that the process does not reach.
    """
    x0, process = _check_images(model, images), model.process
    check_number("noise", noise, above=0.0)
    sigma = noise * model.data_range.width
    low, high = (float(process.sigma(t)) for t in (process.t_min, process.t_max))
    if not low < sigma < high:
        width = model.data_range.width
        raise ValueError(f"noise: the process goes from {low / width:.2g} to {high / width:.3g}, got {noise}")
    t = float(process.time(math.log(sigma)))
    route = start_at((stochastic() if sampler is None else sampler).route(model), t)
    z = KeyedDraws(seed, first).normal(Purpose.PRIOR, 0, tuple(x0.shape), x0.dtype, x0.device)
    x = float(process.scale(t)) * (x0 + sigma * z)
    solution = route.solve(x, seed, first, None, progress)
    return model.data_range.leave(solution.x if solution.mean is None else solution.mean).clamp(0.0, 1.0)


@torch.no_grad()
def encode(model: ScoreModel, images: Tensor, tolerance: float = 1e-4, progress: Progress | None = None) -> Tensor:
    """Latents `(N, C, H, W)` of images in [0, 1], by the probability flow from t_min to t_max, in float64."""
    x, process = _check_images(model, images).double(), model.process
    end = latent.encode(process, model, x, **_flow(tolerance), progress=progress).x
    return (end / process.prior_std()).to(images.dtype)


@torch.no_grad()
def decode(model: ScoreModel, latents: Tensor, tolerance: float = 1e-4, progress: Progress | None = None) -> Tensor:
    """Images in [0, 1] of latents: the inverse of `encode`, up to the tolerance."""
    check_state("latents", latents)
    process = model.process
    x = latents.to(model.device).double() * process.prior_std()
    end = latent.decode(process, model, x, **_flow(tolerance), progress=progress).x
    return model.data_range.leave(end).clamp(0.0, 1.0).to(latents.dtype)


def _flow(tolerance: float) -> dict[str, Any]:
    check_number("tolerance", tolerance, above=0.0)
    return {"solver": Bosh3(), "steps": Adaptive(rtol=tolerance, atol=tolerance)}


def interpolate(
    model: ScoreModel, images: Tensor, count: int = 9, tolerance: float = 1e-4, progress: Progress | None = None
) -> Tensor:
    """Images `(n − 1, count, C, H, W)` on the way from each of n images `(n, C, H, W)` to the next, by their latents.

    Latents are passed along the great circle, so that they stay as long as those of images. Both ends are the images.

    Raises UserError for fewer than two images, or images of another shape than the model's.
    """
    check_state("images", images)
    passages = len(images) - 1
    if passages < 1:
        raise UserError(f"images: two or more are needed to pass between them, got {len(images)}")
    check_integer("count", count, 2)
    share = len(images) / (len(images) + passages * count)  # of the work: to latents
    ends = encode(model, images, tolerance, part_of(progress, 0.0, share))
    ways = latent.interpolate(ends[:-1], ends[1:], [i / (count - 1) for i in range(count)]).transpose(0, 1)
    found = decode(model, ways.flatten(0, 1), tolerance, part_of(progress, share, 1.0 - share))
    return found.unflatten(0, ways.shape[:2])


def temper(
    model: ScoreModel,
    n: int,
    temperature: float,
    seed: int = 0,
    first: int = 0,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
) -> Tensor:
    """N images `(n, C, H, W)` decoded from latents τ z: τ < 1 gives cleaner and less various images, 1 plain samples."""
    check_number("temperature", temperature, least=0.0)
    check_integer("n", n, 1)
    z = KeyedDraws(seed, first).normal(Purpose.PRIOR, 0, (n, *model.shape), torch.float32, model.device)
    return decode(model, temperature * z, tolerance, progress)


# --- towards a class --------------------------------------------------------------------------------------------------


def train_classifier(
    data: Dataset,
    process: Any,
    data_range: DataRange,
    steps: int = 500,
    batch: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A small classifier of noisy images, trained on data with labels; ln σ is uniform over the noise that matters.

    Raises UserError for data without labels.
    """
    from .data import dequantise
    from .networks.classifier import SmallClassifierConfig
    from .randomness import scoped_seed

    if data.labels is None:
        raise UserError("a classifier needs images with labels, and these have none")
    draws = KeyedDraws(seed)
    low = max(float(process.log_sigma(process.t_min)), math.log(0.01))
    high = min(float(process.log_sigma(process.t_max)), math.log(20.0))
    with scoped_seed(seed, int(Purpose.USER)):
        classifier = SmallClassifierConfig(classes=int(data.labels.max()) + 1).build(data.shape)
        optimiser = torch.optim.Adam(classifier.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
        for step in range(steps):
            rows = (draws.uniform(Purpose.DATA, step, (batch,), torch.float64, torch.device("cpu")) * len(data)).long()
            images = dequantise(data.images[rows], data.levels, draws, step)
            c = low + (high - low) * draws.uniform(Purpose.TIME, step, (batch,), torch.float32, torch.device("cpu"))
            z = draws.normal(Purpose.USER, step, tuple(images.shape), torch.float32, torch.device("cpu"))
            x = data_range.enter(images) + c.exp()[:, None, None, None] * z
            loss = F.cross_entropy(classifier(x, c), data.labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if progress is not None:
                progress((step + 1) / steps)
    return classifier.eval().requires_grad_(False)


def towards(
    model: ScoreModel,
    classifier: nn.Module,
    label: int,
    n: int,
    weight: float = 1.0,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    first: int = 0,
) -> Tensor:
    """N images of one class, `(n, C, H, W)`, by classifier guidance."""
    guided: Any = ClassifierGuided(model, classifier, label, weight)
    return draw(guided, n, stochastic() if sampler is None else sampler, seed, first, progress=progress).images
