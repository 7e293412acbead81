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
from abc import ABC, abstractmethod
from typing import NamedTuple, cast

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
        log_weight, mean, variance = (part.to(device) for part in self[:3])
        return Components(log_weight, mean, variance, None if self.basis is None else self.basis.to(device))

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
    variance, basis = cast(tuple[Tensor, Tensor], torch.linalg.eigh(covariance))
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


# --- a carried mixture seen from points -------------------------------------------------------------------------------


class Posterior(ABC):
    """Which component a state came from, and from where in it.

    log_joint `(K, B)`: ln w_k p_k(x). Components stand first: torch reduces a short last axis slowly.
    """

    log_joint: Tensor

    def log_prob(self) -> Tensor:
        """Log-density `(B,)`."""
        return torch.logsumexp(self.log_joint, dim=0)

    def weights(self) -> Tensor:
        """The probability `(K, B)` of every component given x."""
        return torch.softmax(self.log_joint, dim=0)

    @abstractmethod
    def score(self) -> Tensor:
        """The gradient of the log-density, `(B, S)`."""

    @abstractmethod
    def denoised(self) -> Tensor:
        """E[x(0) | x(t) = x], `(B, S)`."""


def posterior(c: Components, law: Transition, x: Tensor, shape: torch.Size) -> Posterior:
    """The components c, carried by `law`, seen from flattened float64 points x `(B, S)`."""
    if isinstance(law, ElementwiseTransition) and c.basis is None and c.variance.shape[-1] == 1:
        a, variance, offset = (_flat(v, shape) for v in (law.multiplier, law.variance, law.offset))
        if a.shape[-1:] in ((), (1,)) and variance.shape[-1:] in ((), (1,)):
            return _Isotropic(c, _column(a), _column(variance), offset, x)
    return _General(c, law, x, shape)


class _Isotropic(Posterior):
    """Components and a process that treat all entries alike: products of matrices do all the work.

    a, c: multiplier and variance of the transition, 0-d, `(1,)` or `(B, 1)`.
    """

    def __init__(self, c: Components, a: Tensor, variance: Tensor, offset: Tensor, x: Tensor) -> None:
        size = x.shape[-1]
        self.a, self.spread = a, c.variance  # (K, 1)
        self.centre = c.log_weight.exp() @ c.mean
        self.means = c.mean - self.centre  # centred, so that squares lose fewer digits
        self.x = x - a * self.centre - (offset[:, 0] if offset.ndim > 1 else offset)
        a_row, self.noise = _row(a), _row(variance)
        total = a_row.square() * self.spread + self.noise  # (K, 1) or (K, B)
        self.precision = 1.0 / total
        squares = (self.x.square() @ self.x.new_ones(size, 1)).mT
        squares = squares - 2.0 * a_row * (self.means @ self.x.mT)
        squares = squares + a_row.square() * self.means.square().sum(-1, keepdim=True)
        log_det = size * (torch.log(total) + _LOG_2PI)
        self.log_joint = c.log_weight.unsqueeze(-1) - 0.5 * (squares * self.precision + log_det)

    def score(self) -> Tensor:
        pull = self.weights() * self.precision
        return self.a * (pull.mT @ self.means) - pull.sum(0).unsqueeze(-1) * self.x

    def denoised(self) -> Tensor:
        pull = self.weights() * self.precision
        towards_x = (pull * self.spread).sum(0).unsqueeze(-1)
        return self.centre + self.a * towards_x * self.x + (pull * self.noise).mT @ self.means


def _column(v: Tensor) -> Tensor:
    return v[..., 0] if v.ndim > 1 else v


def _row(v: Tensor) -> Tensor:
    return v.mT if v.ndim > 1 else v


class _General(Posterior):
    """Any components under any transition."""

    def __init__(self, c: Components, law: Transition, x: Tensor, shape: torch.Size) -> None:
        self.start, self.law, self.shape = c, law, shape
        carried = carry(c, law, shape)
        self.precision, distance = carried.solve(x.unsqueeze(1) - carried.mean)  # Σ_k⁻¹ (x − μ_k), (B, K, S)
        size = x.shape[-1]
        log_det = torch.log(carried.variance).sum(-1) * (size // carried.variance.shape[-1]) + size * _LOG_2PI
        self.log_joint = (c.log_weight - 0.5 * (distance + log_det)).mT

    def score(self) -> Tensor:
        return -torch.einsum("kb,bks->bs", self.weights(), self.precision)

    def denoised(self) -> Tensor:
        means = self.start.mean + self.start.spread(pull_back(self.law, self.precision, self.shape))
        return torch.einsum("kb,bks->bs", self.weights(), means)
