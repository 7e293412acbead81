"""Where samples of a solve with known steps stopped being finite.

Adaptive steps look at every state as they judge it. Known steps ask nothing of the state, and to look at each would cost as
much as a small step. So the state is looked at every so many steps; where a sample was lost since, those steps are made
again, one by one, which gives the same numbers as all randomness is keyed.
"""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .solve import Run

_STEPS = 256  # from one look to the next


class Alarm:
    """Watches one solve for samples that are not finite any more.

    lost `(B,)`: those samples.  t, steps `(B,)`: until when they were finite, and how many steps they had taken then; with
    functions that give another value when they are asked again, to within the steps from one look to the next.
    """

    def __init__(self, run: Run) -> None:
        x = run.x0
        # a look waits for the device: one in the end will do, on other devices than the host
        self.every = _STEPS if x.device.type == "cpu" else sys.maxsize
        if not hasattr(run.draws, "seed"):
            self.every = 1  # recorded numbers can be had only once
        self.lost = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.t = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        self.steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self._note(x, run.t0, 0)
        self._start: Run | None = None

    @torch.no_grad()
    def look(self, run: Run) -> None:
        """Look at the state, if it is time to, and remember it where nothing is amiss."""
        start, taken = self._start, _taken(run)
        if start is not None and taken - _taken(start) < self.every and taken < cast(Any, run.pace).steps:
            return
        # a sum is finite only if all it adds is, and is much the cheapest to look at
        if start is not None and not bool(torch.isfinite(run.x.sum())) and not bool((_finite(run.x) | self.lost).all()):
            self._search(start, run)
        self._start = run.fork()

    def _search(self, start: Run, run: Run) -> None:
        """Find the steps, since the start, after which samples were not finite."""
        calls, steps = run.sde.calls, _taken(run) - _taken(start)
        start.recorder, begin = None, self._place(start)
        for _ in range(steps if self.every > 1 else 0):
            place = self._place(start)
            start.go(1)
            self._note(start.x, *place)
        self._note(run.x, *begin)
        run.sde.calls = calls

    @staticmethod
    def _place(run: Run) -> tuple[Tensor, int]:
        """The time at which the next step begins, and its number."""
        span = copy.copy(run.pace).next()
        assert span is not None
        return span.t0, int(span.index)

    def _note(self, x: Tensor, t: Tensor, steps: int) -> None:
        """Samples that are not finite now were so until t."""
        new = ~(_finite(x) | self.lost)
        self.t = torch.where(new, t.detach().to(x.device).reshape(-1), self.t)
        self.steps = torch.where(new, steps, self.steps)
        self.lost = self.lost | new


def _taken(run: Run) -> int:
    """Steps so far, which a pace of known steps tells."""
    return cast(Any, run.pace).taken


def _finite(x: Tensor) -> Tensor:
    """Which samples `(B,)` are finite."""
    return torch.isfinite(x.detach()).flatten(1).all(1)
