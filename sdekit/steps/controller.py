"""The arithmetic of adaptive steps: where samples stand, what comes of a step tried, and what to try next.

The notation is that of module `adaptive`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import Status
from ..protocols import Noise, Problem, error_order

if TYPE_CHECKING:
    from .adaptive import Adaptive

Array: TypeAlias = Any
"""A NumPy array or a tensor: the same formulas hold for both."""


def scaled_norm(
    error: Array,
    x: Array,
    x_new: Array,
    rtol: float | Tensor,
    atol: float | Tensor,
    blocks: tuple[int, ...] | None = None,
) -> Array:
    """The norm E `(B,)` of an error; with blocks, the largest of the blocks' norms, so that none hides behind another."""
    on: Any = torch if isinstance(error, Tensor) else np
    # no error is no error, on whatever scale: a component that stays 0 needs no atol
    scale = on.maximum(abs(x), abs(x_new)) * rtol + atol
    if isinstance(atol, Tensor) or atol == 0:
        scale = on.where(error == 0, 1.0, scale)
    size = math.prod(error.shape[1:])
    scaled = (error / scale).reshape(len(error), size)
    norm, start = None, 0
    for width in blocks or (size,):
        part = scaled if width == size else scaled[:, start : start + width]
        own = on.sqrt((part * part).sum(1) / max(1, width))
        norm, start = own if norm is None else on.maximum(norm, own), start + width
    return norm


def as_tensor(x: Array) -> Tensor:
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


def on_host(t: Tensor) -> Array:
    """A tensor on the host as an array, in the same memory. Raises RuntimeError under the transforms of torch.func."""
    return t.detach().numpy()


def _clip(x: Array, low: float | None, high: float | None) -> Array:
    if isinstance(x, Tensor):
        return x.clamp(low, high)
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _double(x: Array) -> Array:
    return x.double() if isinstance(x, Tensor) else x.astype(np.float64)


class Progress(NamedTuple):
    """Where the samples of an adaptive solve stand; every field is `(B,)`.

    t: the time reached.  h: the size meant for the next step.  t0, t1: the step under way; samples that have finished repeat
    their last, and nothing of it is kept.  lands: whether it ends on a stop.  after: the time from which to go on then.
    last, before: error norms of the last two steps taken.  active, accept, status, accepted, rejected: as they are named.
    """

    t: Array
    h: Array
    t0: Array
    t1: Array
    lands: Array
    after: Array
    last: Array
    before: Array
    active: Array
    accept: Array
    status: Array
    accepted: Array
    rejected: Array


_SIX_DIGITS = -(1 << 47)  # keeps sign, exponent and five binary digits after the first, which is not stored


class Controller:
    """The arithmetic of adaptive steps, from one `Progress` to the next.

    Beside small states it is this that a step costs, so it is done by NumPy where the state is on the host; on other
    devices, and in graphs, by torch, and with nothing that would wait for a device.
    """

    def __init__(self, control: Adaptive, problem: Problem, start: Tensor, end: Tensor) -> None:
        order = error_order(problem.solver, problem.noise)
        assert order is not None
        self._on: Any = torch
        self.end, self._sign = end, torch.sign(end - start)
        # below this a step is lost in the rounding of t
        floor = torch.clamp(16 * torch.finfo(torch.float64).eps * torch.maximum(start.abs(), end.abs()), min=1e-300)
        self._floor = torch.clamp(floor, min=control.min_step)
        p, i, d = control.pid or ((0.1, 0.3, 0.0) if problem.stochastic else (0.4, 0.3, 0.0))
        self._beta = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
        self._order, self._blocks = order, problem.blocks
        self.tolerances, self._safety = (control.rtol, control.atol), control.safety
        self._factors, self._max_step, self._max_steps = control.factors, control.max_step, control.max_steps
        # such an error has the size of the step's noise; to refuse steps by it would be to choose the noise
        exempt = problem.noise in (Noise.NONE, Noise.ADDITIVE)
        self._takes_all = not exempt and problem.solver.orders[problem.noise].strong <= 0.5
        self._set_jumps(torch.tensor(sorted(control.jump_times), dtype=torch.float64, device=end.device), problem)

    def on_host(self) -> Controller:
        """The same, for arrays."""
        other = copy.copy(self)
        other._on, (other.end, other._sign, other._floor) = np, map(on_host, (self.end, self._sign, self._floor))
        other.jumps, other._around = on_host(self.jumps), tuple(map(on_host, self._around))
        return other

    def _set_jumps(self, jumps: Tensor, problem: Problem) -> None:
        """Where to end and to begin again around every jump: the neighbours of its time as the functions will see it."""
        # noise over the gap is lost, which float32 would feel
        seen = jumps.to(torch.float64 if problem.stochastic else problem.x.dtype)
        ahead = torch.full_like(seen, math.inf) * (1.0 if bool((self._sign >= 0).all()) else -1.0)
        self.jumps: Array = jumps
        self._around: tuple[Array, ...] = tuple(torch.nextafter(seen, to).to(torch.float64) for to in (-ahead, ahead))

    def _next_stop(self, t: Array) -> tuple[Array, Array]:
        """The next time to land on, and the time from which to go on then: a jump's two sides, or the end twice."""
        if len(self.jumps) == 0:
            return self.end, self.end
        on = self._on
        forward = on.searchsorted(self.jumps, t, side="right")
        backward = on.searchsorted(self.jumps, t, side="left") - 1
        index = on.where(self._sign > 0, forward, backward)
        exists = (index >= 0) & (index < len(self.jumps))
        before, after = (side[_clip(index, 0, len(self.jumps) - 1)] for side in self._around)
        stops = exists & ((self.end - after) * self._sign > 0) & ((before - t) * self._sign > 0)
        return on.where(stops, before, self.end), on.where(stops, after, self.end)

    def begin(self, first: Array, start: Array, active: Array, status: Array) -> Progress:
        """The beginning, given a first step's size."""
        on = self._on
        h = on.minimum(self._rounded(_clip(first, None, self._max_step)), abs(self.end - start))
        one, none = on.ones_like(start), on.zeros_like(status)
        no = on.zeros_like(active)
        return Progress(start, h, start, self.end, no, self.end, one, one, active, no, status, none, none)

    def plan(self, p: Progress) -> Progress:
        """The next step to try."""
        on = self._on
        target, after = self._next_stop(p.t)
        # stretch a little rather than leave a sliver behind
        lands = p.h >= abs(target - p.t) * (1 - 1e-10)
        t1 = on.where(lands, target, p.t + self._sign * p.h)
        t0, t1 = on.where(p.active, p.t, p.t0), on.where(p.active, t1, p.t1)
        return p._replace(t0=t0, t1=t1, lands=lands, after=after)

    def judge(
        self, p: Progress, x: Array, new: Array, error: Array, tolerances: Sequence[float | Tensor] = ()
    ) -> Progress:
        """What comes of a step tried: taken or not, and the size of the next; tolerances: (rtol, atol), if not its own."""
        on = self._on
        h = abs(p.t1 - p.t0)
        rtol, atol = tolerances or self.tolerances
        norm = _double(scaled_norm(error, x, new, rtol, atol, self._blocks))
        finite = on.isfinite(norm) & on.isfinite(new).reshape(len(new), math.prod(new.shape[1:])).all(1)
        accept = p.active & finite & (norm <= (math.inf if self._takes_all else 1.0))

        size = _clip(on.where(finite, norm, math.inf), 1e-10, None)
        low, high = self._factors
        growth = self._safety * size ** -self._beta[0] * p.last ** -self._beta[1]
        if self._beta[2]:
            growth = growth * p.before ** -self._beta[2]
        # after a rejection only the last error speaks, and the step must shrink
        retreat = _clip(self._safety * size ** (-1 / self._order), low, self._safety)
        factor = on.where(accept, _clip(growth, low, high), retreat)
        proposal = _clip(h * factor, None, self._max_step)
        # a step cut short to land on a stop says nothing against the size that was meant
        proposal = on.where(accept & (proposal < p.h) & (h < p.h * (1 - 1e-10)), p.h, proposal)
        meant = on.where(p.active, self._rounded(proposal), p.h)

        t = on.where(accept, on.where(p.lands, p.after, p.t1), p.t)
        refused = p.active & ~accept
        accepted, rejected = p.accepted + accept, p.rejected + refused
        stuck = refused & (meant < self._floor)
        arrived = t == self.end
        spent = p.active & (accepted + rejected >= self._max_steps) & ~arrived
        status = on.where(spent, int(Status.MAX_STEPS), p.status)
        status = on.where(stuck, on.where(finite, int(Status.STEP_TOO_SMALL), int(Status.NONFINITE)), status)
        return p._replace(
            t=t,
            h=meant,
            last=on.where(accept, size, p.last),
            before=on.where(accept, p.last, p.before),
            active=p.active & ~(stuck | spent | (accept & arrived)),
            accept=accept,
            status=status,
            accepted=accepted,
            rejected=rejected,
        )

    def _rounded(self, h: Array) -> Array:
        """Step sizes cut to six binary digits.

        The last digits of an error norm depend on the batch around a sample (vectorised arithmetic rounds otherwise than
        scalar), and a Brownian path turns a difference ε of time into √ε of state. Coarse sizes keep that from happening,
        and times of few digits are cheap to ask of a Brownian tree.
        """
        on = self._on
        cut = (h.view(on.int64) & _SIX_DIGITS).view(on.float64)
        return on.where(h < self._floor, h, on.maximum(cut, self._floor))
