"""Terminal events on the state: a sample ends where a function of it changes sign, and the place is located."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .arguments import check_integer
from .errors import Status
from .protocols import Increment, Levy, Span, Step, expand
from .save import Bridge, select


@dataclass(frozen=True)
class Event:
    """The first time that `condition(t, x)` `(B,)` changes sign, for every sample on its own: a first-passage time.

    rising: True for − to +, False for + to −, None for either.  iterations: halvings of the step in which it happened;
    the event is located to 2^−iterations of that step, along the bridge of the step's own noise.

    Samples that met it go no further; the place is then found for all of them together, when the solve has ended.

    Between grid points an SDE may cross and come back unseen, so first-passage times of SDEs carry a bias of the order
    of √h unless the steps are small near the boundary.

    Raises TypeError for a condition that is no function or another `rising`, ValueError for iterations below 1.
    """

    condition: Callable[[Tensor, Tensor], Tensor]
    rising: bool | None = None
    iterations: int = 30

    def __post_init__(self) -> None:
        if not callable(self.condition):
            raise TypeError(f"Event: condition must be a function of (t, x), got {self.condition!r}")
        if self.rising not in (True, False, None):
            raise TypeError(f"Event: rising must be True, False or None, got {self.rising!r}")
        check_integer("Event: iterations", self.iterations, 1)


class EventWatch:
    """Watches one solve for an event."""

    def __init__(self, event: Event, t0: Tensor, x: Tensor, bridge: Bridge) -> None:
        self._event, self._bridge = event, bridge
        self._value = self._measure(expand(t0, x), x)
        self.stopped = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._t = torch.full((len(x),), float("nan"), dtype=torch.float64, device=x.device)
        self._waiting = torch.zeros_like(self.stopped)
        self._held: tuple[Any, ...] | None = None

    @torch.no_grad()
    def _measure(self, t: Tensor, x: Tensor) -> Tensor:
        value = self._event.condition(t.to(x.dtype) if t.ndim else t, x)
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Event: condition(t, x) must return one number a sample, shape ({len(x)},), got {got} "
                f"for t of shape {tuple(t.shape)}; t.reshape(-1) fits beside (B,)"
            )
        return value

    def _crossed(self, before: Tensor, after: Tensor) -> Tensor:
        up, down = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return up | down if self._event.rising is None else up if self._event.rising else down

    @property
    def all_stopped(self) -> bool:
        """Whether no sample is left to watch."""
        return bool(self.stopped.all())

    def look(
        self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any, accept: Tensor | None, pace: Any
    ) -> tuple[Step, Tensor]:
        """The step, and the mask of the samples that take it."""
        taken = ~self.stopped if accept is None else accept & ~self.stopped
        value = self._measure(span.t1, step.x)
        hit = taken & self._crossed(self._value, value)
        self._value = torch.where(taken, value, self._value)
        if bool(hit.any()):
            if step.interpolate is not None or self._bridge.levy is Levy.AREA:
                # dense output costs nothing, and the pieces of an area are known only while their step lasts
                step = step._replace(x=self._locate(span, x, step, dw, state, hit))
            else:
                self._hold(span, x, step, dw, state, hit)
            self.stopped = self.stopped | hit
            if hasattr(pace, "stop"):
                pace.stop(hit, Status.EVENT)
        return step, taken

    def _hold(self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any, hit: Tensor) -> None:
        """Keep the step in which samples met the event, to locate it for all samples together in the end."""
        index = span.index if isinstance(span.index, Tensor) else torch.full_like(hit, span.index, dtype=torch.int64)
        new = (_each(span.t0, x), _each(span.t1, x), index, x, step.x, dw, state)
        self._held = new if self._held is None else select(hit, new, self._held)
        self._waiting = self._waiting | hit

    def finish(self, x: Tensor) -> Tensor:
        """The final states, with samples that met the event where they met it."""
        if self._held is None:
            return x
        t0, t1, index, before, after, dw, state = self._held
        span = Span(expand(t0, x), expand(t1, x), expand(t1 - t0, x).to(x.dtype), index, self._bridge.draws)
        there = self._locate(span, before, Step(after), dw, state, self._waiting)
        return torch.where(expand(self._waiting, x), there, x)

    def _locate(self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any, hit: Tensor) -> Tensor:
        """The states after the step, with those that met the event moved back to it, by bisection."""
        t0, t1 = _each(span.t0, x), _each(span.t1, x)
        before = self._measure(expand(t0, x), x)
        low, high, there = torch.zeros_like(t0), torch.ones_like(t0), step.x
        for _ in range(self._event.iterations):
            middle = (low + high) / 2
            t = expand(torch.where(hit, t0 + middle * (t1 - t0), t1), x)
            state_there = self._bridge.reach(span, t, x, step, dw, state)
            crossed = self._crossed(before, self._measure(t, state_there))
            high, low = torch.where(crossed, middle, high), torch.where(crossed, low, middle)
            there = torch.where(expand(crossed & hit, x), state_there, there)
        self._t = torch.where(hit, t0 + high * (t1 - t0), self._t)
        return there

    def outcome(self, status: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Statuses and end times with the events' own."""
        status = torch.where(self.stopped, int(Status.EVENT), status)
        return status, torch.where(self.stopped, self._t, t.to(self._t.device).expand_as(self._t))


def _each(t: Tensor, x: Tensor) -> Tensor:
    """Times of a span, one for every sample."""
    return t.detach().reshape(-1).to(x.device).expand(len(x))
