"""Posteriors in closed form, for the laws of `sdekit.analytic`: what every method can be compared with.

Prior Σ_k w_k N(μ_k, Σ_k) and y = A x + σ_y n give

    K_k = Σ_k Aᵀ S_k⁻¹,   S_k = A Σ_k Aᵀ + σ_y²
    p(x | y) = Σ_k w′_k N(μ_k + K_k (y − A μ_k), Σ_k − K_k A Σ_k),   w′_k ∝ w_k N(y; A μ_k, S_k)
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.analytic import GaussianMixture

from .operator import Linear, MeasurementError, as_matrix


def exact_posterior(
    means: Tensor, covs: Tensor, weights: Tensor, operator: Linear, y: Tensor, noise: float
) -> GaussianMixture:
    """The law of x given one observation.

    means `(K, *shape)`, covs `(K, S, S)`, weights `(K,)` of the prior; y of the shape of one observation; noise > 0, or 0
    where A Σ_k Aᵀ is regular. float64. Entries where nothing was measured are left out.

    Raises MeasurementError where the covariance of the observation is singular.
    """
    shape = tuple(means.shape[1:])
    matrix = as_matrix(operator, shape).matrix
    seen = matrix.abs().sum(1) > 0
    matrix, value = matrix[seen], y.double().flatten()[seen]
    flat = means.double().flatten(1)
    spread = matrix @ covs.double() @ matrix.mT + noise**2 * torch.eye(len(matrix), dtype=torch.float64)
    root, failed = torch.linalg.cholesky_ex(spread)
    if bool((failed > 0).any()):
        raise MeasurementError("exact_posterior: the observation has a singular covariance; give it some noise")
    residual = value - flat @ matrix.mT
    white = torch.linalg.solve_triangular(root, residual.unsqueeze(-1), upper=False).squeeze(-1)
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_weight = weights.double().log() - 0.5 * white.square().sum(-1) - log_det
    gain = torch.cholesky_solve(matrix @ covs.double(), root).mT
    centre = flat + (gain @ residual.unsqueeze(-1)).squeeze(-1)
    left = covs.double() - gain @ matrix @ covs.double()
    posterior = torch.softmax(log_weight, 0).clamp_min(torch.finfo(torch.float64).tiny)
    return GaussianMixture(centre.reshape(-1, *shape), covs=0.5 * (left + left.mT), weights=posterior)
