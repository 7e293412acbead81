"""How many bits a model needs for an image.

Notation: k the image in levels, L levels, y = (k + u)/L its dequantised values, x the same in the model's range of
width w, D numbers an image.

    bits/dim = −log₂ p(x)/D − log₂(w/L)

where w/L is the width of a level in the model's range. On average over u this is an upper bound of −log₂ P(k)/D.
p is the model's density at the process's t_min, by the probability-flow ODE.

Reference: Song et al. (2021), §4.3 and appendix D.2; Theis, van den Oord, Bethge (2016), §3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.arguments import check_integer
from sdekit.protocols import Solver, StepControl
from sdekit.random import as_draws
from sdekit.scores.divergence import Exact, Hutchinson
from sdekit.scores.likelihood import log_likelihood
from sdekit.solvers import Bosh3
from sdekit.steps import Adaptive

from .data import dequantise
from .model import ScoreModel
from .sampling import Progress


@dataclass(frozen=True)
class BitsPerDim:
    """bits/dim of a set of images: the mean, its standard error over the images, and each image's own `(N,)`."""

    mean: float
    standard_error: float
    per_image: Tensor
    network_evaluations: int


def bits_per_dim(
    model: ScoreModel,
    images: Tensor,
    *,
    solver: Solver | None = None,
    steps: StepControl | None = None,
    divergence: Exact | Hutchinson | None = None,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    progress: Progress | None = None,
) -> BitsPerDim:
    """Bits per dimension of images `(N, C, H, W)`.

    images      uint8 levels, dequantised here by (seed, first + i); or floats in [0, 1], taken as they are
    solver, steps  of the ODE; default `Bosh3` at rtol = atol = 1e-3: on the digits within 0.0005 bits/dim of the limit,
                   where `Dopri5` at the same tolerance steps over detail and errs by 0.009
    divergence  default `Hutchinson(probes=1)`: unbiased, part of the standard error; `Exact()` costs D gradients
    batch       images solved at a time; changes nothing else

    Raises ValueError for images of another shape or kind, SolveFailed where the model's score is not finite.
    """
    if not isinstance(images, Tensor) or images.device.type == "meta":
        raise TypeError(
            f"images: expected a tensor with values, got {type(images).__name__}; use torch.as_tensor(images)"
        )
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(model.shape) or len(images) == 0:
        raise ValueError(f"images: expected (N, {', '.join(map(str, model.shape))}), got {tuple(images.shape)}")
    if images.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise ValueError(f"images: expected uint8 levels or floats in [0, 1], got {images.dtype}")
    check_integer("batch", batch, 1)
    check_integer("first: the index of an image", first, 0)
    broken = torch.nonzero(~torch.isfinite(images).flatten(1).all(1)).flatten()
    if len(broken):
        raise ValueError(
            f"images: {len(broken)} of {len(images)} hold NaN or infinities, the first of them image {int(broken[0])}"
        )
    if images.dtype == torch.uint8 and int(images.max()) >= model.levels:
        raise ValueError(f"images: the model has levels 0 to {model.levels - 1}, got {int(images.max())}")
    control = Adaptive(rtol=1e-3, atol=1e-3) if steps is None else steps
    results: list[Tensor] = []
    evaluations = 0
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch].to(model.device)
        draws = as_draws(seed, first + start)
        y = dequantise(chunk, model.levels, draws) if chunk.dtype == torch.uint8 else chunk
        found = log_likelihood(
            model.process,
            model,
            model.data_range.enter(y),
            solver=Bosh3() if solver is None else solver,
            steps=control,
            divergence=Hutchinson(probes=1) if divergence is None else divergence,
            seed=draws,
        )
        results.append(found.bits_per_dim().double().cpu() - math.log2(model.data_range.width / model.levels))
        evaluations = max(evaluations, int(found.stats.evaluations.max()))
        if progress is not None:
            progress(min(1.0, (start + batch) / len(images)))
    bits = torch.cat(results)
    error = float(bits.std()) / math.sqrt(len(bits)) if len(bits) > 1 else math.nan
    return BitsPerDim(float(bits.mean()), error, bits, evaluations)
