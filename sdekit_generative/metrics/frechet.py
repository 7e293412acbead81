"""The Fréchet distance between two sets of features, each taken as Gaussian.

    d² = ‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2 (C₁ C₂)^½)

The trace of the root is the sum of the singular values of √C₁ √C₂, which needs no root of a non-symmetric matrix.
For n samples a set, d² of two sets from one law is above zero by about tr(C) (2/n): compare sets of equal sizes.

Reference: Dowson, Landau (1982), J. Multivar. Anal. 12(3), equation 4; Heusel et al. (2017), equation 6.
"""

from __future__ import annotations

import torch
from torch import Tensor


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(F,)` and unbiased covariance `(F, F)` in float64, of features `(N, F)`."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features: expected (N, F) with N of 2 or more, got {tuple(features.shape)}")
    features = features.to(torch.float64)
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance; eigenvalues below zero are rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """d² between feature sets `(N, F)` and `(M, F)`, at least 0. Raises ValueError for sets that do not fit."""
    if a.ndim == 2 and b.ndim == 2 and a.shape[1] != b.shape[1]:
        raise ValueError(f"features: the sets have {a.shape[1]} and {b.shape[1]} features")
    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    overlap = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + torch.trace(cov_a) + torch.trace(cov_b) - 2.0 * overlap
    return max(0.0, float(distance))
