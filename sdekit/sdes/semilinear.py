"""SDEs whose drift has a linear part that is known, so that a solver can take that part exactly.

    dx = (A x + F(t, x)) dt + G(t, x) dW

Notation and shapes
    x       state `(B, *shape)`
    A       element-wise: a float, or a tensor that broadcasts to x.  Matrix: `(D, D)`, acting on dimension 1 of the
            state where that has length D (alike on everything behind it), else on the state flattened to `(B, D)`
    h       signed step: a float, 0-d, or `(B, 1, …, 1)`

A tensor with two dimensions is always a matrix: for element-wise coefficients on a state `(B, D, E)` write `(1, D, E)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ..arguments import floating
from ..phi import phi1
from ..protocols import Calculus, Diffusion, Direction, Function, Noise, match
from .transition import act, split_state


class Flow(Protocol):
    """Functions of the matrix hA, applied to a state."""

    def carry(self, x: Tensor) -> Tensor:
        """`e^(hA) x`."""
        ...

    def gather(self, f: Tensor) -> Tensor:
        """`∫ e^(A(h−s)) f ds = h φ₁(hA) f`."""
        ...

    def blur(self, noise: Tensor) -> Tensor:
        """`√φ₁(2hA) G W`, which has the law of `∫ e^(A(h−s)) G dW` where A and G Gᵀ commute."""
        ...


@dataclass(frozen=True)
class _Spectrum:
    """By the eigenvalues ha of hA; `to` and `fro` change to the basis of its eigenvectors and back."""

    a: Tensor
    h: float | Tensor
    to: Callable[[Tensor], Tensor]
    fro: Callable[[Tensor], Tensor]

    def _apply(self, factor: Tensor, x: Tensor) -> Tensor:
        y = self.to(x)
        return self.fro(match(factor, y) * y)

    def carry(self, x: Tensor) -> Tensor:
        return self._apply(torch.exp(self.a * self.h), x)

    def gather(self, f: Tensor) -> Tensor:
        return self._apply(phi1(self.a * self.h) * self.h, f)

    def blur(self, noise: Tensor) -> Tensor:
        return self._apply(phi1(2.0 * self.a * self.h).sqrt(), noise)


@dataclass(frozen=True)
class _Powers:
    """By the exponential of [[hA, I], [0, 0]], whose first row is e^(hA) and φ₁(hA); `(D, D)` or `(B, D, D)`."""

    exponential: Tensor
    phi: Tensor
    h: float | Tensor

    def carry(self, x: Tensor) -> Tensor:
        return act(self.exponential, x)

    def gather(self, f: Tensor) -> Tensor:
        return act(self.phi, f * self.h)

    def blur(self, noise: Tensor) -> Tensor:
        # the mean of ∫ e^(A(h−s)) G dW given W; a matrix that is not symmetric need not have a real root
        return act(self.phi, noise)


@dataclass(frozen=True, eq=False)
class Semilinear:
    """An SDE with a known linear part: dx = (A x + F(t, x)) dt + G(t, x) dW (Itô).

    Args:
        linear: A: a float, a tensor (element-wise) or a matrix `(D, D)`. Symmetric matrices are taken by their
            eigenvectors, others by matrix exponentials.
        nonlinear: `(t, x) -> F`, of the shape of x; None for a linear drift.
        diffusion: `(t, x) -> G`, a tensor or `Dense`; None, with Noise.NONE, for an ODE.
        noise: what G depends on.
        direction: the direction of time in which the law runs.

    Raises:
        TypeError: linear is neither a number nor a tensor, or a function is not callable.
        ValueError: a matrix that is not square, or noise without diffusion (or the reverse).
    """

    linear: float | Tensor
    nonlinear: Function | None = None
    diffusion: Callable[[Tensor, Tensor], Diffusion] | None = None
    noise: Noise = Noise.NONE
    direction: Direction = Direction.FORWARD
    _eigen: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        a = self.linear
        if isinstance(a, bool) or not isinstance(a, (int, float, Tensor)):
            raise TypeError(f"Semilinear: linear must be a float, a tensor or a matrix (D, D), got {a!r}")
        if isinstance(a, Tensor):
            a = floating("Semilinear: linear", a)
            object.__setattr__(self, "linear", a)
        for name in ("nonlinear", "diffusion"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"Semilinear: {name} must be a function of (t, x), got {value!r}")
        if (self.diffusion is None) != (self.noise is Noise.NONE):
            state = "missing" if self.diffusion is None else "given"
            raise ValueError(
                f"Semilinear: diffusion is {state} and noise is {self.noise}: give both, for example "
                "diffusion=lambda t, x: 0.1 * torch.ones_like(x), noise=Noise.ADDITIVE"
            )
        if isinstance(a, Tensor) and a.ndim == 2 and a.shape[0] != a.shape[1]:
            raise ValueError(
                f"Semilinear: linear, a matrix, must be square, got {tuple(a.shape)}; for element-wise coefficients on a state "
                f"(B, D, E) write them as (1, D, E)"
            )
        # a matrix that is being learned may change between steps
        eigen = _eigen(a) if isinstance(a, Tensor) and a.ndim == 2 and not a.requires_grad else None
        object.__setattr__(self, "_eigen", eigen)

    @property
    def calculus(self) -> Calculus:
        return Calculus.ITO

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """A x + F(t, x)."""
        linear = self.linear_drift(x)
        return linear if self.nonlinear is None else linear + self.nonlinear(t, x)

    def linear_drift(self, x: Tensor) -> Tensor:
        """A x."""
        a = self.linear
        if isinstance(a, Tensor) and a.ndim == 2:
            return act(a, x)
        return (a.to(x) if isinstance(a, Tensor) else a) * x

    def flow(self, h: float | Tensor, x: Tensor) -> Flow:
        """The functions of hA that an exponential integrator needs over a step h, for a state like x."""
        a = torch.as_tensor(self.linear, dtype=torch.float64, device=x.device)
        if isinstance(h, Tensor):
            h = h.to(torch.float64)
        if a.ndim != 2:
            return _Spectrum(a, h, lambda y: y, lambda y: y)
        eigen = _eigen(a) if a.requires_grad else self._eigen
        if eigen is not None:
            values, vectors = (v.to(x.device) for v in eigen)
            size = (-1, 1, 1) if isinstance(h, Tensor) and h.ndim > 0 else ()
            return _Spectrum(
                values[:, None],
                h.reshape(size) if isinstance(h, Tensor) else h,
                lambda y: vectors.mT.to(y) @ split_state(y, len(values)),
                lambda y: (vectors.to(y) @ y).reshape(x.shape),
            )
        return _powers(a, h, x)


def _eigen(a: Tensor) -> tuple[Tensor, Tensor] | None:
    """Eigenvalues and eigenvectors of a symmetric matrix, in float64; None of any other."""
    wide = a.to(torch.float64)
    if not torch.equal(wide, wide.mT):
        return None
    return cast(tuple[Tensor, Tensor], torch.linalg.eigh(wide))


def _powers(a: Tensor, h: float | Tensor, x: Tensor) -> _Powers:
    size = len(a)
    span = torch.as_tensor(h, dtype=torch.float64, device=x.device)
    span = span.reshape(-1, 1, 1) if span.ndim > 0 else span
    block = torch.zeros(2 * size, 2 * size, dtype=torch.float64, device=x.device)
    block[:size, :size] = a
    # a left half of hA and a right half of I: the step multiplies one of the two only
    scaled = block * span
    scaled[..., :size, size:] = torch.eye(size, dtype=torch.float64, device=x.device)
    e = torch.matrix_exp(scaled)
    return _Powers(e[..., :size, :size], e[..., :size, size:], match(h, x) if isinstance(h, Tensor) else h)
