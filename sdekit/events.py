"""Terminal events on the state: a sample ends where a function of it changes sign, and the place is located."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import Status
from .protocols import Increment, Span, Step, expand
from .save import Bridge


@dataclass(frozen=True)
class Event:
    """The first time that `condition(t, x)` `(B,)` changes sign, for every sample on its own: a first-passage time.

    rising: True for − to +, False for + to −, None for either.  iterations: halvings of the step in which it happened;
    the event is located to 2^−iterations of that step, along the bridge of the step's own noise.

    Between grid points an SDE may cross and come back unseen, so first-passage times of SDEs carry a bias of the order
    of √h unless the steps are small near the boundary.
    """

    condition: Callable[[Tensor, Tensor], Tensor]
    rising: bool | None = None
    iterations: int = 30


class EventWatch:
    """Watches one solve for an event."""

    def __init__(self, event: Event, t0: Tensor, x: Tensor, bridge: Bridge) -> None:
        self._event, self._bridge = event, bridge
        self._value = self._measure(expand(t0, x), x)
        self.stopped = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._t = torch.full((len(x),), float("nan"), dtype=torch.float64, device=x.device)
        self.all_stopped = False

    def _measure(self, t: Tensor, x: Tensor) -> Tensor:
        value = self._event.condition(t.to(x.dtype) if t.ndim else t, x)
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"Event: condition(t, x) must return one number a sample, shape ({len(x)},), got {got}")
        return value.detach()

    def _crossed(self, before: Tensor, after: Tensor) -> Tensor:
        up, down = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return up | down if self._event.rising is None else up if self._event.rising else down

    def look(
        self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any, accept: Tensor | None, pace: Any
    ) -> tuple[Step, Tensor]:
        """The step with samples that met the event moved back to it, and the mask of those that take it."""
        taken = ~self.stopped if accept is None else accept & ~self.stopped
        value = self._measure(span.t1, step.x)
        hit = taken & self._crossed(self._value, value)
        self._value = torch.where(taken, value, self._value)
        if bool(hit.any()):
            t, there = self._locate(span, x, step, dw, state, hit)
            step = step._replace(x=torch.where(expand(hit, x), there, step.x))
            self._t = torch.where(hit, t, self._t)
            self.stopped = self.stopped | hit
            if hasattr(pace, "stop"):
                pace.stop(hit, Status.EVENT)
            self.all_stopped = bool(self.stopped.all())
        return step, taken

    def _locate(
        self, span: Span, x: Tensor, step: Step, dw: Increment | None, state: Any, hit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bisection for the crossing, per sample; the state is found there by a side step."""
        count = len(x)
        t0, t1 = (t.reshape(-1).to(x.device).expand(count) for t in (span.t0, span.t1))
        whole = span._replace(t0=expand(t0, x), t1=expand(t1, x), h=expand(t1 - t0, x).to(x.dtype))
        before = self._measure(whole.t0, x)
        low, high, there = torch.zeros_like(t0), torch.ones_like(t0), step.x
        for _ in range(self._event.iterations):
            middle = (low + high) / 2
            t = expand(torch.where(hit, t0 + middle * (t1 - t0), t1), x)
            state_there = self._bridge.reach(whole, t, x, step, dw, state)
            crossed = self._crossed(before, self._measure(t, state_there))
            high, low = torch.where(crossed, middle, high), torch.where(crossed, low, middle)
            there = torch.where(expand(crossed, x), state_there, there)
        return t0 + high * (t1 - t0), there

    def outcome(self, status: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Statuses and end times with the events' own."""
        status = torch.where(self.stopped, int(Status.EVENT), status)
        return status, torch.where(self.stopped, self._t, t.to(self._t.device).expand_as(self._t))
