"""What came of a solve: the states, and what happened on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import Status
from .protocols import as_time


@dataclass(frozen=True)
class Stats:
    """Counts of work.

    model_calls: batched calls of the model: the score where the SDE has one, else the drift.
    drift_calls, diffusion_calls: batched calls of f and of G.
    evaluations (B,): model calls for the steps of the sample: what it would have cost alone. Side steps to times that
    are saved and to events are counted in the batched calls only. Implicit methods iterate until the last sample of the
    batch has converged, and count that for all of them.
    accepted, rejected (B,): steps taken and steps tried in vain.
    """

    model_calls: int
    drift_calls: int
    diffusion_calls: int
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class Solution:
    """The result of `solve`.

    x: `(T, B, *shape)` at the saved times, NaN after a sample's end; or `(B, *shape)` at the end if nothing was asked to be
    saved.
    t: the saved times `(T,)`, or the final time: 0-d, or `(B,)` where samples ended at different times. A sample that did
    not stay finite ended after the last step that it was finite; so say stats.accepted, too.
    status `(B,)`: int tensor of `Status`.  mean: the final state before the last step's noise was added, where the
    solver knows it (the denoised sample of a predictor).  stats: the counts of work.
    """

    x: Tensor
    t: Tensor
    status: Tensor
    stats: Stats
    mean: Tensor | None = None
    dense: DenseOutput | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether every sample reached the end, or the event asked for."""
        return bool(((self.status == Status.OK) | (self.status == Status.EVENT)).all())

    def at(self, t: float | Tensor) -> Tensor:
        """State at any time inside the solve, by dense output; t is a float, 0-d or `(B,)`. Needs `SaveAt(dense=True)`."""
        if self.dense is None:
            raise ValueError("this solution holds no dense output: solve with save=SaveAt(dense=True)")
        return self.dense(t)


Piece = tuple[Tensor, Tensor, Tensor | None, Callable[[Tensor], Tensor]]


@dataclass
class DenseOutput:
    """Interpolants of all steps; a call evaluates the one that holds t, sample by sample.

    rank: number of dimensions of the state.  pieces: (t0, t1, mask `(B,)` of the samples that took the step or None, and
    `theta -> x`) of every step; times are 0-d or `(B, 1, …, 1)`.  end: where samples ended at times `(B,)` of their own,
    those, and the sign of travel.
    """

    rank: int
    pieces: list[Piece] = field(default_factory=list[Piece])
    end: tuple[Tensor, float] | None = None

    def __call__(self, t: float | Tensor) -> Tensor:
        time = as_time(t)
        if time.ndim > 0:
            time = time.reshape(-1, *(1,) * (self.rank - 1))
        result: Tensor | None = None
        found: Tensor | None = None
        for t0, t1, accept, interpolate in self.pieces:
            theta = (time - t0) / torch.where(t1 == t0, torch.ones_like(t0), t1 - t0)
            inside = (theta >= 0) & (theta <= 1)
            if accept is not None:
                inside = inside & accept.reshape(-1, *(1,) * (self.rank - 1))
            if self.end is not None:
                last, sign = self.end
                inside = inside & ((time - last.reshape(-1, *(1,) * (self.rank - 1))) * sign <= 0)
            if not bool(inside.any()):
                continue
            value = interpolate(theta.clamp(0.0, 1.0))
            mask = inside.expand(len(value), *(1,) * (self.rank - 1))
            result = value if result is None else torch.where(mask, value, result)
            found = mask if found is None else found | mask
        if result is None or found is None or not bool(found.all()):
            raise ValueError(f"got t = {t}, which lies outside the solved interval of at least one sample")
        return result


def failure_message(solution: Solution, t: Tensor) -> str:
    """Which samples did not reach t1, why, and when the first of each kind stopped; t: the times all ended at."""
    status, steps = solution.status, solution.stats.accepted
    parts: list[str] = []
    for kind in (Status.NONFINITE, Status.MAX_STEPS, Status.STEP_TOO_SMALL):
        rows = torch.nonzero(status == kind).squeeze(1)
        if len(rows):
            names = ", ".join(str(int(i)) for i in rows[:5]) + (", …" if len(rows) > 5 else "")
            row = int(rows[0])
            stop = float(t.expand(len(status))[row])
            at = f" (sample {row} stopped at t = {stop:.6g}, after {int(steps[row])} steps)" if t.ndim else ""
            parts.append(f"{len(rows)} {kind.name}: samples {names}{at}")
    advice = "; the solution so far is in .solution, or pass on_failure='return'"
    return (
        f"{sum(int(s > Status.EVENT) for s in status)} of {len(status)} samples did not reach t1: "
        + "; ".join(parts)
        + advice
    )
