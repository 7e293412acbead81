"""Precision and recall of generated images, by the manifolds that k nearest neighbours span in feature space.

    manifold(Φ) = ∪ over φ in Φ of the ball about φ that reaches to its k-th nearest neighbour in Φ
    precision   share of generated features inside the manifold of the real ones
    recall      share of real features inside the manifold of the generated ones

Precision falls with images that look like no real one, recall with kinds of real images that are never made.

Reference: Kynkäänniemi et al. (2019), "Improved precision and recall metric for assessing generative models", eq. 1–3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import checked_pair

_PAIRS = 1 << 24  # distances held at a time


@dataclass(frozen=True)
class PrecisionRecall:
    """Both shares, in [0, 1]."""

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, neighbours: int = 3) -> PrecisionRecall:
    """Precision and recall of features `(M, F)` against real ones `(N, F)`; use sets of equal sizes.

    neighbours  k; 3 is the value of the reference

    Raises ValueError for sets that do not fit, have fewer than k + 1 samples, or are not finite.
    """
    real, generated = checked_pair(("real", "generated"), real, generated)
    if neighbours < 1 or min(len(real), len(generated)) <= neighbours:
        raise ValueError(
            f"real and generated features: {neighbours} nearest neighbours need {neighbours + 1} or more images of each set, "
            f"got {len(real)} and {len(generated)}"
        )
    middle = real.double().mean(0)  # small coordinates keep the digits of small distances
    x, y = real.double() - middle, generated.double() - middle
    return PrecisionRecall(_inside(y, x, _radii(x, neighbours)), _inside(x, y, _radii(y, neighbours)))


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances `(N, M)`."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2.0 * (x @ y.T)).clamp_min_(0.0)


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """Squared distance of every sample to its k-th nearest other one, `(N,)`."""
    rows = max(1, _PAIRS // len(x))
    found = []
    for start in range(0, len(x), rows):
        squares = _squares(x[start : start + rows], x)
        squares.diagonal(start).fill_(torch.inf)  # not a neighbour of its own
        found.append(squares.kthvalue(neighbours, dim=1).values)
    return torch.cat(found)


def _inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Share of the points that lie in any of the balls."""
    rows = max(1, _PAIRS // len(centres))
    held = [(_squares(part, centres) <= radii).any(1) for part in points.split(rows)]
    return float(torch.cat(held).double().mean())
