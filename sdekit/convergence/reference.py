"""A fine solution on a recorded path, for problems without an exact one.

On every cell the path is replaced by the parabola with the same W and H, and the Stratonovich equation becomes the ODE

    y' = f(t, y) h + G(t, y) (W + 6 (1 − 2θ) H),   θ ∈ [0, 1],

taken in one classical Runge–Kutta step. It shares nothing with the solvers under test, has the area E[A | W, H] from
which the recorded path joins its areas, and converges with strong order 1, and 1.5 for additive noise.

Reference: Foster, Lyons, Oberhauser (2020), SIAM J. Numer. Anal. 58(3), §4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Noise, Order, Span, Step, apply

if TYPE_CHECKING:
    from .path import RecordedPath
    from .problem import Problem


@dataclass(frozen=True)
class _Parabola:
    """One classical Runge–Kutta step along the parabola with the cell's W and H."""

    calculus: ClassVar[Calculus | None] = Calculus.STRATONOVICH
    levy: ClassVar[Levy] = Levy.H
    error_order: ClassVar[float | None] = None
    orders: ClassVar[dict[Noise, Order]] = {}

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Any:
        return None

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        assert dw is not None
        w, area = dw.W, dw.H
        assert area is not None

        def slope(theta: float, y: Tensor) -> Tensor:
            t = torch.lerp(span.t0, span.t1, theta)
            return sde.drift(t, y) * span.h + apply(sde.diffusion(t, y), w + 6.0 * (1.0 - 2.0 * theta) * area)

        k1 = slope(0.0, x)
        k2 = slope(0.5, x + 0.5 * k1)
        k3 = slope(0.5, x + 0.5 * k2)
        k4 = slope(1.0, x + k3)
        return Step(x + (k1 + 2.0 * (k2 + k3) + k4) / 6.0)


def fine_solution(problem: Problem, path: RecordedPath, x0: Tensor, elapsed: Sequence[float]) -> list[Tensor]:
    """States at the given elapsed times (nodes of the path), one step a cell.

    Raises ValueError for an Itô problem whose noise depends on the state, unless it `reads_alike` in both calculi.
    """
    if problem.calculus is Calculus.ITO and problem.noise is not Noise.ADDITIVE and not problem.reads_alike:
        raise ValueError(f"problem {problem.name!r} has no exact solution; for a fine one give it as a StratonovichSDE")
    like, solver, sign = x0.new_empty(path.shape), _Parabola(), 1.0 if problem.t1 >= problem.t0 else -1.0
    ends = [problem.t0 + sign * float(s) for s in path.nodes]
    keys = {round(s / problem.length * 1e9) for s in elapsed}
    found: dict[int, Tensor] = {}
    x = x0
    for i, (a, b) in enumerate(pairwise(ends)):
        span = Span(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), b - a, i)
        x = solver.step(problem.sde, span, x, path.increment(span, like, Levy.H), None).x
        key = round(float(path.nodes[i + 1]) / problem.length * 1e9)
        if key in keys:
            found[key] = x
    return [found[round(s / problem.length * 1e9)] for s in elapsed]
