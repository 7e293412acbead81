"""What is kept of a solve, and how states between steps are reached.

Saving never changes the solution. A time between two steps is reached by a side step from the last state, on the bridge
of that very step's Brownian increment, so that saved values keep the solver's order and the process's law, and the grid,
the step count and the final state are the same whatever is saved. Where a solver has dense output (some ODE methods),
that is used instead.
"""

from __future__ import annotations

import bisect
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .protocols import SDE, BrownianMotion, Increment, Levy, Solver, Span, Step, as_time, expand
from .random import Draws
from .solution import DenseOutput


@dataclass(frozen=True)
class SaveAt:
    """What to keep: states at `times`, or after every `every`-th step, or a dense output.

    times: within [t0, t1], in the order of travel; t0 and t1 may be among them. Known steps of an SDE bridge from one time
    inside to the next, so a value there depends on the other times inside that step: by chance, not in law.
    every: after steps every, 2·every, … (fixed steps only).
    fn: `(t, x) -> tensor (B, …)`, saved instead of x (with t as drift functions get it).
    dense: keep interpolants, so that `Solution.at(t)` answers at any time (ODE solvers with dense output).

    Raises ValueError where nothing is asked for, or both times and every; TypeError for an fn that is no function.
    """

    times: Sequence[float] | Tensor | None = None
    every: int | None = None
    fn: Callable[[Tensor, Tensor], Tensor] | None = None
    dense: bool = False

    def __post_init__(self) -> None:
        if self.fn is not None and not callable(self.fn):
            raise TypeError(f"SaveAt: fn must be a function of (t, x), got {self.fn!r}")
        if self.times is not None and self.every is not None:
            raise ValueError("SaveAt takes times=… or every=…, not both")
        if self.times is None and self.every is None and not self.dense:
            raise ValueError(
                "SaveAt needs times=[…], every=n or dense=True; leave save out to keep the final state only"
            )
        if self.every is not None and (
            isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1
        ):
            raise ValueError(f"SaveAt: every must be an integer of 1 or more, got {self.every!r}")
        if self.times is not None:
            times = as_time(self.times, what="SaveAt: times")
            if times.ndim != 1 or len(times) == 0:
                raise ValueError(f"SaveAt: times must be a non-empty list of times, got {self.times!r}")
            if not bool(torch.isfinite(times.detach()).all()):
                raise ValueError(f"SaveAt: times must be finite, got {self.times!r}")
            object.__setattr__(self, "times", times)


@dataclass(frozen=True)
class Bridge:
    """The means to reach a time inside a step: solver, SDE, path, and the source of what else is random."""

    solver: Solver
    sde: SDE
    path: BrownianMotion | None
    like: Tensor | None
    levy: Levy
    draws: Draws | None = None

    def reach(self, span: Span, t: Tensor, x: Tensor, step: Step, dw: Increment | None, state: Any) -> Tensor:
        """State at t within the span; t as the span's times are: 0-d or `(B, 1, …, 1)`."""
        if step.interpolate is not None:
            whole = span.t1 - span.t0
            return step.interpolate((t - span.t0) / torch.where(whole == 0, torch.ones_like(whole), whole))
        h: float | Tensor = t - span.t0
        if isinstance(span.h, float) and isinstance(h, Tensor) and not h.requires_grad:
            h = float(h)
        elif isinstance(h, Tensor) and h.ndim:
            h = h.to(x.dtype)
        inner = span._replace(t1=t, h=h)
        if self.path is not None and dw is not None and self.like is not None:
            dw = self.path.part(span, inner, dw, self.like, self.levy)
        return self.solver.step(self.sde, inner, x, dw, state).x


def select(mask: Tensor, new: Any, old: Any) -> Any:
    """Sample by sample, `new` where the mask `(B,)` is set, else `old`: tensors, or tuples of them, where both are there."""
    if new is None or old is None:
        return new
    if isinstance(new, tuple):
        kind = cast(Any, new).__class__
        parts = [select(mask, a, b) for a, b in zip(cast(tuple[Any, ...], new), old, strict=True)]
        return kind(*parts) if hasattr(kind, "_fields") else tuple(parts)
    return torch.where(expand(mask, new), new, old)


class Recorder:
    """Collects what a `SaveAt` asks for while the loop runs."""

    def __init__(self, save: SaveAt, t0: Tensor, t1: Tensor, x: Tensor, bridge: Bridge, adaptive: bool) -> None:
        self._save, self._bridge = save, bridge
        self._sign = 1.0 if bool((t1 >= t0).all()) else -1.0
        self._steps: list[tuple[Tensor, Tensor]] = []
        self.dense = DenseOutput(x.ndim) if save.dense else None
        if adaptive and save.every is not None:
            raise ValueError(
                "SaveAt(every=…) counts steps that all samples share; with Adaptive steps use SaveAt(times=[…])"
            )
        self._per_sample = adaptive or t0.ndim > 0 or t1.ndim > 0
        self._tolerance = 1e-12 * float(torch.maximum(t0.detach().abs().max(), t1.detach().abs().max()))
        self._next = 0
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        if isinstance(save.times, Tensor):
            # a path of noise has no derivative by time
            self._times = save.times if bridge.path is None else save.times.detach()
            self._check_times(save.times.detach(), t0.detach(), t1.detach())
            if self._per_sample:
                self._start_per_sample(self._times, t0, x)
            else:
                self._floats: list[float] = save.times.tolist()
                self._start_shared(t0, x)

    def _check_times(self, times: Tensor, t0: Tensor, t1: Tensor) -> None:
        if bool((times.diff() * self._sign <= 0).any()):
            order = "increasing" if self._sign > 0 else "decreasing"
            raise ValueError(
                f"SaveAt: times must be strictly {order}, in the direction from t0 to t1; got {times.tolist()}"
            )
        slack = 1e-12 * float(torch.maximum(t0.abs().max(), t1.abs().max()))
        first, last = (times[0] - t0) * self._sign, (times[-1] - t1) * self._sign
        if bool((first < -slack).any()) or bool((last > slack).any()):
            raise ValueError(
                f"SaveAt: times must lie between t0 = {t0.tolist()} and t1 = {t1.tolist()}, got {times.tolist()}"
            )

    def _value(self, t: Tensor, x: Tensor) -> Tensor:
        if self._save.fn is None:
            return x
        value = self._save.fn(t.to(x.dtype) if t.ndim else t, x)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != x.shape[:1]:
            got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"SaveAt: fn(t, x) must return a floating tensor ({len(x)}, …), got {got}")
        return value

    # --- all samples at the same time ---

    def _start_shared(self, t0: Tensor, x: Tensor) -> None:
        if abs(self._floats[0] - float(t0)) <= self._tolerance:
            self._steps.append((t0, self._value(t0, x)))
            self._next = 1

    def _take_shared(self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any) -> None:
        end = float(span.t1)
        while self._next < len(self._floats):
            ahead = (self._floats[self._next] - end) * self._sign
            if ahead > self._tolerance:
                return
            t = span.t1
            if ahead >= -self._tolerance:
                value = step.x
            else:
                t = self._times[self._next]
                value = self._bridge.reach(span, t, x, step, dw, state)
            self.put(t, value)

    # --- every sample at its own time ---

    def _start_per_sample(self, times: Tensor, t0: Tensor, x: Tensor) -> None:
        self._times = times.to(x.device)
        here = (self._times[0] - t0).abs() <= self._tolerance
        self._pointer = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self._store(here.to(x.device).expand(len(x)), self._value(expand(t0, x), x))

    def _store(self, mask: Tensor, value: Tensor) -> None:
        rows = torch.nonzero(mask).squeeze(1)
        self._rows.append((self._pointer[rows], rows, value[rows]))
        self._pointer = self._pointer + mask

    def _gathered(self, count: int) -> Tensor:
        """All rows in their places `(T, B, …)`, NaN where a sample ended before."""
        places, rows, values = (torch.cat(parts) for parts in zip(*self._rows, strict=True))
        out = values.new_full((len(self._times), count, *values.shape[1:]), float("nan"))
        return out.index_put((places, rows), values)

    def _take_per_sample(
        self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any, accept: Tensor | None
    ) -> None:
        end = span.t1.reshape(-1).expand(len(x))
        while True:
            time = self._times[self._pointer.clamp(max=len(self._times) - 1)]
            ahead = (time - end) * self._sign
            due = (self._pointer < len(self._times)) & (ahead <= self._tolerance)
            due = due if accept is None else due & accept
            if not bool(due.any()):
                return
            inside = due & (ahead < -self._tolerance)
            t, value = span.t1, step.x
            if bool(inside.any()):
                t = expand(torch.where(inside, time, end), x)
                side = self._bridge.reach(span, t, x, step, dw, state)
                value = torch.where(expand(inside, x), side, step.x)
            self._store(due, self._value(t, value))

    def fork(self) -> Recorder:
        """A recorder that looks for the same times from here on, and keeps what it finds for itself."""
        other = copy.copy(self)
        other._steps, other._rows = [], []
        other.dense = None if self.dense is None else DenseOutput(self.dense.rank)
        return other

    # --- for steps that are made several at a time ---

    def count(self, steps: int) -> int:
        """How many states will be saved in so many steps, about."""
        if self._save.every is not None:
            return steps // self._save.every
        return steps if self._per_sample or self._save.times is None else len(self._floats)

    def needs(self, times: list[float], first: int) -> tuple[list[int], list[int]]:
        """What the next steps, between the times of states 0 … n, hold for it; step `first` is the next.

        The numbers of the states that are saved as they are, and of the steps that are to be looked at by `take`: those
        with a time inside, and, where samples have times of their own, all of them.
        """
        steps = len(times) - 1
        if self._save.every is not None:
            return [k for k in range(1, steps + 1) if (first + k) % self._save.every == 0], []
        if self._per_sample:
            return [], list(range(steps))
        along = times if self._sign > 0 else [-t for t in times]
        whole, within = list[int](), list[int]()
        for time in self._floats[self._next :]:
            t = time * self._sign
            if t > along[-1] + self._tolerance:
                break
            n = bisect.bisect_left(along, t - self._tolerance, 1)
            if t >= along[n] - self._tolerance:
                whole.append(n)
            elif n - 1 not in within[-1:]:
                within.append(n - 1)
        return [n for n in whole if n - 1 not in within], within

    def put(self, t: Tensor, x: Tensor) -> None:
        """Save the state at the time that is next."""
        self._steps.append((t, self._value(t, x)))
        self._next += 1

    def inside(self, span: Span) -> bool:
        """Whether a state before the end of this step is to be saved next."""
        if self._save.times is None:
            return False
        if self._per_sample:
            return True
        return (
            self._next < len(self._floats)
            and (self._floats[self._next] - float(span.t1)) * self._sign < -self._tolerance
        )

    # --- what the loop calls ---

    def take(self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any, accept: Tensor | None) -> None:
        """Look at one step: x and state before it, `accept` the samples that took it (None: all)."""
        if self.dense is not None:
            if step.interpolate is None:
                name = type(self._bridge.solver).__name__
                raise ValueError(
                    f"SaveAt(dense=True) needs a solver with dense output, {name} has none; use Dopri5() or times=[…]"
                )
            self.dense.pieces.append((span.t0, span.t1, accept, step.interpolate))
        if self._save.every is not None:
            if (int(span.index) + 1) % self._save.every == 0:
                self.put(span.t1, step.x)
        elif self._save.times is not None:
            if self._per_sample:
                self._take_per_sample(span, x, step, dw, state, accept)
            else:
                self._take_shared(span, x, step, dw, state)

    def result(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(times, states) for the solution, given the times `()` or `(B,)` at which samples ended, and the states there."""
        if self.dense is not None and t.ndim > 0:
            self.dense.end = (t, self._sign)
        if self._save.times is None and self._save.every is None:
            return t, x
        if self._rows:
            times, values = self._times, self._gathered(len(x))
        elif self._steps:
            times, values = (torch.stack(parts) for parts in zip(*self._steps, strict=True))
        else:
            raise ValueError(f"SaveAt(every={self._save.every}) saved nothing: the solve took fewer steps than that")
        if t.ndim > 0:
            # a sample that met its event inside a step has no state after it
            over = (times.reshape(len(times), -1) - t) * self._sign > self._tolerance
            values = torch.where(over.reshape(*over.shape, *(1,) * (values.ndim - 2)), float("nan"), values)
        return times, values
