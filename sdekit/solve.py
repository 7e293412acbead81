"""The one loop. Everything that steps through time, for ODEs, SDEs, predictor–corrector and exponential samplers alike.

    x' = solver.step(sde, span, x, increment, state)

with the span proposed by a step control, the increment given by a Brownian path, and the step taken by the samples that
the control accepts. A new method is a new Solver, a new way to choose steps a new StepControl; neither is a new loop.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from . import compiled
from .alarm import Alarm
from .arguments import check_state
from .brownian import BrownianTree, FreshIncrements
from .brownian.halves import HalvedPath
from .brownian.stretched import StretchedPath
from .errors import Incompatible, SolveFailed, Status
from .events import Event, EventWatch
from .guard import check_fit, check_objects, check_times
from .protocols import (
    SDE,
    BrownianMotion,
    Dense,
    Increment,
    Noise,
    Problem,
    Solver,
    Span,
    StepControl,
    broadcast,
    error_order,
    expand,
)
from .random import Draws, as_draws
from .save import Bridge, Recorder, SaveAt, select
from .solution import Solution, Stats, failure_message
from .watch import Watched


def solve(
    sde: SDE,
    x0: Tensor,
    t0: float | Tensor,
    t1: float | Tensor,
    *,
    solver: Solver,
    steps: StepControl,
    save: SaveAt | None = None,
    seed: int | Draws = 0,
    first: int = 0,
    path: BrownianMotion | None = None,
    event: Event | None = None,
    on_failure: str = "raise",
    gradient: Gradient | None = None,
    compile: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Solution:
    """Solve `dx = f(t, x) dt + G(t, x) dW` from x(t0) = x0 to t1, forward or backward in time.

    x0: `(B, *shape)`, floating point; dtype and device of the solve follow it.
    t0, t1: times, floats or 0-d, or `(B,)` for a span of its own for every sample.
    solver: how one step is made.  steps: how long the steps are.  save: what to keep besides the end.
    seed: integer, or a source of draws (`Replay`); sample i's noise depends on (seed, first + i) only.
    path: a Brownian path to solve along (default: fresh increments; a Brownian tree for adaptive steps).
    event: a terminal event on the state; a sample ends where it happens, with Status.EVENT.
    on_failure: "raise" (SolveFailed, once all samples have finished) or "return" (statuses in the solution).
    gradient: how derivatives find their way back (default: all steps are remembered): `Checkpointed()` or
        `ReversibleAdjoint()`.
    compile: fuse steps into graphs by `torch.compile`, for the same numbers to rounding (see `sdekit.compiled`). Worth it
        where a solve takes seconds or is made often: making a graph takes some seconds once, and half a second or so in
        later processes. What cannot be compiled is solved without, with a warning.
    progress: called with the fraction of the work done, in [0, 1].

    Returns a `Solution`. Raises Incompatible for objects that do not fit together, ValueError or TypeError for bad
    arguments, SolveFailed for samples that did not reach t1.
    """
    check_state("x0", x0)
    x0 = _in_memory(x0)
    if on_failure not in ("raise", "return"):
        raise ValueError(f"on_failure: expected 'raise' or 'return', got {on_failure!r}")
    check_objects(steps, save, path, event, gradient, progress)
    start, end = check_times(t0, t1, x0)
    draws = as_draws(seed, first)
    watched = Watched(sde, x0)
    check_fit(watched, solver, start, end, path is not None)
    like = _noise_like(watched, start, x0)
    if path is None and like is not None:
        path = _default_path(steps, solver, start, end, like, draws, together=event is None)
    if path is not None and getattr(solver, "halves", False):
        path = HalvedPath(path)
    run = Run(watched, solver, steps, start, end, x0, draws, path, like, save, event, progress)
    if compile:
        if gradient is not None:
            raise Incompatible("compile=True has its own way back for derivatives: leave out compile, or gradient")
        compiled.march(run)
    elif gradient is None or not torch.is_grad_enabled():
        run.go()
    else:
        gradient.march(run)
    return run.solution(on_failure)


def _in_memory(x: Tensor) -> Tensor:
    """A tensor with a place for every number: one that is expanded cannot be written to."""
    return x.contiguous() if 0 in x.stride() else x


class Gradient(Protocol):
    """How derivatives find their way back through the steps of a solve."""

    def march(self, run: Run) -> None:
        """Take the run to its end by `run.go`, remembering what derivatives need."""
        ...


class Run:
    """One solve under way: x and the solver's state, and what watches over them."""

    def __init__(
        self,
        sde: Watched,
        solver: Solver,
        steps: StepControl,
        t0: Tensor,
        t1: Tensor,
        x0: Tensor,
        draws: Draws,
        path: BrownianMotion | None,
        like: Tensor | None,
        save: SaveAt | None,
        event: Event | None,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.sde, self.solver, self.path, self.like, self.levy = sde, solver, path, like, solver.levy
        self.t0, self.t1, self.x0, self.draws, self.progress = t0, t1, x0, draws, progress
        bridge = Bridge(solver, sde, path, like, solver.levy, draws)
        self.recorder = None if save is None else Recorder(save, t0, t1, x0, bridge, steps.adaptive)
        self.watch = None if event is None else EventWatch(event, t0, x0, bridge)
        self.pace = steps.begin(
            Problem(
                t0,
                t1,
                x0,
                draws,
                solver,
                noise=sde.noise,
                blocks=getattr(sde, "blocks", None),
                first_step=lambda: _first_step(sde, solver, steps, t0, t1, x0, like is not None),
            )
        )
        self.x, self.mean = x0, None
        self.state: Any = solver.init(sde, expand(t0, x0), x0)
        self.evaluations = torch.full((len(x0),), sde.model_calls, dtype=torch.int64, device=x0.device)
        self.taken = torch.zeros_like(self.evaluations)
        self.alarm = None if hasattr(self.pace, "active") else Alarm(self)

    def fork(self) -> Run:
        """A run that goes on from here and leaves this one as it is: to make steps again whose numbers were let go."""
        other = copy.copy(self)
        other.pace, other.watch, other.progress = copy.copy(self.pace), copy.copy(self.watch), None
        other.alarm = None
        other.recorder = None if self.recorder is None else self.recorder.fork()
        other.evaluations, other.taken = self.evaluations.clone(), self.taken.clone()
        return other

    def increment(self, span: Span) -> Increment | None:
        """The path's increment over a span; None for an ODE."""
        if self.path is None or self.like is None:
            return None
        return self.path.increment(span, self.like, self.levy)

    def go(self, count: int | None = None) -> bool:
        """`count` steps, or all that are left; whether any may be left."""
        if self.alarm is None:
            return self._march(count)
        more = True
        while more and count != 0:
            self.alarm.look(self)
            leg = self.alarm.every if count is None else min(self.alarm.every, count)
            more, count = self._march(leg), None if count is None else count - leg
        return more

    def _march(self, count: int | None) -> bool:
        """The loop."""
        solver, sde, recorder, watch = self.solver, self.sde, self.recorder, self.watch
        pace: Any = self.pace
        x, state, adaptive, common, more = self.x, self.state, hasattr(pace, "active"), 0, True
        for _ in itertools.repeat(None) if count is None else range(count):
            span = None if watch is not None and watch.all_stopped else pace.next()
            if span is None:
                more = False
                break
            dw = self.increment(span)
            working = pace.working if adaptive else None if watch is None else ~watch.stopped
            before = sde.model_calls
            step = solver.step(sde, span, x, dw, state)
            if working is None:
                common += sde.model_calls - before
            else:
                self.evaluations += working * (sde.model_calls - before)
            accept = pace.judge(span, x, step)
            if watch is not None:
                step, accept = watch.look(span, x, step, dw, state, accept, pace)
                self.taken += accept
            if recorder is not None:
                recorder.take(span, x, step, dw, state, accept)
            if accept is None:
                x, state, self.mean = step.x, step.state, None if adaptive else step.mean
            else:
                x = torch.where(expand(accept, x), step.x, x)
                state = select(accept, step.state, state)
            if adaptive and (restart := pace.restart) is not None and bool(restart.any()):
                # what a solver remembers of the drift does not hold beyond a jump
                state = select(restart, solver.init(sde, expand(pace.t, x), x), state)
            if self.progress is not None:
                self.progress(self.fraction(span))
        self.x, self.state = x, state
        self.evaluations += common
        return more

    def fraction(self, span: Span) -> float:
        """The part of the work that is done after a step."""
        pace: Any = self.pace
        if hasattr(pace, "active"):
            done = (pace.t - self.t0) / (self.t1 - self.t0)
            return float(torch.where(pace.active, done, torch.ones_like(done)).min())
        return (int(span.index) + 1) / max(1, pace.steps)

    def solution(self, on_failure: str) -> Solution:
        pace: Any = self.pace
        if self.watch is not None:
            self.x = self.watch.finish(self.x)
        adaptive = hasattr(pace, "active")
        finite = torch.isfinite(self.x.detach()).flatten(1).all(1)
        if adaptive:
            status, accepted, rejected, t = pace.status, pace.accepted, pace.rejected, pace.t
        else:
            status = torch.zeros(len(self.x), dtype=torch.int64, device=self.x.device)
            accepted = torch.full_like(status, pace.taken) if self.watch is None else self.taken
            rejected, t = torch.zeros_like(status), self.t1
        if self.watch is not None:
            status, t = self.watch.outcome(status, t)
        status = torch.where(finite | (status != Status.OK), status, int(Status.NONFINITE))
        if self.alarm is not None and bool((status == Status.NONFINITE).any()):
            self.alarm.look(self)
            failed = self.alarm.lost & (status == Status.NONFINITE)
            t, accepted = torch.where(failed, self.alarm.t, t), torch.where(failed, self.alarm.steps, accepted)
        if adaptive and self.watch is None and bool((t == self.t1).all()):
            t = self.t1
        saved_t, saved_x = (t, self.x) if self.recorder is None else self.recorder.result(t, self.x)
        stats = Stats(
            self.sde.model_calls, self.sde.drift_calls, self.sde.diffusion_calls, self.evaluations, accepted, rejected
        )
        dense = None if self.recorder is None else self.recorder.dense
        solution = Solution(saved_x, saved_t, status, stats, self.mean, dense)
        if on_failure == "raise" and not solution.ok:
            raise SolveFailed(failure_message(solution, t), solution)
        return solution


def _noise_like(sde: Watched, t0: Tensor, x: Tensor) -> Tensor | None:
    """A tensor of the shape of the driving noise, found by asking for the diffusion once; None for ODEs."""
    if sde.noise is Noise.NONE:
        return None
    with torch.no_grad():
        g = sde.probe_diffusion(expand(t0, x), x)
    if isinstance(g, Dense):
        return x.new_empty((x.shape[0], g.matrix.shape[-1]))
    if sde.noise is Noise.SCALAR:
        return x.new_empty((x.shape[0], *(1,) * (x.ndim - 1)))
    return x.new_empty(x.shape)


def _default_path(
    steps: StepControl, solver: Solver, t0: Tensor, t1: Tensor, like: Tensor, draws: Draws, together: bool
) -> BrownianMotion:
    start, end = broadcast(t0.detach(), t1.detach())
    low, high = float(torch.minimum(start, end).min()), float(torch.maximum(start, end).max())
    if not steps.adaptive or low == high:
        return FreshIncrements(draws, together=together)
    seed, first = getattr(draws, "seed", None), getattr(draws, "first", 0)
    if seed is None:
        raise Incompatible("adaptive steps of an SDE need keyed noise: pass seed=<integer>, or path=BrownianTree(…)")
    own = start.ndim > 0
    ends = (0.0, 1.0) if own else (low, high)
    tree = BrownianTree(
        *ends, tuple(like.shape), seed=seed, first=first, levy=solver.levy, dtype=like.dtype, device=like.device
    )
    return StretchedPath(tree, t0, t1) if own else tree


def _first_step(
    sde: Watched, solver: Solver, steps: StepControl, t0: Tensor, t1: Tensor, x: Tensor, stochastic: bool
) -> Tensor:
    """A first step size `(B,)`: one at which an Euler step changes x by about a hundredth of itself.

    For SDEs it is the time h in which |f| h and |G| √h become as large as x, times (tolerance / |x|)^(1/order), which
    brings an error of order h^order down to the tolerance.

    Reference: Hairer, Nørsett, Wanner (1993), §II.4, algorithm for the starting step.
    """
    rtol, atol = getattr(steps, "rtol", 1e-3), getattr(steps, "atol", 1e-6)
    order = error_order(solver, sde.noise) or 1.0
    with torch.no_grad():
        time, sign = expand(t0, x), torch.sign(t1 - t0)
        scale = atol + rtol * x.abs()

        def norm(v: Tensor) -> Tensor:
            return (v / scale).flatten(1).square().mean(1).sqrt().to(torch.float64)

        f = sde.drift(time, x)
        d0, d1 = norm(x), norm(f)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        h0 = torch.minimum(h0, (t1 - t0).abs().expand_as(h0))
        if stochastic:
            g = sde.probe_diffusion(time, x)
            size = g.matrix.square().sum(-1).sqrt() if isinstance(g, Dense) else g.abs().expand_as(x)
            dg, whole = norm(size.to(x.dtype)), (t1 - t0).abs()
            # in units of the tolerance; a state of no size is measured by what will become of it
            size = torch.where(d0 >= 1, d0, (d1 * whole + dg * whole.sqrt()).clamp(min=1.0))
            change = torch.minimum(size / d1.clamp(min=1e-12), (size / dg.clamp(min=1e-12)).square())
            return change * size ** (-1.0 / order)
        move = expand(h0 * sign, x)
        f1 = sde.drift(time + move if time.ndim else expand(t0.expand(len(x)), x) + move, x + move.to(x.dtype) * f)
        d2 = norm(f1 - f) / h0
        steepest = torch.maximum(d1, d2)
        h1 = torch.where(steepest <= 1e-15, torch.clamp(h0 * 1e-3, min=1e-6), (0.01 / steepest) ** (1.0 / order))
        return torch.minimum(100 * h0, h1)
