"""Tamed Euler: an explicit scheme for drifts that grow faster than linearly. Notation as in `sdekit.protocols`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Noise, Order, Span, Step, advance, diffuse, sample_norm
from .contract import EULER, Memoryless


@dataclass(frozen=True)
class TamedEuler(Memoryless):
    """Euler–Maruyama whose drift moves a sample by less than 1 a step: `x' = x + f h / (1 + |h| ‖f‖) + G W`.

    ‖f‖ is the Euclidean norm of one sample's drift. Where f grows faster than linearly (−x³, a double well) the moments
    of plain Euler diverge as the step shrinks, and these converge. Strong order ½, 1 for additive noise. One drift and
    one diffusion evaluation a step.

    Reference: Hutzenthaler, Jentzen, Kloeden (2012), Ann. Appl. Probab. 22(4), equation (4).
    """

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = {noise: order for noise, order in EULER.items() if noise is not Noise.NONE} | {
        Noise.DIAGONAL: Order(0.5, 0.5)
    }

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        f, h = sde.drift(span.t0, x), span.h
        mean = advance(x, f / (1 + sample_norm(f) * abs(h)), h)
        if dw is None:
            return Step(mean, mean=mean)
        return Step(diffuse(mean, sde.diffusion(span.t0, x), dw.W), mean=mean)
