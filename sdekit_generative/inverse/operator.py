"""What an operator is: the map from an image to what is observed of it.

    y = A(x) + σ_y n,   n standard normal

Notation and shapes
    x       images `(B, *shape)`: `(B, C, H, W)`, and wherever it means something `(B, D)`
    y       observations, `(B, …)` in a shape that the operator chooses
    Aᵀ      adjoint: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for all x and y
    A⁺      pseudo-inverse
    U, s    left singular vectors and values: A Aᵀ = U diag(s²) Uᵀ

An operator never mixes the samples of a batch, and computes in the dtype of what it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import UserError


class MeasurementError(UserError, ValueError):
    """An operator, an observation and images that do not fit together."""


Pullback = Callable[[Tensor], Tensor]
"""`v -> (∂A/∂x)ᵀ v`, from the shape of y to the shape of x."""


class Operator(Protocol):
    """Any map from images to observations that can be differentiated."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def linearise(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """A(x), and the transposed derivative at x."""
        ...

    def keep(self, y: Tensor) -> Tensor:
        """y with the entries that nothing was measured at set to 0, whatever they held."""
        ...


class SVD(NamedTuple):
    """A Aᵀ = U diag(s²) Uᵀ on the space of observations.

    values   s, broadcasting with what `analyse` returns; may be 0
    analyse  y -> Uᵀ y, complex where U is;  synthesise  its inverse. Both keep lengths.
    """

    values: Tensor
    analyse: Callable[[Tensor], Tensor]
    synthesise: Callable[[Tensor], Tensor]

    def apply(self, function: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        """`φ(A Aᵀ) y`, φ a function of s², which it is given with as many dimensions as `analyse` returns."""
        coefficients = self.analyse(y)
        squares = self.values.square()
        squares = squares.reshape((1,) * (coefficients.ndim - squares.ndim) + squares.shape)
        return self.synthesise(function(squares) * coefficients)


_NEGLIGIBLE = 1e-5  # singular values below this fraction of the largest count as 0


class Linear(ABC):
    """A linear operator: `forward` and `adjoint`, and where they are cheap the singular values.

    A subclass gives `forward` and `adjoint`; the pseudo-inverse follows from `svd`.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y."""

    def svd(self, y: Tensor) -> SVD | None:
        """The singular values and vectors for observations like y; None where they are not cheap."""
        return None

    def keep(self, y: Tensor) -> Tensor:
        return y

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def linearise(self, x: Tensor) -> tuple[Tensor, Pullback]:
        return self.forward(x), self.adjoint

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """`A⁺ y = Aᵀ (A Aᵀ)⁺ y`, the shortest x that explains y best. Raises MeasurementError where no SVD is cheap."""
        svd = self.svd(y)
        if svd is None:
            raise MeasurementError(
                f"{type(self).__name__} has no cheap singular values; use inverse.as_matrix(operator, shape)"
            )
        return self.adjoint(svd.apply(inverted, y))

    def __matmul__(self, other: Linear) -> Composed:
        """`(A @ B)(x) = A(B(x))`."""
        return Composed(self, other)


def inverted(squares: Tensor) -> Tensor:
    """1/s², and 0 where s is negligible: the function of A Aᵀ that makes A⁺."""
    small = squares <= squares.amax() * _NEGLIGIBLE**2
    return torch.where(small, torch.zeros_like(squares), 1.0 / torch.where(small, torch.ones_like(squares), squares))


@dataclass(frozen=True, eq=False)
class Composed(Linear):
    """One linear operator after another: `outer(inner(x))`."""

    outer: Linear
    inner: Linear

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def keep(self, y: Tensor) -> Tensor:
        return self.outer.keep(y)


@dataclass(frozen=True, eq=False)
class FromFunction(Linear):
    """A linear operator of one's own, from one function; the adjoint is found by automatic differentiation.

    function  `(B, *shape) -> (B, …)`, linear, sample by sample, made of differentiable torch operations
    shape     the shape of one image, without B

    Raises TypeError for what is no function.

    Reference: Aᵀ y is the gradient of ⟨A x, y⟩ with respect to x.
    """

    function: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"FromFunction: function must be callable, got {self.function!r}")

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def adjoint(self, y: Tensor) -> Tensor:
        zero = torch.zeros((len(y), *self.shape), dtype=y.dtype, device=y.device)
        with torch.enable_grad():
            return torch.func.vjp(self.function, zero)[1](y)[0]


@dataclass(frozen=True, eq=False)
class Matrix(Linear):
    """A matrix `(M, D)` on flattened images; its singular value decomposition is made once.

    shape     the shape of one image, D entries; None: flat `(B, D)`
    observed  the shape of one observation, M entries; None: flat `(B, M)`

    Raises MeasurementError where matrix and shapes do not fit.
    """

    matrix: Tensor
    shape: tuple[int, ...] | None = None
    observed: tuple[int, ...] | None = None
    _decomposed: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2:
            raise MeasurementError(f"Matrix: expected (M, D), got shape {tuple(self.matrix.shape)}")
        rows, columns = self.matrix.shape
        for name, shape, size in (("shape", self.shape, columns), ("observed", self.observed, rows)):
            if shape is not None and torch.Size(shape).numel() != size:
                raise MeasurementError(f"Matrix: {name} {tuple(shape)} does not hold {size} entries")
        left, values, _ = torch.linalg.svd(self.matrix.double(), full_matrices=True)
        padded = torch.zeros(rows, dtype=torch.float64, device=self.matrix.device)
        padded[: len(values)] = values
        object.__setattr__(self, "_decomposed", (left, padded))

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1) @ self.matrix.to(x).mT
        return y if self.observed is None else y.reshape(-1, *self.observed)

    def adjoint(self, y: Tensor) -> Tensor:
        x = y.flatten(1) @ self.matrix.to(y)
        return x if self.shape is None else x.reshape(-1, *self.shape)

    def svd(self, y: Tensor) -> SVD:
        left, values = (part.to(y) for part in self._decomposed)
        return SVD(values, lambda v: v.flatten(1) @ left, lambda c: (c @ left.mT).reshape(-1, *y.shape[1:]))


def as_matrix(operator: Linear, shape: tuple[int, ...], like: Tensor | None = None) -> Matrix:
    """The operator as a matrix, found by applying it to every unit image of the given shape.

    like: a tensor whose dtype and device the operator takes; None: float64 on the CPU.
    """
    size = torch.Size(shape).numel()
    unit = (
        torch.eye(size, dtype=torch.float64) if like is None else torch.eye(size, dtype=like.dtype, device=like.device)
    )
    columns = operator.forward(unit.reshape(size, *shape))
    return Matrix(columns.flatten(1).mT.contiguous(), tuple(shape), tuple(columns.shape[1:]))


def adjoint_error(
    operator: Linear, shape: tuple[int, ...], probes: int = 2, seed: int = 0, like: Tensor | None = None
) -> float:
    """The largest `|⟨A x, y⟩ − ⟨x, Aᵀ y⟩| / (‖A x‖ ‖y‖)` over random x and y: a rounding error, for a true adjoint.

    like: as in `as_matrix`.

    Raises MeasurementError where the adjoint does not return images of that shape.
    """
    where = torch.zeros((), dtype=torch.float64) if like is None else like
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((probes, *shape), dtype=where.dtype, generator=generator).to(where.device)
    image = operator.forward(x)
    y = operator.keep(torch.randn(image.shape, dtype=where.dtype, generator=generator).to(where.device))
    back = operator.adjoint(y)
    if back.shape != x.shape:
        raise MeasurementError(
            f"{type(operator).__name__}: the adjoint returns shape {tuple(back.shape[1:])} for images of shape {tuple(shape)}"
        )
    image, y, x, back = (v.double() for v in (image, y, x, back))
    left, right = (image * y).flatten(1).sum(1), (x * back).flatten(1).sum(1)
    size = image.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    return float(((left - right).abs() / size.clamp_min(torch.finfo(x.dtype).tiny)).max())
