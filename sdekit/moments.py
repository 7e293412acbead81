"""Means and covariances of samples that come in parts, on one process or on many.

For parts a and b of n_a and n_b samples, with δ = μ_b − μ_a and S the scatter Σ (x − μ)(x − μ)ᵀ,

    n = n_a + n_b,    μ = μ_a + δ n_b/n,    S = S_a + S_b + δ δᵀ n_a n_b/n

which loses no digits where the mean is large against the spread, as sums of squares would.

Notation: N samples of shape S; everything is float64.

Reference: Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance", Am. Stat. 37(3), equation 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .arguments import floating


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and scatter of samples; parts are put together by `a.merge(b)`, in any number and order.

    mean     `shape`
    scatter  `Σ (x − μ)²` of the same shape, or, for `full`, the matrix `Σ (x − μ)(x − μ)ᵀ` of the flattened samples
    """

    count: int
    mean: Tensor
    scatter: Tensor
    full: bool = False

    @classmethod
    def of(cls, samples: Tensor, full: bool = False) -> Moments:
        """Of samples `(N, *shape)`, N of 1 or more. Raises ValueError for none."""
        samples = floating("samples", samples)
        if samples.ndim < 1 or len(samples) == 0:
            raise ValueError(f"samples: expected samples (N, *shape) with N of 1 or more, got {tuple(samples.shape)}")
        samples = samples.detach().to(torch.float64)
        mean = samples.mean(0)
        apart = samples - mean
        if full:
            flat = apart.flatten(1)
            return cls(len(samples), mean, flat.mT @ flat, full)
        return cls(len(samples), mean, apart.square_().sum(0), full)

    def merge(self, other: Moments) -> Moments:
        """Of the samples of both. Raises ValueError where they are of different kinds."""
        if self.full != other.full or self.mean.shape != other.mean.shape:
            raise ValueError(
                f"moments of samples of shape {tuple(self.mean.shape)} and {tuple(other.mean.shape)} do not go together"
            )
        count = self.count + other.count
        gap = other.mean - self.mean
        flat = gap.flatten()
        cross = torch.outer(flat, flat) if self.full else gap.square()
        mean = self.mean + gap * (other.count / count)
        scatter = self.scatter + other.scatter + cross * (self.count * other.count / count)
        return Moments(count, mean, scatter, self.full)

    @classmethod
    def merged(cls, parts: Iterable[Moments]) -> Moments:
        """Of all parts, at least one."""
        return reduce(lambda a, b: a.merge(b), parts)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance of the flattened samples, `(S, S)`. Raises ValueError unless `full`, and for N < 2."""
        if not self.full:
            raise ValueError("these moments hold variances alone; make them with full=True")
        return self.scatter / self._freedom()

    @property
    def variance(self) -> Tensor:
        """Unbiased variance of every entry. Raises ValueError for N < 2."""
        diagonal = self.scatter.diagonal().reshape(self.mean.shape) if self.full else self.scatter
        return diagonal / self._freedom()

    @property
    def std(self) -> Tensor:
        """Square root of the variance."""
        return self.variance.sqrt()

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the mean."""
        return self.std / math.sqrt(self.count)

    def _freedom(self) -> int:
        if self.count < 2:
            raise ValueError(f"a variance needs 2 samples or more, got {self.count}")
        return self.count - 1
