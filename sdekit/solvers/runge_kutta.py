"""Explicit Runge–Kutta methods, for ODEs and for Stratonovich SDEs, by one stepper.

A Runge–Kutta method applied to the "slope" `f dt + G ∘ dW` of one step, frozen as `f h + G W`, solves the ODE driven by
the piecewise linear interpolation of the path, and that converges to the Stratonovich solution (Wong, Zakai 1965).
So every tableau here is an ODE method where there is no noise and a Stratonovich method where there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Noise, Order, Span, Step, advance, apply
from . import tableaux
from .tableaux import Row, Tableau


def combine(weights: Row, slopes: Sequence[Tensor]) -> Tensor:
    """`Σ w_i k_i`, skipping zeros; zero if all are."""
    total: Tensor | None = None
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            total = slope * weight if total is None else torch.add(total, slope, alpha=weight)
    return torch.zeros_like(slopes[0]) if total is None else total


def stage_time(span: Span, node: float) -> Tensor:
    """`t0 + c h` in float64."""
    if node == 0.0:
        return span.t0
    return span.t1 if node == 1.0 else torch.lerp(span.t0, span.t1, node)


def _deterministic(order: int) -> dict[Noise, Order]:
    return {Noise.NONE: Order(order, order)}


def _stratonovich(order: int) -> dict[Noise, Order]:
    one = Order(1.0, 1.0)
    return _deterministic(order) | {
        Noise.ADDITIVE: one,
        Noise.DIAGONAL: one,
        Noise.SCALAR: one,
        Noise.COMMUTATIVE: one,
        Noise.GENERAL: Order(0.5, 1.0),
    }


class RungeKutta:
    """The stepper shared by all explicit tableaux; a method is a subclass that names its tableau and orders."""

    tableau: ClassVar[Tableau]
    orders: ClassVar[dict[Noise, Order]]
    calculus: ClassVar[Calculus | None] = Calculus.STRATONOVICH
    levy: ClassVar[Levy] = Levy.W

    @property
    def error_order(self) -> float | None:
        embedded = self.tableau.embedded_order
        return None if embedded is None else embedded + 1.0

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Any:
        if self.tableau.first_same_as_last and sde.noise is Noise.NONE:
            return sde.drift(t, x)
        return None

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        tableau = self.tableau
        # slopes carry the factor h where there is noise, since W has no 1/h to divide by
        h: float | Tensor = span.h if dw is None else 1.0
        slopes: list[Tensor] = []
        y = x
        for row, node in zip(tableau.a, tableau.c, strict=True):
            if row:
                y = advance(x, combine(row, slopes), h)
                slopes.append(self._slope(sde, stage_time(span, node), span.h, y, dw))
            else:
                slopes.append(self._slope(sde, span.t0, span.h, x, dw) if state is None else state)
        # where the last stage is the new point, it has been computed already
        new = y if tableau.first_same_as_last else advance(x, combine(tableau.b, slopes), h)
        error = None if tableau.e is None else combine(tableau.e, slopes) * h
        keep = slopes[-1] if tableau.first_same_as_last and dw is None else None
        return Step(new, error, keep, interpolate=self._dense(span, x, new, slopes) if dw is None else None)

    def _slope(self, sde: SDE, t: Tensor, h: float | Tensor, x: Tensor, dw: Increment | None) -> Tensor:
        f = sde.drift(t, x)
        return f if dw is None else apply(sde.diffusion(t, x), dw.W) + f * h

    def _dense(self, span: Span, x: Tensor, new: Tensor, slopes: list[Tensor]) -> Any:
        """Dense output of the step, where it costs no further evaluation."""
        return None


def hermite(theta: Tensor, h: float | Tensor, x: Tensor, new: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """The cubic through both ends with their slopes: error O(h⁴)."""
    rise = new - x
    return x + theta * (rise + (1 - theta) * ((1 - theta) * (f0 * h - rise) - theta * (f1 * h - rise)))


class Euler(RungeKutta):
    """Explicit Euler for ODEs, `x' = x + h f`: order 1. Applied to the probability flow it is DDIM's first-order cousin."""

    tableau = tableaux.EULER
    orders = _deterministic(1)


class Heun(RungeKutta):
    """Heun's method: order 2 for ODEs, with error estimate; the stochastic Heun method for Stratonovich SDEs.

    `y = x + f h + G W`, `x' = x + ½ (f + f(y)) h + ½ (G + G(y)) W`.

    Reference: Rümelin (1982), SIAM J. Numer. Anal. 19(3).
    """

    tableau = tableaux.HEUN
    orders = _stratonovich(2)


class Midpoint(RungeKutta):
    """The explicit midpoint rule: order 2 for ODEs; `x' = x + f(y) h + G(y) W`, `y = x + ½(f h + G W)`, for Stratonovich SDEs."""

    tableau = tableaux.MIDPOINT
    orders = _stratonovich(2)


class RK4(RungeKutta):
    """The classical Runge–Kutta method: order 4 for ODEs. Reference: Kutta (1901)."""

    tableau = tableaux.RK4
    orders = _stratonovich(4)


class Bosh3(RungeKutta):
    """Bogacki–Shampine 3(2): order 3 with error estimate, 3 evaluations a step. Reference: Bogacki, Shampine (1989)."""

    tableau = tableaux.BOSH3
    orders = _deterministic(3)

    def _dense(self, span: Span, x: Tensor, new: Tensor, slopes: list[Tensor]) -> Any:
        return lambda theta: hermite(theta.to(x.dtype), span.h, x, new, slopes[0], slopes[-1])


# Hairer, Nørsett, Wanner (1993), §II.6: the fifth term of the dense output
_DOPRI5_DENSE = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)


class Dopri5(RungeKutta):
    """Dormand–Prince 5(4): order 5, error estimate of order 5, dense output, 6 evaluations a step.

    Reference: Dormand, Prince (1980); dense output by Hairer, Nørsett, Wanner (1993), §II.6.
    """

    tableau = tableaux.DOPRI5
    orders = _deterministic(5)

    def _dense(self, span: Span, x: Tensor, new: Tensor, slopes: list[Tensor]) -> Any:
        h = span.h

        def interpolate(theta: Tensor) -> Tensor:
            theta = theta.to(x.dtype)
            rise = new - x
            start = slopes[0] * h - rise
            bend = rise - slopes[-1] * h - start
            return x + theta * (
                rise + (1 - theta) * (start + theta * (bend + (1 - theta) * combine(_DOPRI5_DENSE, slopes) * h))
            )

        return interpolate
