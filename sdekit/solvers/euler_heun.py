"""Euler–Heun: the simplest scheme for Stratonovich SDEs. Notation as in `sdekit.protocols`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Noise, Order, Span, Step, advance, apply


@dataclass(frozen=True)
class EulerHeun:
    """Euler for the drift, the trapezium for the noise: `y = x + G W`, `x' = x + f h + ½ (G(t0, x) + G(t1, y)) W`.

    One drift and two diffusion evaluations a step. Strong order 1 where the columns of G commute, since the average
    holds `½ D(G W)[G W]`; ½ where they do not.

    Reference: Rümelin (1982), SIAM J. Numer. Anal. 19(3); Kloeden, Platen (1992), §11.1.
    """

    calculus = Calculus.STRATONOVICH
    levy = Levy.W
    error_order = None
    orders = {
        Noise.NONE: Order(1.0, 1.0),
        Noise.ADDITIVE: Order(1.0, 1.0),
        Noise.DIAGONAL: Order(1.0, 1.0),
        Noise.SCALAR: Order(1.0, 1.0),
        Noise.COMMUTATIVE: Order(1.0, 1.0),
        Noise.GENERAL: Order(0.5, 1.0),
    }

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Any:
        return None

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        mean = advance(x, sde.drift(span.t0, x), span.h)
        if dw is None:
            return Step(mean, mean=mean)
        noise = apply(sde.diffusion(span.t0, x), dw.W)
        ahead = apply(sde.diffusion(span.t1, x + noise), dw.W)
        return Step(mean + 0.5 * (noise + ahead), mean=mean)
