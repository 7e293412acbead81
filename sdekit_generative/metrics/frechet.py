"""The Fréchet distance between two laws of features, each taken as Gaussian; with Inception's features, FID.

    d² = ‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2 (C₁ C₂)^½)

The trace of the root is the sum of the singular values of √C₁ √C₂, which needs no root of a non-symmetric matrix and
stays accurate where a covariance is singular, as it is for fewer samples than features. For n samples a set, d² of two
sets from one law is above zero by about tr(C) (2/n): compare sets of equal sizes.

Reference: Dowson, Landau (1982), J. Multivar. Anal. 12(3), equation 4; Heusel et al. (2017), equation 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.moments import Moments

from .checks import checked_features


def feature_moments(features: Tensor, what: str = "features") -> Moments:
    """Mean `(F,)` and covariance `(F, F)` in float64 of features `(N, F)`; sets in parts are merged.

    Raises ValueError for another shape, or features that are not finite.
    """
    return Moments.of(checked_features(what, features), full=True)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance; eigenvalues as small as rounding are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return (vectors * values.where(values > rounding, torch.zeros_like(values)).sqrt()) @ vectors.T


def gaussian_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """d² of two Gaussians with means `(F,)` and covariances `(F, F)`, at least 0."""
    overlap = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + torch.trace(cov_a) + torch.trace(cov_b) - 2.0 * overlap
    return max(0.0, float(distance))


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """d² between features `(N, F)` and `(M, F)`, or their moments. Raises ValueError for sets that do not fit."""
    first, second = (x if isinstance(x, Moments) else feature_moments(x, name) for name, x in (("a", a), ("b", b)))
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"a and b: expected as many features in both, got {len(first.mean)} and {len(second.mean)}")
    return gaussian_distance(first.mean, first.covariance, second.mean, second.covariance)
