"""Steps chosen by an error estimate, for every sample on its own.

The estimate e `(B, *shape)` is measured in the scaled norm

    E_i = rms( e_i / (atol + rtol max(|x_i|, |x'_i|)) )          one number a sample

and a step is taken where E ≤ 1. The next step is `h · safety · E_n^−β1 E_{n−1}^−β2 E_{n−2}^−β3`, with
k β1 = p + i + d, k β2 = −(p + 2d), k β3 = d for an estimate of order k, held within `factors`. A sample's steps depend on
nothing but the sample.

Steps of an SDE are refused only where the solver has strong order above ½ or the noise is additive. Else the error of a
step is its noise, to first order; to refuse steps by it would be to choose the noise, and the limit would be the
solution of another equation.

Reference: Söderlind (2003), ACM Trans. Math. Softw. 29(1), §4; Hairer, Nørsett, Wanner (1993), §II.4; Gaines, Lyons
(1997), SIAM J. Appl. Math. 57(5), for SDEs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import check_number
from ..errors import Incompatible, Status
from ..protocols import Noise, Problem, Span, Step, as_time, error_order, expand


def scaled_norm(
    error: Tensor, x: Tensor, x_new: Tensor, rtol: float | Tensor, atol: float | Tensor, blocks: tuple[int, ...] | None = None
) -> Tensor:
    """The norm E `(B,)` of an error; with blocks, the largest of the blocks' norms, so that none hides behind another."""
    # no error is no error, on whatever scale: a component that stays 0 needs no atol
    scale = torch.where(error == 0, 1.0, torch.maximum(x.abs(), x_new.abs()) * rtol + atol)
    scaled = (error / scale).flatten(1)
    groups = (scaled,) if blocks is None else scaled.split(blocks, dim=1)
    norms = [group.square().mean(dim=1).sqrt() for group in groups]
    return norms[0] if len(norms) == 1 else torch.stack(norms).amax(0)


@dataclass(frozen=True)
class Adaptive:
    """Per-sample adaptive steps. Tolerances have no default: they are the user's to choose.

    rtol, atol: relative and absolute tolerance, at least one positive.  first_step: size of the first step (default: from
    the size of drift and diffusion).  min_step, max_step: bounds on |h|; a sample whose error is too large at
    min_step ends with Status.STEP_TOO_SMALL.  max_steps: attempts before a sample ends with Status.MAX_STEPS.
    jump_times: times at which drift or diffusion jumps: a step ends just before each, and the next begins just after it.
    pid: (p, i, d); default (0.4, 0.3, 0) for ODEs and (0.1, 0.3, 0) for SDEs.
    safety: target for E on the next step, as a factor on h.  factors: smallest and largest change of h.
    """

    rtol: float
    atol: float
    first_step: float | None = None
    min_step: float = 0.0
    max_step: float = math.inf
    max_steps: int = 100_000
    jump_times: Sequence[float] = ()
    pid: tuple[float, float, float] | None = None
    safety: float = 0.9
    factors: tuple[float, float] = (0.2, 10.0)

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"Adaptive: {name} must be finite and not negative, got {value!r}")
        if self.rtol == 0 and self.atol == 0:
            raise ValueError("Adaptive: rtol and atol are both zero, which no step can meet; set at least one, e.g. atol=1e-6")
        if self.first_step is not None and not 0 < self.first_step < math.inf:
            raise ValueError(f"Adaptive: first_step must be positive, got {self.first_step!r}")
        if not (0 <= self.min_step <= self.max_step and self.max_step > 0):
            raise ValueError(f"Adaptive: need 0 <= min_step <= max_step, got {self.min_step!r} and {self.max_step!r}")
        if isinstance(self.max_steps, bool) or not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"Adaptive: max_steps must be an integer of 1 or more, got {self.max_steps!r}")
        if as_time(self.jump_times).ndim != 1:
            raise ValueError(f"Adaptive: jump_times must be a list of times, got {self.jump_times!r}")
        for t in self.jump_times:
            check_number("Adaptive: every one of jump_times", t)
        if self.pid is not None:
            if not isinstance(self.pid, (tuple, list)) or len(self.pid) != 3:
                raise ValueError(f"Adaptive: pid takes three numbers (p, i, d), got {self.pid!r}")
            for value in self.pid:
                check_number("Adaptive: every number of pid", value)
        if not (0 < self.safety < 1 and 0 < self.factors[0] < 1 < self.factors[1]):
            raise ValueError("Adaptive: need 0 < safety < 1 and factors[0] < 1 < factors[1]")

    @property
    def adaptive(self) -> bool:
        return True

    def begin(self, problem: Problem) -> AdaptivePace:
        if error_order(problem.solver, problem.noise) is None:
            name = type(problem.solver).__name__
            raise Incompatible(
                f"Adaptive steps need an error estimate; {name} has none. Use FixedSteps(n) or Halving({name}())."
            )
        return AdaptivePace(self, problem)


class Progress(NamedTuple):
    """Where the samples of an adaptive solve stand; every field is `(B,)`.

    t: the time reached.  h: the size meant for the next step.  t0, t1: the step under way; samples that have finished repeat
    their last, and nothing of it is kept.  lands: whether it ends on a stop.  after: the time from which to go on then.
    last, before: error norms of the last two steps taken.  active, accept, status, accepted, rejected: as they are named.
    """

    t: Tensor
    h: Tensor
    t0: Tensor
    t1: Tensor
    lands: Tensor
    after: Tensor
    last: Tensor
    before: Tensor
    active: Tensor
    accept: Tensor
    status: Tensor
    accepted: Tensor
    rejected: Tensor


_SIX_DIGITS = -(1 << 47)  # keeps sign, exponent and five binary digits after the first, which is not stored


class Controller:
    """The arithmetic of adaptive steps, from one `Progress` to the next: tensors only, so that a graph can hold it."""

    def __init__(self, control: Adaptive, problem: Problem, start: Tensor, end: Tensor) -> None:
        order = error_order(problem.solver, problem.noise)
        assert order is not None
        self._end, self._sign = end, torch.sign(end - start)
        # below this a step is lost in the rounding of t
        self._floor = torch.clamp(16 * torch.finfo(torch.float64).eps * torch.maximum(start.abs(), end.abs()), min=1e-300)
        self._floor = torch.clamp(self._floor, min=control.min_step)
        p, i, d = control.pid or ((0.1, 0.3, 0.0) if problem.stochastic else (0.4, 0.3, 0.0))
        self._beta = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
        self._order, self._blocks = order, problem.blocks
        self.tolerances, self._safety = (control.rtol, control.atol), control.safety
        self._factors, self._max_step, self._max_steps = control.factors, control.max_step, control.max_steps
        # such an error has the size of the step's noise; to refuse steps by it would be to choose the noise
        exempt = problem.noise in (Noise.NONE, Noise.ADDITIVE)
        self._takes_all = not exempt and problem.solver.orders[problem.noise].strong <= 0.5
        self._set_jumps(torch.tensor(sorted(control.jump_times), dtype=torch.float64, device=end.device), problem)

    def _set_jumps(self, jumps: Tensor, problem: Problem) -> None:
        """Where to end and to begin again around every jump: the neighbours of its time as the functions will see it."""
        # noise over the gap is lost, which float32 would feel
        seen = jumps.to(torch.float64 if problem.stochastic else problem.x.dtype)
        ahead = torch.full_like(seen, math.inf) * (1.0 if bool((self._sign >= 0).all()) else -1.0)
        self.jumps = jumps
        self._around = tuple(torch.nextafter(seen, to).to(torch.float64) for to in (-ahead, ahead))

    def _next_stop(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The next time to land on, and the time from which to go on then: a jump's two sides, or the end twice."""
        if len(self.jumps) == 0:
            return self._end, self._end
        forward = torch.searchsorted(self.jumps, t, right=True)
        backward = torch.searchsorted(self.jumps, t, right=False) - 1
        index = torch.where(self._sign > 0, forward, backward)
        exists = (index >= 0) & (index < len(self.jumps))
        before, after = (side[index.clamp(0, len(self.jumps) - 1)] for side in self._around)
        stops = exists & ((self._end - after) * self._sign > 0) & ((before - t) * self._sign > 0)
        return torch.where(stops, before, self._end), torch.where(stops, after, self._end)

    def begin(self, first: Tensor, start: Tensor, active: Tensor, status: Tensor) -> Progress:
        """The beginning, given a first step's size."""
        h = torch.minimum(self._rounded(torch.clamp(first, max=self._max_step)), (self._end - start).abs())
        one, none = torch.ones_like(start), torch.zeros_like(status)
        no = torch.zeros_like(active)
        return Progress(start, h, start, self._end, no, self._end, one, one, active, no, status, none, none)

    def plan(self, p: Progress) -> Progress:
        """The next step to try."""
        target, after = self._next_stop(p.t)
        # stretch a little rather than leave a sliver behind
        lands = p.h >= (target - p.t).abs() * (1 - 1e-10)
        t1 = torch.where(lands, target, p.t + self._sign * p.h)
        t0, t1 = torch.where(p.active, p.t, p.t0), torch.where(p.active, t1, p.t1)
        return p._replace(t0=t0, t1=t1, lands=lands, after=after)

    def judge(self, p: Progress, x: Tensor, new: Tensor, error: Tensor, tolerances: Sequence[float | Tensor] = ()) -> Progress:
        """What comes of a step tried: taken or not, and the size of the next; tolerances: (rtol, atol), if not its own."""
        h = (p.t1 - p.t0).abs()
        rtol, atol = tolerances or self.tolerances
        norm = scaled_norm(error, x, new, rtol, atol, self._blocks).to(torch.float64)
        finite = torch.isfinite(norm) & torch.isfinite(new).flatten(1).all(1)
        accept = p.active & finite & (self._takes_all | (norm <= 1))

        size = torch.where(finite, norm, math.inf).clamp(min=1e-10)
        low, high = self._factors
        growth = self._safety * size ** -self._beta[0] * p.last ** -self._beta[1]
        if self._beta[2]:
            growth = growth * p.before ** -self._beta[2]
        # after a rejection only the last error speaks, and the step must shrink
        retreat = torch.clamp(self._safety * size ** (-1 / self._order), max=self._safety)
        factor = torch.where(accept, growth.clamp(low, high), retreat.clamp(low, 1.0))
        proposal = torch.clamp(h * factor, max=self._max_step)
        # a step cut short to land on a stop says nothing against the size that was meant
        proposal = torch.where(accept & (proposal < p.h) & (h < p.h * (1 - 1e-10)), p.h, proposal)
        meant = torch.where(p.active, self._rounded(proposal), p.h)

        t = torch.where(accept, torch.where(p.lands, p.after, p.t1), p.t)
        refused = p.active & ~accept
        accepted, rejected = p.accepted + accept, p.rejected + refused
        stuck = refused & (meant < self._floor)
        arrived = t == self._end
        spent = p.active & (accepted + rejected >= self._max_steps) & ~arrived
        status = torch.where(spent, int(Status.MAX_STEPS), p.status)
        status = torch.where(stuck, torch.where(finite, int(Status.STEP_TOO_SMALL), int(Status.NONFINITE)), status)
        return p._replace(
            t=t,
            h=meant,
            last=torch.where(accept, size, p.last),
            before=torch.where(accept, p.last, p.before),
            active=p.active & ~(stuck | spent | (accept & arrived)),
            accept=accept,
            status=status,
            accepted=accepted,
            rejected=rejected,
        )

    def _rounded(self, h: Tensor) -> Tensor:
        """Step sizes cut to six binary digits.

        The last digits of an error norm depend on the batch around a sample (vectorised arithmetic rounds otherwise than
        scalar), and a Brownian path turns a difference ε of time into √ε of state. Coarse sizes keep that from happening,
        and times of few digits are cheap to ask of a Brownian tree.
        """
        cut = (h.view(torch.int64) & _SIX_DIGITS).view(torch.float64)
        return torch.where(torch.isfinite(h), torch.where(h < self._floor, h, torch.maximum(cut, self._floor)), h)


class AdaptivePace:
    """The steps of one adaptive solve."""

    def __init__(self, control: Adaptive, problem: Problem) -> None:
        x, count = problem.x, len(problem.x)
        self._problem = problem
        start, end = (t.detach().to(x.device).expand(count) for t in (problem.t0, problem.t1))
        length = (end - start).abs()
        active = (length > 0) & torch.isfinite(x.detach()).flatten(1).all(1)
        status = torch.where(active | (length == 0), int(Status.OK), int(Status.NONFINITE)).to(torch.int64)
        if control.first_step is not None:
            first = torch.full_like(length, control.first_step)
        elif problem.first_step is not None:
            first = problem.first_step().to(torch.float64)
            first = torch.where(torch.isfinite(first) & (first > 0), first, 1e-3 * length)
        else:
            first = 1e-2 * length
        self.controller = Controller(control, problem, start, end)
        self.progress = self.controller.begin(first, start.clone(), active, status)
        self._end = end
        self.restart: Tensor | None = None

    def next(self) -> Span | None:
        if not bool(self.progress.active.any()):
            return None
        self.progress = self.controller.plan(self.progress)
        return self.span(self.progress)

    def span(self, p: Progress) -> Span:
        """The step under way."""
        x = self._problem.x
        start, end = expand(p.t0, x), expand(p.t1, x)
        return Span(start, end, (end - start).to(x.dtype), p.accepted, self._problem.draws)

    @torch.no_grad()
    def judge(self, span: Span, x: Tensor, step: Step) -> Tensor:
        assert step.error is not None
        before = self.progress
        self.progress = p = self.controller.judge(before, x, step.x, step.error)
        if len(self.controller.jumps):
            self.restart = p.accept & before.lands & (p.t != self._end)
        return p.accept

    def stop(self, mask: Tensor, status: Status) -> None:
        """End the samples in the mask, with a status."""
        p = self.progress
        self.progress = p._replace(status=torch.where(p.active & mask, int(status), p.status), active=p.active & ~mask)

    @property
    def t(self) -> Tensor:
        """The time each sample has reached `(B,)`."""
        return self.progress.t

    @property
    def active(self) -> Tensor:
        """The samples that are under way."""
        return self.progress.active

    @property
    def status(self) -> Tensor:
        return self.progress.status

    @property
    def accepted(self) -> Tensor:
        """Steps taken."""
        return self.progress.accepted

    @property
    def rejected(self) -> Tensor:
        """Steps tried and not taken."""
        return self.progress.rejected
