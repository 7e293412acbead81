"""Euler–Maruyama: `x' = x + f h + G W`. Notation as in `sdekit.protocols`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Span, Step, advance, diffuse
from .contract import EULER, Memoryless


@dataclass(frozen=True)
class EulerMaruyama(Memoryless):
    """The simplest scheme for any Itô SDE: `x' = x + f(t0, x) h + G(t0, x) W`; strong order ½, 1 for additive noise.

    One drift and one diffusion evaluation a step; no error estimate. As a predictor of a reverse SDE its `mean` is
    `x + f h`.

    Reference: Maruyama (1955), Rend. Circ. Mat. Palermo 4; Kloeden, Platen (1992), §10.2.
    """

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = EULER

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        mean = advance(x, sde.drift(span.t0, x), span.h)
        if dw is None:
            return Step(mean, mean=mean)
        return Step(diffuse(mean, sde.diffusion(span.t0, x), dw.W), mean=mean)
