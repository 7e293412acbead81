"""Exact Gaussian laws of a linear SDE's state at one time, given its state at another.

    x(t1) | x(t0) = x   ~   N(M x + m, C)

Notation and shapes
    x       state `(B, *shape)`
    M, m, C element-wise: tensors that broadcast to x.  Matrix: `(D, D)`, `(D,)`, `(D, D)`, or with a leading B, acting
            on dimension 1 of x where that has length D (and alike on everything behind it), else on the state
            flattened to `(B, D)`

Coefficients are float64; results have the dtype and device of x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..arguments import check_like, check_state
from ..protocols import match
from ..random import Draws, Purpose, as_draws


def split_state(x: Tensor, size: int) -> Tensor:
    """The state as `(B, D, rest)`, the axis of length D = `size` being the one that a matrix acts on.

    Raises:
        ValueError: neither dimension 1 nor the whole state has D entries.
    """
    if x.ndim > 1 and (x.shape[1] == size or x.shape[1:].numel() == size):
        return x.reshape(x.shape[0], size, -1)
    raise ValueError(
        f"a {size}x{size} matrix acts on dimension 1 of the state or on the whole state flattened to {size} entries; "
        f"the state has shape {tuple(x.shape)}"
    )


def act(matrix: Tensor, x: Tensor) -> Tensor:
    """`M x` for a matrix `(D, D)` or `(B, D, D)` in the dtype of x, of the shape of x."""
    matrix, split = matrix.to(x), split_state(x, matrix.shape[-1])
    if matrix.ndim == 2 and split.shape[-1] == 1:  # one product of matrices in place of B products with a vector
        return (split[..., 0] @ matrix.mT).reshape(x.shape)
    return (matrix @ split).reshape(x.shape)


def column(vector: Tensor, x: Tensor) -> Tensor:
    """A vector `(D,)` or `(B, D)` made ready to be added to x along the axis that a matrix `(D, D)` acts on."""
    split = split_state(x, vector.shape[-1])
    return vector.to(x).unsqueeze(-1).expand_as(split).reshape(x.shape)


def square_root(covariance: Tensor) -> Tensor:
    """R with `R Rᵀ = C`, for C that may be singular, as it is over short times where not every component has noise."""
    values, vectors = cast(tuple[Tensor, Tensor], torch.linalg.eigh(covariance))
    return vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)


@dataclass(frozen=True)
class ElementwiseTransition:
    """x(t1) | x(t0) = x ~ N(a x + m, c) for every component on its own.

    multiplier a, offset m, variance c: float64 tensors that broadcast to x (0-d where all components are alike).
    """

    multiplier: Tensor
    variance: Tensor
    offset: Tensor | float = 0.0

    @property
    def std(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def mean(self, x: Tensor) -> Tensor:
        """E[x(t1) | x(t0) = x] = a x + m, of the shape of x."""
        check_state("x", x)
        return match(self.multiplier, x) * x + match(self.offset, x)

    def sample(
        self, x: Tensor, seed: int | Draws = 0, first: int = 0, purpose: Purpose = Purpose.PATH, step: int = 0
    ) -> Tensor:
        """One draw for every sample of x; draw i depends on (seed, first + i) and on x_i only."""
        check_state("x", x)
        z = as_draws(seed, first).normal(purpose, step, tuple(x.shape), x.dtype, x.device)
        return self.mean(x) + match(self.std, x) * z

    def log_prob(self, x1: Tensor, x0: Tensor) -> Tensor:
        """The log-density of x1 given x0, shape `(B,)`."""
        check_state("x1", x1)
        check_like("x0", x0, "x1", x1, spread=True)
        check_state("x0", x0)
        variance = torch.as_tensor(match(self.variance, x1))
        terms = (x1 - self.mean(x0)).square() / variance + torch.log(2.0 * math.pi * variance)
        return -0.5 * terms.expand_as(x1).flatten(1).sum(1)


@dataclass(frozen=True)
class MatrixTransition:
    """x(t1) | x(t0) = x ~ N(M x + m, C) with matrices; several columns of x behind the matrix axis are independent.

    multiplier M `(D, D)`, covariance C `(D, D)`, offset m `(D,)`, each float64 and with a leading B where every
    sample has its own times.
    """

    multiplier: Tensor
    covariance: Tensor
    offset: Tensor

    def mean(self, x: Tensor) -> Tensor:
        """E[x(t1) | x(t0) = x] = M x + m, of the shape of x."""
        check_state("x", x)
        return act(self.multiplier, x) + column(self.offset, x)

    def sample(
        self, x: Tensor, seed: int | Draws = 0, first: int = 0, purpose: Purpose = Purpose.PATH, step: int = 0
    ) -> Tensor:
        """One draw for every sample of x; draw i depends on (seed, first + i) and on x_i only."""
        check_state("x", x)
        z = as_draws(seed, first).normal(purpose, step, tuple(x.shape), x.dtype, x.device)
        return self.mean(x) + act(square_root(self.covariance), z)

    def log_prob(self, x1: Tensor, x0: Tensor) -> Tensor:
        """The log-density of x1 given x0, shape `(B,)`; C must be regular."""
        root = cast(Tensor, torch.linalg.cholesky(self.covariance))
        check_state("x1", x1)
        check_like("x0", x0, "x1", x1, spread=True)
        check_state("x0", x0)
        deviation = split_state((x1 - self.mean(x0)).to(root.dtype), root.shape[-1])
        roots = root.expand(len(x1), *root.shape[-2:])
        white = cast(Tensor, torch.linalg.solve_triangular(roots, deviation, upper=False))
        half_log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) * deviation.shape[-1]
        size = deviation.shape[1:].numel()
        return (-0.5 * white.square().sum((1, 2)) - half_log_det - 0.5 * size * math.log(2.0 * math.pi)).to(x1.dtype)


Transition = ElementwiseTransition | MatrixTransition
