"""Stochastic Runge–Kutta methods of strong order 1.5, for additive noise (SRA) and for diagonal or scalar noise (SRI).

They need, beyond W, the space–time area H, through which the iterated integrals of a step of length |h| are

    I_(1,0) = ∫ W dr = |h| (W/2 + H)      I_(1,1) = ½ (W² − |h|)      I_(1,1,1) = (W³ − 3 |h| W) / 6

All three are taken along the direction of travel and keep their form when time runs backwards; only f comes with the
signed h. Tableaux and their notation: `stochastic_tableaux`.

The error estimate of a step is its difference from the Euler or Milstein step held within it, of strong order 1; it
shrinks as |h|^1.5 and judges the worse of the two. The noise in the difference is replaced by its standard deviation,
where that is known without looking at it: a step then is refused for the place it starts from, not for its noise.

Reference: Rößler (2010), SIAM J. Numer. Anal. 48(3), §5 and §6; Rackauckas, Nie (2017), DCDS-B 22(7), for embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Dense, Diffusion, Increment, Levy, Noise, Order, Span, Step, advance, apply
from . import stochastic_tableaux as tableaux
from .contract import Memoryless
from .milstein import length_like
from .runge_kutta import combine, stage_time
from .stochastic_tableaux import AdditiveTableau, DiagonalTableau
from .tableaux import Row

_ADDITIVE = Order(1.5, 2.0)
_DIAGONAL = Order(1.5, 1.5)  # in law no more than along paths: measured 1.5 on moments of asinh (W1)


def _additive(order: int) -> dict[Noise, Order]:
    return {Noise.NONE: Order(order, order), Noise.ADDITIVE: _ADDITIVE}


def _diagonal(order: int) -> dict[Noise, Order]:
    return {**_additive(order), Noise.DIAGONAL: _DIAGONAL, Noise.SCALAR: _DIAGONAL}


def _area(dw: Increment) -> Tensor:
    if dw.H is None:
        raise ValueError("this solver needs the space–time area H of the path: ask it for increments with levy=Levy.H")
    return dw.H


def mix(weights: Row, gs: Sequence[Diffusion]) -> Diffusion:
    """`Σ w_i G_i`, over as many as there are weights."""
    if isinstance(gs[0], Dense):
        return Dense(combine(weights, [g.matrix for g in gs[: len(weights)] if isinstance(g, Dense)]))
    return combine(weights, [g for g in gs[: len(weights)] if isinstance(g, Tensor)])


def squared(g: Diffusion) -> Diffusion:
    """The squares of the entries of G."""
    return Dense(g.matrix.square()) if isinstance(g, Dense) else g.square()


@dataclass(frozen=True)
class _AdditiveRungeKutta(Memoryless):
    """The stepper for additive noise, G = G(t): every stage of the drift, and G at both ends of the step."""

    tableau: ClassVar[AdditiveTableau]
    orders: ClassVar[dict[Noise, Order]]
    calculus = None
    levy = Levy.H
    error_order = 1.5

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        tableau, h = self.tableau, span.h
        ends: list[Diffusion] = [] if dw is None else [sde.diffusion(span.t0, x), sde.diffusion(span.t1, x)]
        slopes: list[Tensor] = []
        for row, node, *weights in zip(tableau.a, tableau.c, tableau.start, tableau.end, strict=True):
            y = advance(x, combine(row, slopes), h) if any(row) else x
            if dw is not None:
                for g, (w, area) in zip(ends, weights, strict=True):
                    if w or area:
                        y = y + apply(g, dw.W * w + _area(dw) * area)
            slopes.append(sde.drift(stage_time(span, node), y))
        move = combine(tableau.b, slopes) * h
        error = move - slopes[0] * h
        if dw is None:
            return Step(x + move, error)
        half, area = 0.5 * dw.W, _area(dw)
        noise = apply(ends[0], half + area) + apply(ends[1], half - area)
        # (G(t1) − G(t0)) (W/2 − H), by its variance
        spread = apply(squared(mix((-1.0, 1.0), ends)), torch.ones_like(half) * length_like(h, half) / 3)
        return Step(x + move + noise, (error.square() + spread).sqrt(), mean=x + move)


class SRA1(_AdditiveRungeKutta):
    """Rößler's SRA1 for additive noise: strong order 1.5; 2 drift and 2 diffusion evaluations a step.

    Reference: Rößler (2010), Table 6.2.
    """

    tableau = tableaux.SRA1
    orders = _additive(2)


class SRA3(_AdditiveRungeKutta):
    """Rößler's SRA3 for additive noise: strong order 1.5, order 3 where noise vanishes.

    3 drift and 2 diffusion evaluations a step.

    Reference: Rößler (2010), Table 6.3.
    """

    tableau = tableaux.SRA3
    orders = _additive(3)


class ShARK(_AdditiveRungeKutta):
    """Shifted additive-noise Runge–Kutta: strong order 1.5, as SRA1 at the same cost, with a smaller error constant.

    Its stages start from `x + G H`, the mean position of the path within the step. 2 drift and 2 diffusion evaluations.

    Reference: Foster, dos Reis, Strange (2024), SIAM J. Numer. Anal. 62(6), equation (6.1).
    """

    tableau = tableaux.SHARK
    orders = _additive(2)


class _Integrals(NamedTuple):
    """The iterated integrals of one step, each scaled to be O(√|h|), in the shape of the noise."""

    W: Tensor
    J: Tensor  # I_(1,0) / |h|
    II: Tensor  # I_(1,1) / √|h|
    III: Tensor  # I_(1,1,1) / |h|
    root: Tensor  # √|h|

    @classmethod
    def of(cls, h: float | Tensor, dw: Increment) -> _Integrals:
        w, size = dw.W, length_like(h, dw.W)
        if isinstance(size, Tensor):
            # W is 0 where h is, and so are its powers over h
            safe = torch.where(size > 0, size, 1.0)
            root, inverse = torch.where(size > 0, safe.sqrt(), 0.0), 1 / safe.sqrt()
        else:
            root, inverse = math.sqrt(size), 1 / math.sqrt(size) if size else 0.0
        z = w * inverse
        squared = z * z
        return cls(w, 0.5 * w + _area(dw), 0.5 * (squared - 1) * root, w * (squared - 3) / 6, torch.ones_like(w) * root)


def _stage(
    x: Tensor, h: float | Tensor, row: Row, fs: list[Tensor], noise: Row, gs: list[Diffusion], w: Tensor | None
) -> Tensor:
    """`x + h Σ row_j f_j + Σ noise_j G_j w`."""
    if any(row):
        x = advance(x, combine(row, fs[: len(row)]), h)
    return x if w is None or not any(noise) else x + apply(mix(noise, gs), w)


@dataclass(frozen=True)
class _DiagonalRungeKutta(Memoryless):
    """The stepper for diagonal and scalar Itô noise: stages X for the drift and Y for the diffusion, in turn."""

    tableau: ClassVar[DiagonalTableau]
    orders: ClassVar[dict[Noise, Order]]
    calculus = Calculus.ITO
    levy = Levy.H
    error_order = 1.5

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        tableau, h = self.tableau, span.h
        fs: list[Tensor] = []
        gs: list[Diffusion] = []
        path = None if dw is None else _Integrals.of(h, dw)
        for i, node in enumerate(tableau.d):
            if i < len(tableau.c):
                y = _stage(x, h, tableau.drift[i], fs, tableau.drift_noise[i], gs, path and path.J)
                fs.append(sde.drift(stage_time(span, tableau.c[i]), y))
            if path is not None:
                y = _stage(x, h, tableau.noise_drift[i], fs, tableau.noise[i], gs, path.root)
                gs.append(sde.diffusion(stage_time(span, node), y))
        mean = advance(x, combine(tableau.alpha, fs), h)
        error = mean - advance(x, fs[0], h)
        if path is None:
            return Step(mean, error)
        late, third = mix(tableau.beta3, gs), mix(tableau.beta4, gs)
        noise = apply(mix(tableau.beta1, gs), path.W) + apply(mix(tableau.beta2, gs), path.II)
        noise = noise + apply(late, path.J) + apply(third, path.III)
        # by the size that J and III have on average: G does not see the step's noise, and so hardly does the estimate
        size = path.root.square()
        spread = apply(squared(late), size / 3) + apply(squared(third), size / 6)
        return Step(mean + noise, (error.square() + spread).sqrt(), mean=mean)


class SRIW1(_DiagonalRungeKutta):
    """Rößler's SRI1W1 for diagonal and scalar Itô noise: strong order 1.5; 2 drift and 4 diffusion evaluations a step.

    Reference: Rößler (2010), §6.1; Rackauckas, Nie (2017) (SRIW1).
    """

    tableau = tableaux.SRIW1
    orders = _diagonal(2)


class SRI(_DiagonalRungeKutta):
    """Rößler's SRI2W1 for diagonal and scalar Itô noise: strong order 1.5, order 3 where noise vanishes.

    3 drift and 4 diffusion evaluations a step.

    Reference: Rößler (2010), §6.1; Rackauckas, Nie (2017) (SRIW2).
    """

    tableau = tableaux.SRIW2
    orders = _diagonal(3)
