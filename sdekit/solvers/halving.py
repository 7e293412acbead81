"""Step halving: an error estimate for any solver, from the same step taken once and taken in two halves.

For an ODE method of order p the local error of two halves is 2^−p that of the whole step, so their difference exceeds
it 2^p − 1 times. For an SDE and strong order s the leading error of a step is a martingale increment of variance
c |h|^(2s+1): the halves leave 4^−s of it, the difference holds the rest, and exceeds the error √(4^s − 1) times. (The
errors of terms that mix drift and noise are alike in both halves and add up; of these 1/(2^s − 1) would be right.)

Reference: Hairer, Nørsett, Wanner (1993), §II.4; Gaines, Lyons (1997), SIAM J. Appl. Math. 57(5), for SDEs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Diffusion, Increment, Levy, Noise, Order, Solver, Span, Step


class _Start:
    """An SDE that is evaluated once at the start of a step, however many steps begin there."""

    def __init__(self, sde: SDE, t: Tensor, x: Tensor) -> None:
        self._sde, self._t, self._x = sde, t, x
        self._values: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sde, name)

    def _value(self, name: str, t: Tensor, x: Tensor) -> Any:
        function = getattr(self._sde, name)
        if t is not self._t or x is not self._x:
            return function(t, x)
        if name not in self._values:
            self._values[name] = function(t, x)
        return self._values[name]

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self._value("drift", t, x)

    def diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        return self._value("diffusion", t, x)


@dataclass(frozen=True)
class Halving:
    """Any solver with an error estimate: `Halving(EulerMaruyama())` takes adaptive steps.

    The result of a step is that of the two halves, which lie on the path of the whole step. It costs three steps of the
    solver, less the evaluations at the start, which two of them share: one-stage methods pay for the halves only.

    With strong order ½ the estimate is as large as the noise it looks at, and steps refused for it would be chosen by
    their noise: `Adaptive` takes such steps all, and adapts the next. Halving is meant for solvers without noise of
    their own (`Span.draws`), whose draws both halves would share.

    Raises TypeError if `solver` is not a solver.
    """

    solver: Solver

    halves = True

    def __post_init__(self) -> None:
        if isinstance(self.solver, type) or not hasattr(self.solver, "step"):
            name = self.solver.__name__ if isinstance(self.solver, type) else "EulerMaruyama"
            raise TypeError(f"Halving: expected a solver, got {self.solver!r}; write Halving({name}())")

    @property
    def orders(self) -> Mapping[Noise, Order]:
        """Those of the solver."""
        return self.solver.orders

    @property
    def calculus(self) -> Calculus | None:
        """That of the solver."""
        return self.solver.calculus

    @property
    def levy(self) -> Levy:
        """That of the solver."""
        return self.solver.levy

    @property
    def error_order(self) -> Mapping[Noise, float]:
        """Order p + 1 for ODEs, s + ½ for SDEs."""
        return {n: order.strong + (1.0 if n is Noise.NONE else 0.5) for n, order in self.orders.items()}

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Any:
        return self.solver.init(sde, t, x)

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        first, second = None, None
        if dw is not None:
            if dw.halves is None:
                raise ValueError("Halving needs the increments of both halves of a step: call it through `solve`")
            first, second = dw.halves
        middle, half = torch.lerp(span.t0, span.t1, 0.5), 0.5 * span.h
        start: Any = _Start(sde, span.t0, x)
        whole = self.solver.step(start, span, x, dw, state)
        step = self.solver.step(start, span._replace(t1=middle, h=half), x, first, state)
        step = self.solver.step(sde, span._replace(t0=middle, h=half), step.x, second, step.state)
        return Step(step.x, (step.x - whole.x) / self._excess(sde.noise), step.state, mean=step.mean)

    def _excess(self, noise: Noise) -> float:
        """How many times the difference exceeds the error of the halves."""
        order = self.orders[noise].strong
        return 2.0**order - 1 if noise is Noise.NONE else math.sqrt(4.0**order - 1)
