"""Adaptive steps in graphs, each with its verdict and the plan of the next: one look at the device for several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..protocols import Increment, Span, Step, expand
from ..save import select
from ..steps.controller import Controller, Progress
from ..watch import Bare
from .graphs import graph_of, say
from .trial import Given, added, draw, form_of, has_parameters, try_step

if TYPE_CHECKING:
    from ..solve import Run

_ATTEMPTS = 4  # steps in a graph


def _attempts(sde: Any, solver: Any, control: Controller, x: Tensor, state: Any, p: Progress, given: Attempt) -> Any:
    """Adaptive steps: (x, state, progress, evaluations, whether any sample is under way); traced, never run as it is."""
    bare, evaluations = Bare(sde), given.evaluations
    for draws in given.drawn:
        start, end = expand(p.t0, x), expand(p.t1, x)
        span = Span(start, end, (end - start).to(x.dtype), p.accepted, Given(draws))
        step: Step = solver.step(bare, span, x, given.increment, state)
        assert step.error is not None
        evaluations = evaluations + p.active * given.calls
        with torch.no_grad():
            p = control.judge(p, x, step.x, step.error, given.tolerances.unbind(0))
            p = control.plan(p)
        x = torch.where(expand(p.accept, x), step.x, x)
        state = select(p.accept, step.state, state)
    return x, state, p, evaluations, p.active.any()


class Attempt(NamedTuple):
    """What adaptive steps are made of, as a graph takes it.

    increment: of the one step that is tried where there is noise.  drawn: for every step what else it draws.
    calls: of the model in a step.  tolerances: (rtol, atol), float64.
    """

    increment: Increment | None
    drawn: tuple[tuple[Tensor, ...], ...]
    evaluations: Tensor
    calls: int
    tolerances: Tensor


def march_adaptive(run: Run) -> None:
    """Adaptive steps, each in one graph with its verdict and the plan of the next."""
    pace: Any = run.pace
    control: Controller = pace.controller
    if run.recorder is not None or len(control.jumps):
        return say(run, "states saved between adaptive steps, and jump times, are looked at step by step")
    pace.leave_host()
    if pace.next() is None:
        return None
    calls, requests, state = try_step(run, pace.span(pace.progress), run.increment(pace.span(pace.progress)))
    if form_of(state) != form_of(run.state):
        return say(run, "the solver's memory changes its form")
    model = calls[2] if run.sde.calls[2] or calls[2] else calls[0]
    # several are tried at once where that costs nothing but arithmetic; at the end some are for nothing
    many = run.path is None and not requests and not has_parameters(run.sde.given)
    graph = graph_of(_attempts, run, many, model)
    if graph.broken is not None:
        return say(run, graph.broken)
    tolerances = torch.tensor(control.tolerances, dtype=torch.float64)
    more = True
    while more:
        span, p = pace.span(pace.progress), pace.progress
        dw = run.increment(span)
        drawn = (tuple(draw(run, request, span.index) for request in requests),) * (_ATTEMPTS if many else 1)
        result = graph(control, run.x, run.state, p, Attempt(dw, drawn, run.evaluations, model, tolerances))
        if result is None:
            assert graph.broken is not None
            return say(run, graph.broken)
        run.x, run.state, pace.progress, run.evaluations, under_way = result
        run.sde.calls = added(run.sde.calls, calls, len(drawn))
        if run.progress is not None:
            run.progress(run.fraction(span))
        more = bool(under_way)
    return None
