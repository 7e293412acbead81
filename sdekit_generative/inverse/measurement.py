"""An observation together with the operator and the noise that made it: what every method conditions on.

    y = A(x) + σ_y n

Notation as in `operator`; r = y − A(x) the residual; M the number of entries that were measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdekit.arguments import check_state

from ..data.dequantize import DataRange
from .krylov import conjugate_gradients
from .operator import SVD, MeasurementError, Operator, Pullback, adjoint_error, as_matrix

_LARGEST_MATRIX = 4096  # entries of an image up to which an operator without a cheap SVD is made a matrix
_ADJOINT_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_CG_STEPS = 50


def per_sample(value: Tensor | float, like: Tensor) -> Tensor | float:
    """A number, or one a sample in any shape, made to broadcast with `like`."""
    if isinstance(value, Tensor) and value.ndim > 0:
        return value.to(like.real.dtype).reshape(-1, *(1,) * (like.ndim - 1))
    return value


@dataclass(frozen=True, eq=False)
class Measurement:
    """y `(B, …)` of images x `(B, *shape)`, by `operator`, with Gaussian noise of standard deviation `noise` ≥ 0.

    `Measurement.of` checks that all fits together, and is the way to make one.
    """

    operator: Operator
    y: Tensor
    noise: float
    shape: tuple[int, ...]

    @classmethod
    def of(cls, operator: Operator, y: Tensor, noise: float, shape: tuple[int, ...]) -> Measurement:
        """Raises MeasurementError where the parts do not fit: shapes, an adjoint that is none, NaN, negative noise."""
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 2 or len(y) == 0:
            found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise MeasurementError(f"observed: expected a floating tensor (B, …) with a first dimension, got {found}")
        if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0.0 <= noise < math.inf:
            raise MeasurementError(
                f"noise: the standard deviation of the observation's noise is 0 or more, got {noise!r}"
            )
        for name in ("linearise", "keep"):
            if not hasattr(operator, name):
                raise MeasurementError(
                    f"operator: expected an operator such as inverse.Inpaint(mask), got {operator!r}; "
                    "wrap a linear function in inverse.FromFunction(function, shape)"
                )
        if y.dtype not in (torch.float32, torch.float64) or y.device.type == "meta":
            raise MeasurementError(f"observed: expected float32 or float64 with values, got {y.dtype} on {y.device}")
        check_operator(operator, shape, y)
        expected = operator(torch.zeros((1, *shape), dtype=y.dtype, device=y.device)).shape[1:]
        if y.shape[1:] != expected:
            raise MeasurementError(
                f"observed: {type(operator).__name__} makes {tuple(expected)} of images {tuple(shape)}, "
                f"got {tuple(y.shape[1:])}"
            )
        y = operator.keep(y)
        bad = ~torch.isfinite(y).flatten(1).all(1)
        if bool(bad.any()):
            rows = ", ".join(str(int(i)) for i in bad.nonzero()[:5, 0])
            raise MeasurementError(f"observed: NaN or infinite values were given in sample(s) {rows}")
        return cls(operator, y, float(noise), tuple(shape))

    @property
    def linear(self) -> bool:
        """Whether the operator has an adjoint."""
        return hasattr(self.operator, "adjoint")

    def require_linear(self, name: str) -> None:
        """Raise unless the operator has an adjoint."""
        if not self.linear:
            raise MeasurementError(
                f"{name} needs a linear operator; {type(self.operator).__name__} is not one: use DPS or TwistedSMC"
            )

    def residual(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """`y − A(x)`, and the transposed derivative of A at x."""
        found, pull = self.operator.linearise(x)
        return self.y - found, pull

    @cached_property
    def count(self) -> int:
        """M: how many numbers of one sample were measured."""
        return int(self.operator.keep(torch.ones_like(self.y[:1])).sum())

    @cached_property
    def svd(self) -> SVD | None:
        """Of the operator; by way of a matrix where it has no cheap one and images are small."""
        if not self.linear:
            return None
        operator: Any = self.operator
        found = operator.svd(self.y)
        if found is None and math.prod(self.shape) <= _LARGEST_MATRIX:
            found = as_matrix(operator, self.shape, self.y).svd(self.y)
        return found

    def require_svd(self, name: str) -> SVD:
        """The singular values, or an error that says who wants them."""
        self.require_linear(name)
        if self.svd is None:
            raise MeasurementError(
                f"{name} needs the singular values of the operator, and {type(self.operator).__name__} has no cheap ones: "
                "use PiGDM, MMPS or DPS"
            )
        return self.svd

    def solve(self, v: Tensor, signal: Tensor | float, noise: Tensor | float) -> Tensor:
        """`(a A Aᵀ + b)⁺ v` for variances a and b ≥ 0, numbers or one a sample. For other operators A Aᵀ counts as 1."""
        if not self.linear:
            return v / (per_sample(signal, v) + per_sample(noise, v))

        def inverse(squares: Tensor) -> Tensor:
            total = per_sample(signal, squares) * squares + per_sample(noise, squares)
            return torch.where(total > 0, 1.0 / torch.where(total > 0, total, torch.ones_like(total)), 0.0).to(squares)

        if self.svd is not None:
            return self.svd.apply(_without_dust(inverse, noise), v)
        operator: Any = self.operator

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            q = per_sample(signal, p) * operator.forward(operator.adjoint(p)) + per_sample(noise, p) * p
            return q, q

        return conjugate_gradients(product, v, _CG_STEPS, 1e-6)[0]

    def repeat(self, count: int) -> Measurement:
        """Every sample `count` times, one after the other."""
        return Measurement(self.operator, self.y.repeat_interleave(count, 0), self.noise, self.shape)


def _without_dust(function: Any, noise: Tensor | float) -> Any:
    """The function, with singular values that are rounding errors taken as 0 where there is no noise to hide them."""

    def cleaned(squares: Tensor) -> Tensor:
        if bool(torch.as_tensor(noise > 0).all()):
            return function(squares)
        return torch.where(squares <= squares.amax() * 1e-10, torch.zeros_like(squares), function(squares))

    return cleaned


def check_operator(operator: Operator, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise MeasurementError where an operator that says it is linear is not, or its adjoint is not its adjoint.

    like: a tensor of the dtype and device that are computed in.
    """
    if not hasattr(operator, "adjoint"):
        return
    linear: Any = operator
    name = type(operator).__name__
    error = adjoint_error(linear, shape, like=like)
    if not error <= _ADJOINT_TOLERANCE.get(like.dtype, 1e-2):
        raise MeasurementError(
            f"{name}: the adjoint is wrong, ⟨A x, y⟩ and ⟨x, Aᵀ y⟩ differ by {error:.1e} of their size on random x and y; "
            "or the operator is not linear. inverse.FromFunction finds the adjoint of a linear function"
        )
    offset = float(linear.forward(torch.zeros((1, *shape), dtype=like.dtype, device=like.device)).abs().max())
    if not offset == 0.0:
        raise MeasurementError(f"{name}: not linear, A(0) is {offset:.1e}; subtract it from operator and observation")


@dataclass(frozen=True, eq=False)
class _InRange:
    """An operator on images in [0, 1], applied to images in a model's range."""

    operator: Operator
    data_range: DataRange

    def __call__(self, x: Tensor) -> Tensor:
        return self.operator(self.data_range.leave(x))

    def keep(self, y: Tensor) -> Tensor:
        return self.operator.keep(y)

    def linearise(self, x: Tensor) -> tuple[Tensor, Pullback]:
        found, pull = self.operator.linearise(self.data_range.leave(x))
        return found, lambda v: pull(v) / self.data_range.width


def enter(measurement: Measurement, data_range: DataRange) -> Measurement:
    """A measurement of images in [0, 1] as one of images in a model's range.

    A linear operator stays as it is: `A(x) = width A(image) + low A(1)`, so y and its noise are scaled instead.
    """
    m = measurement
    if not m.linear:
        return Measurement(_InRange(m.operator, data_range), m.y, m.noise, m.shape)
    offset = data_range.low * m.operator(torch.ones((1, *m.shape), dtype=m.y.dtype, device=m.y.device))
    return Measurement(m.operator, data_range.width * m.y + offset, data_range.width * m.noise, m.shape)


def observe(operator: Operator, images: Tensor, noise: float = 0.0, seed: int = 0, first: int = 0) -> Tensor:
    """`A(x) + σ_y n`: an observation of images, with noise where something is measured; n depends on (seed, sample)."""
    from sdekit.random import KeyedDraws, Purpose

    check_state("images", images)
    y = operator(images)
    n = KeyedDraws(seed, first).normal(Purpose.USER, 0, tuple(y.shape), y.dtype, y.device)
    return operator.keep(y + noise * n)
