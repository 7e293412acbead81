"""Explicit Runge–Kutta methods, for ODEs and for Stratonovich SDEs, by one stepper.

A Runge–Kutta method applied to the "slope" `f dt + G ∘ dW` of one step, frozen as `f h + G W`, solves the ODE driven by
the piecewise linear interpolation of the path, and that converges to the Stratonovich solution (Wong, Zakai 1965).
So every tableau here is an ODE method where there is no noise and a Stratonovich method where there is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Noise, Order, Span, Step, advance, apply
from . import tableaux
from .contract import COMMUTING, HALF
from .tableaux import Row, Tableau


@functools.cache
def _terms(weights: Row) -> tuple[float, int, tuple[tuple[int, float], ...]]:
    """The first weight w that is not zero, its place, and (place, w_i/w) of the others."""
    places = [i for i, w in enumerate(weights) if w] or [0]
    first = weights[places[0]]
    return first, places[0], tuple((i, weights[i] / first) for i in places[1:])


def _first_is_one(weights: Row, slopes: Sequence[Tensor]) -> tuple[float, Tensor]:
    """(w, Σ (w_i/w) k_i), w the first weight that is not zero: the factor w is best left to what is made of the sum."""
    first, place, others = (_terms.__wrapped__ if torch.compiler.is_compiling() else _terms)(weights)
    total = slopes[place]
    for i, ratio in others:
        total = torch.add(total, slopes[i], alpha=ratio)
    return first, total


def combine(weights: Row, slopes: Sequence[Tensor]) -> Tensor:
    """`Σ w_i k_i`."""
    factor, total = _first_is_one(weights, slopes)
    return total * factor


def move(x: Tensor, weights: Row, slopes: Sequence[Tensor], h: float | Tensor) -> Tensor:
    """`x + h Σ w_i k_i`."""
    factor, total = _first_is_one(weights, slopes)
    if not isinstance(h, Tensor):
        return torch.add(x, total, alpha=h * factor)
    return torch.addcmul(x, total, h, value=factor) if h.ndim else advance(x, total, h * factor)


def stage_time(span: Span, node: float) -> Tensor:
    """`t0 + c h` in float64."""
    if node == 0.0:
        return span.t0
    return span.t1 if node == 1.0 else torch.lerp(span.t0, span.t1, node)


def stage_times(span: Span, nodes: Row, x: Tensor) -> Sequence[Tensor]:
    """The same for all nodes; samples' own times in the dtype of x, as functions take them."""
    if span.t0.ndim == 0 or torch.compiler.is_compiling():
        return [stage_time(span, node) for node in nodes]
    # at the nodes 0 and 1 exactly t0 and t1
    return torch.lerp(span.t0, span.t1, _column(nodes, span.t0.ndim, x.device)).to(x.dtype).unbind()


@functools.lru_cache(maxsize=256)
def _column(nodes: Row, rank: int, device: torch.device) -> Tensor:
    """Nodes `(S, 1, …, 1)`."""
    return torch.tensor(nodes, dtype=torch.float64, device=device).reshape(-1, *(1,) * rank)


def _deterministic(order: int) -> dict[Noise, Order]:
    return {Noise.NONE: Order(order, order)}


def _stratonovich(order: int, additive_weak: float = 1.0) -> dict[Noise, Order]:
    return COMMUTING | _deterministic(order) | {Noise.ADDITIVE: Order(1.0, additive_weak), Noise.GENERAL: HALF}


@dataclass(frozen=True)
class RungeKutta:
    """The stepper shared by all explicit tableaux; a method is a subclass that names its tableau and orders."""

    tableau: ClassVar[Tableau]
    orders: ClassVar[dict[Noise, Order]]
    calculus = Calculus.STRATONOVICH
    levy = Levy.W

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
        for row, t in zip(tableau.a, stage_times(span, tableau.c, x), strict=True):
            if row:
                y = move(x, row, slopes, h)
                slopes.append(self._slope(sde, t, span.h, y, dw))
            else:
                slopes.append(self._slope(sde, span.t0, span.h, x, dw) if state is None else state)
        # where the last stage is the new point, it has been computed already
        new = y if tableau.first_same_as_last else move(x, tableau.b, slopes, h)
        error = None if tableau.e is None else self._error(slopes) * h
        keep = slopes[-1] if tableau.first_same_as_last and dw is None else None
        dense = dw is None and tableau.dense is not None
        return Step(new, error, keep, interpolate=dense_output(tableau, sde, span, x, new, slopes) if dense else None)

    def _slope(self, sde: SDE, t: Tensor, h: float | Tensor, x: Tensor, dw: Increment | None) -> Tensor:
        f = sde.drift(t, x)
        return f if dw is None else apply(sde.diffusion(t, x), dw.W) + f * h

    def _error(self, slopes: list[Tensor]) -> Tensor:
        assert self.tableau.e is not None
        return combine(self.tableau.e, slopes)


def nested(theta: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """`θ(p₀ + (1 − θ)(p₁ + θ(p₂ + (1 − θ)(p₃ + …))))`."""
    total = torch.zeros_like(terms[0])
    for k in reversed(range(len(terms))):
        total = (total + terms[k]) * (theta if k % 2 == 0 else 1 - theta)
    return total


def dense_output(
    tableau: Tableau, sde: SDE, span: Span, x: Tensor, new: Tensor, slopes: list[Tensor]
) -> Callable[[Tensor], Tensor]:
    """`theta -> x(t0 + theta h)`; the stages that only this needs are computed when it is first asked."""
    h = span.h
    terms: list[Tensor] = []

    def prepare() -> None:
        every = list(slopes)
        for row, node in zip(tableau.extra_a, tableau.extra_c, strict=True):
            every.append(sde.drift(stage_time(span, node), move(x, row, every, h)))
        rise, first, last = new - x, slopes[0], slopes[len(tableau.b) - 1]
        terms.extend((rise, first * h - rise, 2 * rise - (first + last) * h))
        terms.extend(combine(row, every) * h for row in tableau.dense or ())

    def interpolate(theta: Tensor) -> Tensor:
        if not terms:
            prepare()
        return x + nested(theta.to(x.dtype), terms)

    return interpolate


@dataclass(frozen=True)
class Euler(RungeKutta):
    """Explicit Euler for ODEs, `x' = x + h f`: order 1. On the probability flow it is DDIM's first-order cousin."""

    tableau = tableaux.EULER
    orders = _deterministic(1)


@dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's method: order 2 for ODEs, with error estimate; the stochastic Heun method for Stratonovich SDEs.

    `y = x + f h + G W`, `x' = x + ½ (f + f(y)) h + ½ (G + G(y)) W`.

    Reference: Rümelin (1982), SIAM J. Numer. Anal. 19(3).
    """

    tableau = tableaux.HEUN
    orders = _stratonovich(2, additive_weak=2.0)


@dataclass(frozen=True)
class Midpoint(RungeKutta):
    """The explicit midpoint rule: order 2 for ODEs.

    For Stratonovich SDEs `x' = x + f(y) h + G(y) W` with `y = x + ½(f h + G W)`.

    Reference: Hairer, Nørsett, Wanner (1993), §II.1; Kloeden, Platen (1992), §11.1, for the noise.
    """

    tableau = tableaux.MIDPOINT
    orders = _stratonovich(2)


@dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical Runge–Kutta method: order 4 for ODEs. Reference: Kutta (1901)."""

    tableau = tableaux.RK4
    orders = _stratonovich(4)


@dataclass(frozen=True)
class Bosh3(RungeKutta):
    """Bogacki–Shampine 3(2): order 3 with error estimate, 3 evaluations a step. Reference: Bogacki, Shampine (1989)."""

    tableau = tableaux.BOSH3
    orders = _deterministic(3)


@dataclass(frozen=True)
class Dopri5(RungeKutta):
    """Dormand–Prince 5(4): order 5, error estimate of order 5, dense output of order 4, 6 evaluations a step.

    Reference: Dormand, Prince (1980); dense output by Hairer, Nørsett, Wanner (1993), §II.6.
    """

    tableau = tableaux.DOPRI5
    orders = _deterministic(5)


@dataclass(frozen=True)
class Tsit5(RungeKutta):
    """Tsitouras 5(4): order 5 with smaller errors than `Dopri5`, dense output of order 4, 6 evaluations a step.

    Reference: Tsitouras (2011), Comput. Math. Appl. 62(2).
    """

    tableau = tableaux.TSIT5
    orders = _deterministic(5)


@dataclass(frozen=True)
class Dopri8(RungeKutta):
    """Dormand–Prince 8(5,3) in Hairer's form: order 8, 12 evaluations a step; for tight tolerances, in float64.

    The error estimate is `e₅²/√(e₅² + e₃²/100)` of two estimates of orders 5 and 3, and shrinks as h⁸. Dense output of
    order 7, for 3 more evaluations in the steps where it is asked.

    Reference: Hairer, Nørsett, Wanner (1993), §II.5 and II.10.
    """

    tableau = tableaux.DOPRI8
    orders = _deterministic(8)

    @property
    def error_order(self) -> float | None:
        return 8.0

    def _error(self, slopes: list[Tensor]) -> Tensor:
        assert self.tableau.e is not None
        assert self.tableau.low is not None
        fine = combine(self.tableau.e, slopes).abs()
        coarse = 0.1 * combine(self.tableau.low, slopes)
        # no squares, which would underflow in float32
        return fine * (fine / torch.hypot(fine, coarse).clamp(min=torch.finfo(fine.dtype).tiny))
