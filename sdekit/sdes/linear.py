"""Linear SDEs with exact Gaussian transitions.

    dx = (A(t) x + b(t)) dt + L(t) dW

Notation and shapes
    x       state `(B, *shape)`
    A, b, L element-wise: floats, or tensors that broadcast to x, each component on its own.
            Matrix: A `(D, D)`, b a float or `(D,)`, L a float, `(D,)` (a diagonal) or `(D, m)`. A matrix acts on
            dimension 1 of the state where that has length D (alike and independently on everything behind it), else
            on the state flattened to `(B, D)`
    t       time, float64; a function of time gets it 0-d, or with a leading B where every sample has its own:
            `(B, 1, 1)` for a matrix, `(B, 1)` for a vector, else `(B, 1, …, 1)`

A tensor with two dimensions is always a matrix: for element-wise coefficients on a state `(B, D, E)` write `(1, D, E)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..arguments import floating
from ..protocols import Dense, Diffusion, as_time, broadcast, match
from .contract import Additive
from .moments import Coefficients, constant_moments, varying_moments
from .process import Time, check_order
from .transition import ElementwiseTransition, MatrixTransition, Transition, act, column, split_state

Value = float | Tensor
Coefficient = Value | Callable[[Tensor], Value]

_PROBE_TIME = 0.5  # where a function of time is asked whether it gives matrices


@dataclass(frozen=True, eq=False)
class LinearSDE(Additive):
    """A linear SDE with additive noise: dx = (A(t) x + b(t)) dt + L(t) dW (Itô and Stratonovich agree).

    Args:
        A: float or tensor (element-wise), or matrix `(D, D)`; or a function of t that returns one.
        b: float, tensor, or function of t.
        L: float, tensor (element-wise), `(D,)` or matrix `(D, m)`; or a function of t.
        pieces: into how many pieces `transition` cuts a span where a coefficient is a function of time; its error
            falls as pieces⁻⁶. Constant coefficients are exact.

    Raises:
        TypeError: a coefficient is neither a number, a tensor, nor a function of t.
        ValueError: matrices whose sizes do not fit together.
    """

    A: Coefficient
    b: Coefficient = 0.0
    L: Coefficient = 1.0
    pieces: int = 32
    size: int | None = field(init=False, repr=False)  # D of the matrix case, None for the element-wise case
    noise_rank: int = field(init=False, repr=False)  # dimensions of L: 0, 1 (a diagonal) or 2 (a matrix)

    def __post_init__(self) -> None:
        for name in ("A", "b", "L"):
            value = getattr(self, name)
            if not (callable(value) or isinstance(value, (int, float, Tensor))):
                raise TypeError(f"LinearSDE: {name} must be a float, a tensor or a function of t, got {value!r}")
            if isinstance(value, Tensor):
                floating(f"{type(self).__name__}: {name}", value)
        if self.pieces < 1:
            raise ValueError(f"LinearSDE: pieces must be 1 or more, got {self.pieces}")
        t = as_time(_PROBE_TIME)
        a, b, noise = (floating(f"{type(self).__name__}: {n}", _value(getattr(self, n), t)) for n in ("A", "b", "L"))
        object.__setattr__(self, "size", _matrix_size(a, b, noise))
        object.__setattr__(self, "noise_rank", noise.ndim)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """A(t) x + b(t)."""
        if self.size is None:
            try:
                return match(_value(self.A, t), x) * x + match(_value(self.b, t), x)
            except RuntimeError as error:
                raise ValueError(f"{type(self).__name__}: coefficients do not fit a state {tuple(x.shape)}") from error
        moved = act(self._full_drift(t, self.size), x)
        return moved if self._is_zero(self.b) else moved + column(self._full_offset(t, self.size), x)

    def diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        """L(t): a tensor that broadcasts to x, or `Dense` where L is a matrix."""
        if self.size is None or self.noise_rank == 0:
            return torch.as_tensor(match(_tensor(self.L, t), x))
        if self.noise_rank == 1:
            return column(_tensor(self.L, _for_vector(t)), x)
        noise = _tensor(self.L, _for_matrix(t))
        rest = split_state(x, self.size).shape[-1]
        if rest > 1:  # every column behind the matrix axis has Brownian motions of its own
            noise = torch.kron(noise, torch.eye(rest, dtype=noise.dtype, device=noise.device))
        return Dense(noise.to(x).reshape(-1, *x.shape[1:], noise.shape[-1]))

    def transition(self, t0: Time, t1: Time) -> Transition:
        """The law of x(t1) given x(t0), t0 ≤ t1.

        Raises:
            ValueError: t1 lies before t0.
        """
        check_order(t0, t1)
        start, end = broadcast(as_time(t0), as_time(t1))
        if self.size is None:
            return self._elementwise(start, end)
        if start.ndim > 0:
            start, end = start.reshape(-1), end.reshape(-1)
        if self._constant:
            moments = constant_moments(self._coefficients(start), end - start)
        else:
            moments = varying_moments(self._coefficients, start, end, self.pieces)
        return MatrixTransition(moments.multiplier, moments.covariance, moments.offset)

    def marginal(self, t: Time) -> Transition:
        """The law of x(t) given x(0)."""
        return self.transition(0.0, t)

    @property
    def _constant(self) -> bool:
        return not any(callable(c) for c in (self.A, self.b, self.L))

    def _elementwise(self, start: Tensor, end: Tensor) -> ElementwiseTransition:
        if self._constant:
            h = end - start
            a, b, noise = (_tensor(c, h) for c in (self.A, self.b, self.L))
            return ElementwiseTransition(
                torch.exp(a * h), noise.square() * h * _phi1(2.0 * a * h), offset=b * h * _phi1(a * h)
            )

        def at(t: Tensor) -> Coefficients:
            a, b, noise = broadcast(*(_tensor(c, t) for c in (self.A, self.b, self.L)))
            return Coefficients(a[..., None, None], noise.square()[..., None, None], b[..., None])

        moments = varying_moments(at, start, end, self.pieces)
        return ElementwiseTransition(
            moments.multiplier[..., 0, 0], moments.covariance[..., 0, 0], offset=moments.offset[..., 0]
        )

    def _coefficients(self, t: Tensor) -> Coefficients:
        """Full matrices of the matrix case at times `()` or `(B,)`."""
        size = self.size or 1
        if self.noise_rank == 2:
            noise = _tensor(self.L, _for_matrix(t))
            squared = noise @ noise.mT
        else:
            squared = torch.diag_embed(_full_vector(_tensor(self.L, _for_vector(t)), size).square())
        return Coefficients(self._full_drift(t, size), squared, self._full_offset(t, size))

    def _full_drift(self, t: Tensor, size: int) -> Tensor:
        a = _tensor(self.A, _for_matrix(t))
        return a if a.shape[-2:] == (size, size) else a * torch.eye(size, dtype=torch.float64, device=a.device)

    def _full_offset(self, t: Tensor, size: int) -> Tensor:
        return _full_vector(_tensor(self.b, _for_vector(t)), size)

    @staticmethod
    def _is_zero(coefficient: Coefficient) -> bool:
        return isinstance(coefficient, (int, float)) and coefficient == 0


def _value(coefficient: Coefficient, t: Tensor) -> Value:
    """A coefficient at time t; tensors in float64, so that schedule algebra keeps its digits."""
    value = coefficient(t) if callable(coefficient) and not isinstance(coefficient, Tensor) else coefficient
    return value.to(torch.float64) if isinstance(value, Tensor) else value


def _tensor(coefficient: Coefficient, t: Tensor) -> Tensor:
    return torch.as_tensor(_value(coefficient, t), dtype=torch.float64)


def _for_matrix(t: Tensor) -> Tensor:
    return t if t.ndim == 0 else t.reshape(-1, 1, 1)


def _for_vector(t: Tensor) -> Tensor:
    return t if t.ndim == 0 else t.reshape(-1, 1)


def _full_vector(v: Tensor, size: int) -> Tensor:
    return v.expand(*v.shape[:-1], size)


def _phi1(z: Tensor) -> Tensor:
    """(e^z − 1)/z, 1 at z = 0."""
    return torch.where(z == 0, 1.0, torch.expm1(z) / torch.where(z == 0, 1.0, z))


def _matrix_size(a: Tensor, b: Tensor, noise: Tensor) -> int | None:
    if a.ndim != 2 and noise.ndim != 2:
        return None
    size = a.shape[0] if a.ndim == 2 else noise.shape[0]
    fits = (
        (a.ndim == 0 or a.shape == (size, size))
        and (b.ndim == 0 or b.shape == (size,))
        and (noise.ndim == 0 or (noise.ndim <= 2 and noise.shape[0] == size))
    )
    if not fits:
        raise ValueError(
            f"LinearSDE: A (D, D), b (D,) and L (D, m) do not fit together: A {tuple(a.shape)}, b {tuple(b.shape)}, "
            f"L {tuple(noise.shape)}. For element-wise coefficients on a state (B, D, E) write them as (1, D, E)."
        )
    return size
