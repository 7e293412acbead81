"""Reversible Heun: a method whose steps can be undone exactly, so that gradients need no stored trajectory.

With a second copy y of the state,

    y' = 2x − y + f h + G W,   x' = x + ½ (f + f') h + ½ (G + G') W,   f = f(t0, y), G = G(t0, y), f' = f(t1, y'), …

Given (x', y', f', G') and the same W the step is solved for (x, y, f, G) by the same two lines read backwards.

Reference: Kidger, Foster, Li, Lyons (2021), "Efficient and accurate gradients for neural SDEs", NeurIPS, algorithms 1
and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..protocols import SDE, Calculus, Dense, Diffusion, Increment, Levy, Noise, Order, Span, Step, advance, apply
from .contract import COMMUTING, HALF

State = tuple[Tensor, ...]
"""(y, f), and with noise (y, f, G): an element-wise G of the shape of x, or a matrix `(B, *shape, m)`."""


@dataclass(frozen=True)
class ReversibleHeun:
    """Heun's method with an algebraic inverse, for Stratonovich SDEs and ODEs; one f and one G a step.

    Strong order 1 for additive and commutative noise, ½ for general noise; order 2 without noise. The error estimate is
    half the change of the slope over the step. Its stability is weak: for linear ODEs a segment of the imaginary axis.

    `undo(sde, span, x1, dw, state1)` returns `(x0, state0)`, to rounding.
    """

    calculus = Calculus.STRATONOVICH
    levy = Levy.W
    error_order = 2.0
    orders = COMMUTING | {Noise.NONE: Order(2.0, 2.0), Noise.GENERAL: HALF}

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> State:
        return self._at(sde, t, x)

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: State) -> Step:
        slope = _slope(state, span.h, dw)
        state1 = self._at(sde, span.t1, 2.0 * x - state[0] + slope)
        half = 0.5 * (_slope(state1, span.h, dw) - slope)
        return Step(x + slope + half, half, state1)

    def undo(self, sde: SDE, span: Span, x1: Tensor, dw: Increment | None, state1: State) -> tuple[Tensor, State]:
        """The state and memory before a step from span.t0 to span.t1 along dw that ended in (x1, state1)."""
        slope1 = _slope(state1, span.h, dw)
        state = self._at(sde, span.t0, 2.0 * x1 - state1[0] - slope1)
        return x1 - 0.5 * (_slope(state, span.h, dw) + slope1), state

    def _at(self, sde: SDE, t: Tensor, y: Tensor) -> State:
        f = sde.drift(t, y)
        return (y, f) if sde.noise is Noise.NONE else (y, f, _values(sde.diffusion(t, y), y))


def _values(g: Diffusion, y: Tensor) -> Tensor:
    if isinstance(g, Dense):
        return g.matrix.expand(*y.shape, g.matrix.shape[-1])
    return g.expand(y.shape)


def _slope(state: State, h: float | Tensor, dw: Increment | None) -> Tensor:
    """`f h + G W`."""
    y, f, *g = state
    if dw is None:
        return f * h
    noise = apply(Dense(g[0]) if g[0].ndim > y.ndim else g[0], dw.W)
    return advance(noise, f, h)
