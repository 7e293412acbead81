"""A fine solution on a recorded path, for problems without an exact one.

On every cell the path is replaced by the polynomial with the same W and H, and the Stratonovich equation turns into

    y' = f(t, y) h + G(t, y) (W + 6 (1 − 2θ) H + 60 (6θ² − 6θ + 1) K),   θ ∈ [0, 1],

an ODE taken in one Runge–Kutta step of order 5. It is no method under test, and converges with strong order 1, and 1.5
for additive noise. K is left out where noise depends on the state: the parabola has the area E[A | W, H] from which the
recorded path joins its areas.

Reference: Foster, Lyons, Oberhauser (2020), SIAM J. Numer. Anal. 58(3), §4.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Increment, Levy, Noise, Span, apply
from ..solvers.runge_kutta import combine
from ..solvers.tableaux import DOPRI5

if TYPE_CHECKING:
    from .path import RecordedPath
    from .problem import Problem


def _step(sde: SDE, span: Span, x: Tensor, dw: Increment) -> Tensor:
    """One Runge–Kutta step along the polynomial with the cell's W, H and, for additive noise, K."""
    w, h = dw.W, dw.H
    assert h is not None

    def slope(theta: float, y: Tensor) -> Tensor:
        t = torch.lerp(span.t0, span.t1, theta)
        rate = w + 6.0 * (1.0 - 2.0 * theta) * h
        if dw.K is not None:
            rate = rate + 60.0 * (6.0 * theta**2 - 6.0 * theta + 1.0) * dw.K
        return sde.drift(t, y) * span.h + apply(sde.diffusion(t, y), rate)

    slopes: list[Tensor] = []
    y = x
    # the last stage of this tableau is the new point, and its slope is not needed
    for row, node in zip(DOPRI5.a, DOPRI5.c, strict=True):
        y = x + combine(row, slopes) if row else x
        if len(slopes) + 1 < len(DOPRI5.c):
            slopes.append(slope(node, y))
    return y


def fine_solution(problem: Problem, path: RecordedPath, x0: Tensor, elapsed: Sequence[float]) -> list[Tensor]:
    """States at the given elapsed times (nodes of the path), one step a cell.

    Raises ValueError for an Itô problem whose noise depends on the state, unless it `reads_alike` in both calculi.
    """
    if problem.calculus is Calculus.ITO and problem.noise is not Noise.ADDITIVE and not problem.reads_alike:
        raise ValueError(f"problem {problem.name!r} has no exact solution; for a fine one give it as a StratonovichSDE")
    levy = Levy.K if problem.noise is Noise.ADDITIVE else Levy.H
    like, sign = x0.new_empty(path.shape), 1.0 if problem.t1 >= problem.t0 else -1.0
    ends = [problem.t0 + sign * float(s) for s in path.nodes]
    keys = {round(s / problem.length * 1e9) for s in elapsed}
    found: dict[int, Tensor] = {}
    x = x0
    for i, (a, b) in enumerate(pairwise(ends)):
        span = Span(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), b - a, i)
        x = _step(problem.sde, span, x, path.increment(span, like, levy))
        key = round(float(path.nodes[i + 1]) / problem.length * 1e9)
        if key in keys:
            found[key] = x
    return [found[round(s / problem.length * 1e9)] for s in elapsed]
