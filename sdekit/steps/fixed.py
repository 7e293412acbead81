"""Steps known beforehand: a number of equal steps, a step size, or a grid of times.

Times are computed as fractions of the whole span, never by accumulation, so T = 1 with dt = 0.1 is ten steps and the
last one ends at t1 exactly. Nothing here waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..protocols import Problem, Span, Step, as_time, broadcast, expand

_WINDOW = 256  # times that are made together


class FixedPace:
    """The spans of a known grid, one after the other. All samples share the step numbers.

    node: the i-th time of the grid, i = 0 … steps; all that changes is a number, so that a copy goes on from where it is.
    nodes: the same for a tensor of numbers, where times are plain numbers.
    """

    def __init__(
        self,
        problem: Problem,
        node: Callable[[int], Tensor | float],
        steps: int,
        nodes: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._node, self._nodes, self._problem, self._index = node, nodes, problem, -1
        self._window: tuple[int, tuple[Tensor, ...], list[float]] = (0, (), [])
        self._last: Tensor | float = node(0)
        self._last_time = self._time(self._last)
        self.steps = steps

    def _time(self, node: Tensor | float) -> Tensor:
        return expand(node, self._problem.x) if isinstance(node, Tensor) else torch.tensor(node, dtype=torch.float64)

    def next(self) -> Span | None:
        if self._index + 1 >= self.steps:
            return None
        self._index += 1
        node, time = self._ahead_of(self._index + 1)
        h = time - self._last_time if isinstance(node, Tensor) else node - self._last
        if isinstance(h, Tensor) and h.ndim > 0:
            h = h.to(self._problem.x.dtype)
        span = Span(self._last_time, time, h, self._index, self._problem.draws)
        self._last, self._last_time = node, time
        return span

    def _ahead_of(self, i: int) -> tuple[Tensor | float, Tensor]:
        """The i-th time as it is and as a tensor; plain numbers are made tensors many at a time."""
        if self._nodes is None:
            node = self._node(i)
            return node, self._time(node)
        start, times, nodes = self._window
        if not 0 <= i - start < len(nodes):
            made = self._nodes(torch.arange(i, min(i + _WINDOW, self.steps + 1)))
            start, times, nodes = self._window = (i, made.unbind(0), cast(list[float], made.tolist()))
        return nodes[i - start], times[i - start]

    def ahead(self, count: int) -> tuple[Tensor, Tensor]:
        """The times `(count + 1, …)`, float64, around the next `count` steps, and their sizes `(count, …)`."""
        first = self._index + 1
        if self._nodes is not None:
            times = self._nodes(torch.arange(first, first + count + 1))
        else:
            every = (self._time(self._node(i)) for i in range(first, first + count + 1))
            times = torch.stack(broadcast(*every))
        h = times.diff(dim=0)
        return times, h.to(self._problem.x.dtype) if h.ndim > 1 else h

    def skip(self, count: int) -> None:
        """Go on as though the next `count` steps had been made."""
        self._index += count
        self._last = self._node(self._index + 1)
        self._last_time = self._time(self._last)

    @property
    def taken(self) -> int:
        """Steps made so far."""
        return self._index + 1

    def judge(self, span: Span, x: Tensor, step: Step) -> Tensor | None:
        """Every step is taken."""
        return None


def _needs_tensors(t0: Tensor, t1: Tensor) -> bool:
    return t0.ndim > 0 or t1.ndim > 0 or t0.requires_grad or t1.requires_grad


@dataclass(frozen=True)
class FixedSteps:
    """`n` equal steps, or steps of size `dt` (the last one shorter where dt does not divide the span).

    Raises ValueError unless exactly one of `n >= 1` and `dt > 0` is given.
    """

    n: int | None = None
    dt: float | None = None

    def __post_init__(self) -> None:
        if (self.n is None) == (self.dt is None):
            raise ValueError(
                "FixedSteps takes either a number of steps, FixedSteps(100), or a size, FixedSteps(dt=0.01)"
            )
        if self.n is not None and (isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1):
            raise ValueError(f"FixedSteps: the number of steps must be an integer of 1 or more, got {self.n!r}")
        if self.dt is not None and not (isinstance(self.dt, (int, float)) and 0 < self.dt < math.inf):
            raise ValueError(
                f"FixedSteps: dt must be positive and finite, got {self.dt!r} (the direction is that of t0 → t1)"
            )

    @property
    def adaptive(self) -> bool:
        return False

    def begin(self, problem: Problem) -> FixedPace:
        t0, t1 = problem.t0, problem.t1
        if _needs_tensors(t0, t1):
            if self.n is None:
                raise ValueError(
                    "FixedSteps(dt=…) needs plain t0 and t1; use FixedSteps(n) where times are per sample or need gradients"
                )
            n, span = self.n, t1 - t0
            return FixedPace(problem, lambda i: t0 if i == 0 else t1 if i == n else t0 + span * (i / n), n)
        start, end = float(t0), float(t1)
        if start == end:
            return FixedPace(problem, lambda i: start, 0)
        length = end - start
        whole, n = self._count(abs(length))
        return FixedPace(
            problem,
            lambda i: start + length * i / whole if i < n else end,
            n,
            lambda i: torch.where(i < n, start + length * i.to(torch.float64) / whole, end),
        )

    def _count(self, length: float) -> tuple[float, int]:
        """(length in steps, number of steps)."""
        if self.n is not None:
            return float(self.n), self.n
        assert self.dt is not None
        exact = length / self.dt
        if exact > 1e12:
            raise ValueError(
                f"FixedSteps(dt={self.dt}) would take {exact:.1e} steps over a span of {length}; use a larger dt"
            )
        nearest = round(exact)
        if nearest >= 1 and abs(exact - nearest) <= 1e-9 * nearest:
            return float(nearest), nearest
        return exact, math.ceil(exact)


@dataclass(frozen=True)
class TimeGrid:
    """Steps between given times, in the order of travel; they must run strictly from t0 to t1.

    times: a sequence or 1-d tensor of at least two times; `solve` checks that the ends agree with its t0 and t1.

    Raises ValueError for fewer than two times, and for times that are not finite and strictly monotone.
    """

    times: Sequence[float] | Tensor

    def __post_init__(self) -> None:
        times = as_time(self.times, what="TimeGrid: times").detach()
        if times.ndim != 1 or len(times) < 2:
            raise ValueError(f"TimeGrid: times must be a list of at least two, got {self.times!r}")
        gaps = times.diff()
        if not bool(torch.isfinite(times).all()) or not (bool((gaps > 0).all()) or bool((gaps < 0).all())):
            raise ValueError(
                f"TimeGrid: times must be finite and strictly increasing or strictly decreasing, got {times.tolist()}"
            )
        object.__setattr__(self, "times", tuple(float(t) for t in times))

    @property
    def adaptive(self) -> bool:
        return False

    def begin(self, problem: Problem) -> FixedPace:
        times = self.times
        if problem.t0.ndim or problem.t1.ndim:
            raise ValueError("TimeGrid is shared by all samples; use FixedSteps(n) for per-sample t0 or t1")
        ends = (float(problem.t0), float(problem.t1))
        scale = max(abs(ends[0]), abs(ends[1]))
        if any(abs(a - b) > 1e-9 * scale for a, b in zip(ends, (times[0], times[-1]), strict=True)):
            raise ValueError(
                f"TimeGrid runs from {times[0]} to {times[-1]}, but solve was asked for t0={ends[0]}, t1={ends[1]}"
            )
        nodes = (ends[0], *times[1:-1], ends[1])
        every = torch.tensor(nodes, dtype=torch.float64)
        return FixedPace(problem, nodes.__getitem__, len(nodes) - 1, every.__getitem__)
