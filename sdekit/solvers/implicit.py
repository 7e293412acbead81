"""Drift-implicit methods for stiff Itô SDEs.

Where the drift pulls back fast (λ < 0 with |λ h| ≫ 1) an explicit step overshoots, and the overshoot grows. Here the
new state, or a state on the way to it, solves an equation `y = base + c f(t, y)`, by Newton's method for every sample
on its own. A sample whose iteration does not converge becomes NaN, which the loop turns into a status.

Reference: Kloeden, Platen (1992), §12.2; Higham, Mao, Stuart (2002), SIAM J. Numer. Anal. 40(3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Span, Step, advance, diffuse, expand
from .contract import EULER, Memoryless
from .jacobian import factorize, linearize

MOST_ITERATIONS = 25
"""Newton iterations before a sample is given up."""


def newton(sde: SDE, t: Tensor, base: Tensor, c: float | Tensor, guess: Tensor) -> Tensor:
    """The y with `y = base + c f(t, y)`, NaN in the samples where the iteration does not converge.

    An iteration is a Newton step and, where that helps, one more step with the same Jacobian: it converges cubically,
    and where the drift is linear one is enough. Gradients flow through that second step alone, which is exact: with the
    Jacobian held fixed, `y* + (I − c J)⁻¹ (base + c f(t, y*) − y*)` at a solution y* has the derivatives that the
    implicit function theorem gives.
    """
    eps = torch.finfo(base.dtype).eps
    y, active = guess, torch.ones(len(base), dtype=torch.bool, device=base.device)
    for _ in range(MOST_ITERATIONS):
        here, fixed = y.detach(), base.detach()
        f, jacobian, _ = linearize(sde, t, here)
        factors = factorize(jacobian, c.detach() if isinstance(c, Tensor) else c)
        first = factors.solve(advance(fixed, f, c).detach() - here)
        here = here + first
        second = factors.solve(advance(base, sde.drift(t, here), c) - here)
        before, last = _rms(first), _rms(second.detach())
        second = torch.where(expand(last <= before, y), second, 0.0)
        y = torch.where(expand(active, y), here + second, y)
        # what is left of the error: the second step, shortened once more as the first was
        left, size = last * (last / before).clamp(max=1.0), torch.maximum(_rms(here), _rms(fixed))
        # small steps that shrink no more are the rounding of a stiff drift; NaN is not worth another iteration
        rounding = (last > 0.5 * before) & (last < eps ** (1 / 3) * size)
        active = active & (left > 100 * eps * size) & ~rounding
        if not bool(active.any()):
            return y
    return torch.where(expand(active, y), math.nan, y)


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


@dataclass(frozen=True)
class DriftImplicitEuler(Memoryless):
    """The θ-method: `x' = x + (1 − θ) f(t0, x) h + θ f(t1, x') h + G(t0, x) W`; strong order ½, 1 for additive noise.

    theta: in [½, 1]. 1 is backward Euler, which damps stiff components; ½ is the trapezoidal rule, of order 2 where
    noise vanishes, which keeps the stationary variance of linear SDEs with additive noise. On `dX = λX dt + μX dW` the
    second moment decays for every h where it does for the SDE.

    A step costs one Jacobian `(B, D, D)` and two drift evaluations where the drift is nearly linear over it, and as
    much again for every further iteration. The drift must be differentiable by torch.
    Raises Incompatible for states of more than 4096 components.

    Reference: Kloeden, Platen (1992), equation 12.2.9; Higham (2000), SIAM J. Numer. Anal. 38(3), for the stability.
    """

    theta: float = 1.0

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = EULER

    def __post_init__(self) -> None:
        if not 0.5 <= self.theta <= 1.0:
            raise ValueError(f"DriftImplicitEuler: theta must lie in [0.5, 1], got {self.theta!r}; 1 is backward Euler")

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        base = x
        if self.theta < 1.0:
            base = advance(base, sde.drift(span.t0, x), span.h * (1.0 - self.theta))
        if dw is not None:
            base = diffuse(base, sde.diffusion(span.t0, x), dw.W)
        return Step(newton(sde, span.t1, base, span.h * self.theta, x))


@dataclass(frozen=True)
class SplitStepEuler(Memoryless):
    """Split-step backward Euler: `y = x + f(t1, y) h`, `x' = y + G(t0, y) W`; strong order ½, 1 for additive noise.

    The noise is added to a state that the drift has already damped, so that moments stay bounded for drifts that are
    only one-sided Lipschitz, such as x − x³. Costs as `DriftImplicitEuler`.

    Reference: Higham, Mao, Stuart (2002), SIAM J. Numer. Anal. 40(3), equation 3.2.
    """

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = EULER

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        mean = newton(sde, span.t1, x, span.h, x)
        return Step(mean if dw is None else diffuse(mean, sde.diffusion(span.t0, mean), dw.W), mean=mean)
