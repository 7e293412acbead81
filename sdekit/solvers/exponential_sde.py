"""Exponential integrators for SDEs with a known linear part: `dx = (A x + F(t, x)) dt + G(t, x) dW`.

The SDE says what its linear part does over a step (`Semilinear.flow`): e^(hA), φ₁(hA) and √φ₁(2hA) applied to a state.
A stiff A then limits no step, and where F = 0 nothing is approximated.

Reference: Lord, Powell, Shardlow (2014), "An Introduction to Computational Stochastic PDEs", §10.4; Jentzen, Kloeden
(2009), Proc. R. Soc. A 465, for the exact law of the noise; Hochbruck, Ostermann (2010), Acta Numerica 19, without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import Incompatible
from ..protocols import Calculus, Increment, Levy, Span, Step, apply
from .contract import EULER


@dataclass(frozen=True)
class ExponentialEuler:
    """`x' = e^(hA) x + h φ₁(hA) F(t0, x) + √φ₁(2hA) G(t0, x) W`; strong order ½, 1 for additive noise.

    Exact in law, at any h, where F = 0, G is constant, and A is element-wise (with element-wise G) or a symmetric
    matrix that commutes with G Gᵀ. Path by path the noise differs from `∫ e^(A(h−s)) G dW` by O(h^{3/2}), which strong
    order 1 allows. For a matrix that is not symmetric φ₁(hA) takes the place of √φ₁(2hA).

    One evaluation of drift and diffusion a step. Raises Incompatible for an SDE that is not a `Semilinear`.
    """

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = EULER

    def init(self, sde: Any, t: Tensor, x: Tensor) -> Any:
        if not (hasattr(sde, "flow") and hasattr(sde, "linear_drift")):
            raise Incompatible(
                "ExponentialEuler takes the linear part of the drift exactly and must be told it: write the SDE as "
                "Semilinear(linear=A, nonlinear=F, diffusion=…, noise=…)"
            )

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        flow = sde.flow(span.h, x)
        # what cancels here is multiplied by φ₁(hA), which is as small as A is large
        mean = flow.carry(x) + flow.gather(sde.drift(span.t0, x) - sde.linear_drift(x))
        if dw is None:
            return Step(mean, mean=mean)
        return Step(mean + flow.blur(apply(sde.diffusion(span.t0, x), dw.W)), mean=mean)
