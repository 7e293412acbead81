"""Euler–Heun: the simplest scheme for Stratonovich SDEs. Notation as in `sdekit.protocols`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Noise, Span, Step, advance, apply
from .contract import COMMUTING, HALF, Memoryless


@dataclass(frozen=True)
class EulerHeun(Memoryless):
    """Euler for the drift, the trapezium for the noise: `y = x + G W`, `x' = x + f h + ½ (G(t0, x) + G(t1, y)) W`.

    One drift and two diffusion evaluations a step. Strong order 1 where the columns of G commute, since the average
    holds `½ D(G W)[G W]`; ½ where they do not.

    Reference: Rümelin (1982), SIAM J. Numer. Anal. 19(3); Kloeden, Platen (1992), §11.1.
    """

    calculus = Calculus.STRATONOVICH
    levy = Levy.W
    error_order = None
    orders = COMMUTING | {Noise.GENERAL: HALF}

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        mean = advance(x, sde.drift(span.t0, x), span.h)
        if dw is None:
            return Step(mean, mean=mean)
        noise = apply(sde.diffusion(span.t0, x), dw.W)
        ahead = apply(sde.diffusion(span.t1, x + noise), dw.W)
        return Step(mean + 0.5 * (noise + ahead), mean=mean)
