"""The kernel distance between two sets of features: an unbiased estimate of the squared maximum mean discrepancy (KID).

    k(x, y) = (x·y/F + 1)³
    d² = 1/(m(m−1)) Σ_{i≠j} [k(x_i, x_j) + k(y_i, y_j)] − 2/m² Σ_{i,j} k(x_i, y_j)

over subsets of m samples of each set, then averaged. Unlike the Fréchet distance its mean does not depend on the number
of samples, and for equal laws it is zero, so that estimates are negative half of the time.

Subsets are dealt from a shuffled pack that is shuffled again when it runs out. Those of one deal have no sample in
common, so that their spread is that of independent estimates; the standard error counts as many as one deal gives, and
is an upper bound where subsets are dealt more than once.

Reference: Bińkowski, Sutherland, Arbel, Gretton (2018), "Demystifying MMD GANs", §4; Gretton et al. (2012), equation 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.random import fold

from ..data import permutation
from .checks import checked_pair


@dataclass(frozen=True, eq=False)
class KernelDistance:
    """The mean over subsets, its standard error (NaN where there are too few samples for two), and each subset's d²."""

    mean: float
    standard_error: float
    per_subset: Tensor


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 100, size: int | None = None, seed: int = 0) -> KernelDistance:
    """KID of features `(N, F)` and `(M, F)`: the same for the same features, in the same order, and the same seed.

    size  samples in a subset, cut to what the smaller set has. None for the published 1000, or a tenth of the smaller
          set where that is less: the mean does not depend on it, and the standard error wants several subsets

    Raises ValueError for sets that do not fit, have fewer than 2 samples, or are not finite.
    """
    a, b = checked_pair(("a", "b"), a, b)
    fewest = min(len(a), len(b))
    size = min(1000, max(2, fewest // 10)) if size is None else size
    size = min(size, fewest)
    if size < 2 or subsets < 1:
        raise ValueError(
            f"a and b: a kernel distance needs features of 2 or more images each, got {len(a)} and {len(b)}"
        )
    from_a, from_b = (_deal(len(x), size, fold(seed, which)) for which, x in enumerate((a, b)))
    found = torch.stack([discrepancy(a[next(from_a)].double(), b[next(from_b)].double()) for _ in range(subsets)])
    independent = min(subsets, fewest // size)
    error = float(found.std()) / math.sqrt(independent) if independent > 1 else math.nan
    return KernelDistance(float(found.mean()), error, found)


def _deal(n: int, size: int, seed: int) -> Iterator[Tensor]:
    """Indices of subsets, without end."""
    deal = 0
    while True:
        pack = permutation(n, seed, deal)
        yield from pack[: n // size * size].split(size)
        deal += 1


def discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """d² of one pair of subsets `(m, F)`."""
    m = len(x)
    within = sum(k.sum() - k.diagonal().sum() for k in (_kernel(x, x), _kernel(y, y)))
    return within / (m * (m - 1)) - 2.0 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1.0) ** 3
