"""Gaussian mixtures carried along by linear SDEs: the algebra behind `sdekit.analytic`.

With x(t) | x(0) ~ N(M x(0) + m, C), component k of a mixture

    N(μ_k, Σ_k)   becomes   N(M μ_k + m, M Σ_k Mᵀ + C),   with the same weight w_k.

Covariances are kept as U diag(v) Uᵀ. A process that treats all entries alike leaves U as it is, so that one
eigendecomposition serves all times.

Notation and shapes
    S       number of entries of a sample;  K  number of components;  dots stand for nothing or for B
    x       flattened points `(B, S)`

All is float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .transition import ElementwiseTransition, Transition

_LOG_2PI = math.log(2.0 * math.pi)


class Components(NamedTuple):
    """K Gaussians N(mean_k, U_k diag(variance_k) U_kᵀ) on flattened states, or one such set for every sample.

    log_weight `(K,)`; mean `(…, K, S)`; variance `(…, K, S)` or `(…, K, 1)`; basis U `(…, K, S, S)` with eigenvectors
    as columns, None where it is the identity.
    """

    log_weight: Tensor
    mean: Tensor
    variance: Tensor
    basis: Tensor | None

    def to(self, device: torch.device) -> Components:
        if self.mean.device == device:
            return self
        return Components(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]

    def spread(self, v: Tensor) -> Tensor:
        """U diag(variance) Uᵀ v for v `(B, K, S)`."""
        return _turn(_turn_back(v, self.basis) * self.variance, self.basis)

    def solve(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `spread` on v `(B, K, S)`, and vᵀ times it `(B, K)`."""
        turned = _turn_back(v, self.basis)
        white = turned / self.variance
        return _turn(white, self.basis), (turned * white).sum(-1)

    def covariance(self) -> Tensor:
        """`(…, K, S, S)`."""
        variance = self.variance.expand(self.mean.shape)
        if self.basis is None:
            return torch.diag_embed(variance)
        return (self.basis * variance.unsqueeze(-2)) @ self.basis.mT


def _turn(v: Tensor, basis: Tensor | None) -> Tensor:
    if basis is None:
        return v
    return torch.einsum("kij,bkj->bki" if basis.ndim == 3 else "bkij,bkj->bki", basis, v)


def _turn_back(v: Tensor, basis: Tensor | None) -> Tensor:
    return _turn(v, None if basis is None else basis.mT)


class Evaluated(NamedTuple):
    """A mixture seen from points x: log_joint `(B, K)` = ln w_k p_k(x), precision `(B, K, S)` = Σ_k⁻¹ (x − μ_k)."""

    log_joint: Tensor
    precision: Tensor

    def weights(self) -> Tensor:
        """The probability `(B, K)` of every component given x."""
        return torch.softmax(self.log_joint, dim=-1)


def evaluate(c: Components, x: Tensor) -> Evaluated:
    """At flattened float64 points `(B, S)`."""
    precision, distance = c.solve(x.unsqueeze(1) - c.mean)
    size = c.mean.shape[-1]
    log_det = c.variance.log().sum(-1) * (size // c.variance.shape[-1])
    return Evaluated(c.log_weight - 0.5 * (distance + log_det + size * _LOG_2PI), precision)


def _flat(coefficient: Tensor | float, shape: torch.Size) -> Tensor:
    """A coefficient that broadcasts to states, made to broadcast with `(…, K, S)`.

    It becomes 0-d, `(1,)`, `(S,)`, `(B, 1, 1)` or `(B, 1, S)`.
    """
    c = torch.as_tensor(coefficient, dtype=torch.float64)
    if c.ndim == 0:
        return c
    c = c.reshape(*(1,) * (1 + len(shape) - c.ndim), *c.shape)
    count = c.shape[0]
    flat = c.reshape(count, 1, 1) if c.numel() == count else c.expand(count, *shape).reshape(count, 1, -1)
    return flat[0, 0] if count == 1 else flat


def _carry_elementwise(c: Components, law: ElementwiseTransition, shape: torch.Size) -> Components:
    a, variance, offset = (_flat(v, shape) for v in (law.multiplier, law.variance, law.offset))
    mean = a * c.mean + offset
    uniform = a.shape[-1:] in ((), (1,)) and variance.shape[-1:] in ((), (1,))
    if c.basis is None or uniform:
        return Components(c.log_weight, mean, a.square() * c.variance + variance, c.basis)
    a, variance = (v.unsqueeze(0) if v.ndim == 0 else v for v in (a, variance))
    noise = torch.diag_embed(variance.expand(*variance.shape[:-1], mean.shape[-1]))
    return diagonalise(c.log_weight, mean, a.unsqueeze(-1) * c.covariance() * a.unsqueeze(-2) + noise)


def diagonalise(log_weight: Tensor, mean: Tensor, covariance: Tensor) -> Components:
    """Components from their covariance matrices `(…, K, S, S)`."""
    variance, basis = torch.linalg.eigh(covariance)
    return Components(log_weight, mean, variance.clamp_min(0.0), basis)


def _whole(matrix: Tensor, size: int) -> Tensor:
    """A matrix on dimension 1 of the state as one on the flattened state: `(S, S)` or `(B, 1, S, S)`."""
    rest = size // matrix.shape[-1]
    eye = torch.eye(rest, dtype=matrix.dtype, device=matrix.device)
    whole = torch.einsum("...ij,kl->...ikjl", matrix, eye).reshape(*matrix.shape[:-2], size, size)
    return whole.unsqueeze(-3) if matrix.ndim > 2 else whole


def carry(c: Components, law: Transition, shape: torch.Size) -> Components:
    """The components of x(t1) where those of x(t0) are c and `law` is the transition; shape is that of a sample."""
    if isinstance(law, ElementwiseTransition):
        return _carry_elementwise(c, law, shape)
    size = c.mean.shape[-1]
    m, noise = _whole(law.multiplier, size), _whole(law.covariance, size)
    offset = law.offset.repeat_interleave(size // law.offset.shape[-1], -1)
    mean = (m @ c.mean.unsqueeze(-1)).squeeze(-1) + (offset.unsqueeze(-2) if offset.ndim > 1 else offset)
    return diagonalise(c.log_weight, mean, m @ c.covariance() @ m.mT + noise)


def pull_back(law: Transition, v: Tensor, shape: torch.Size) -> Tensor:
    """Mᵀ v for v `(B, K, S)`, M the multiplier of the transition."""
    if isinstance(law, ElementwiseTransition):
        return _flat(law.multiplier, shape) * v
    return (_whole(law.multiplier, v.shape[-1]).mT @ v.unsqueeze(-1)).squeeze(-1)
