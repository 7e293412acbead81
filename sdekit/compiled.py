"""Solves compiled by torch: several fixed steps fused into one graph, with the noise made where it is used.

    solve(…, compile=True)

What goes into a graph is the solver's own `step`, over and over, with the increments of the path. Fresh increments are made
from their keys inside the graph, so that neither they nor the states between steps go through memory. Other paths are
asked step by step, and their increments enter as they are. The numbers are those of the plain loop, to rounding.

Steps that do not fill a graph are made by the plain loop, as is everything where no graph can be made: for want of a C++
compiler, or of a function that torch can trace. A warning says so, once.

A graph belongs to an SDE, a solver and a number of steps, and is kept for the next solve with the same objects; torch
keeps what it has compiled on disk too, for the next process.
"""

from __future__ import annotations

import copy
import math
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from .brownian import FreshIncrements
from .brownian import levy as law
from .counters import normal_pair
from .errors import Incompatible
from .protocols import Increment, Levy, Span, Step, expand
from .random import Purpose, Shape, chunk_steps
from .save import select
from .steps.adaptive import Controller, Progress
from .watch import Bare

if TYPE_CHECKING:
    from .random import Draws
    from .solve import Run

_STEPS = 16  # in a graph: more would be compiled for longer and gain little
_SMALL_STEPS = 32  # where a step is a few numbers, and calling the graph costs more than they do
_SMALL = 1 << 8  # numbers
_ATTEMPTS = 4  # adaptive steps in a graph
_SLOTS = 4  # states that a graph picks out; where more are wanted it gives all
_WINDOW = 4096  # steps whose times and sizes are computed together
_KEPT = 32  # graphs
_SHAPES = 4  # shapes of one problem's state that get code of their own


class Request(NamedTuple):
    """What a step asked of the source of draws."""

    kind: str
    purpose: Purpose
    shape: Shape
    part: int


class _Noting:
    """A source of draws that notes what it is asked for."""

    def __init__(self, draws: Draws | None) -> None:
        self.draws, self.requests = draws, list[Request]()

    def __getattr__(self, kind: str) -> Callable[..., Tensor]:
        if kind not in ("normal", "uniform", "sign"):
            raise AttributeError(kind)

        def draw(
            purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
        ) -> Tensor:
            self.requests.append(Request(kind, purpose, tuple(shape), part))
            return getattr(self.draws, kind)(purpose, step, shape, dtype, device, part=part)

        return draw


class _Given:
    """A source of draws that gives what was drawn before, in order."""

    def __init__(self, values: tuple[Tensor, ...]) -> None:
        self.values, self.used = values, 0

    def normal(self, *_: Any, **__: Any) -> Tensor:
        self.used += 1
        return self.values[self.used - 1]

    uniform = normal
    sign = normal


class Material(NamedTuple):
    """What steps are made of, as a graph takes it.

    times: `(K + 1, …)` float64.  h: `(K, …)` in the dtype of x.
    noise: for each of W, H, K the keys and places of its normals.
    scales: for each of W, H, K the standard deviations `(K, …)`.  increments: one a step, where there is no noise.
    drawn: for every step what else it draws.
    wanted: for every state to keep a mask `(K + 1, B)` of which it is; with a number for every sample, since inductor would
    else choose among the states in a loop of its own, and write them all to memory for it.
    """

    times: Tensor
    h: Tensor
    noise: tuple[tuple[Tensor, Tensor], ...]
    scales: tuple[Tensor, ...]
    increments: tuple[Increment, ...] | None
    drawn: tuple[tuple[Tensor, ...], ...]
    wanted: Tensor | None


def _normals(noise: tuple[Tensor, Tensor], dtype: torch.dtype) -> list[Tensor]:
    """One tensor of normals a step."""
    keys, places = noise
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [z.to(dtype) for place in places.unbind(0) for z in normal_pair(keys, place, wide)]


def _steps(sde: Any, solver: Any, slots: int, dtype: torch.dtype, x: Tensor, state: Any, given: Material) -> Any:
    """K steps: (x, state, mean, states kept); traced, never run as it is."""
    bare, count = Bare(sde), len(given.h)
    normals = [_normals(noise, dtype) for noise in given.noise]
    kept: list[Any] = [(x, state)] * min(slots, count + 1)
    mean = None
    for k in range(count):
        dw = None if given.increments is None else given.increments[k]
        if normals:
            dw = Increment(*(z[k] * scale[k] for z, scale in zip(normals, given.scales, strict=True)))
        span = Span(given.times[k], given.times[k + 1], given.h[k], k, _Given(given.drawn[k]) if given.drawn else None)
        step: Step = solver.step(bare, span, x, dw, state)
        x, state, mean = step.x, step.state, step.mean
        if slots > count:
            kept[k + 1] = (x, state)
        elif given.wanted is not None:
            kept = [select(mask[k + 1], (x, state), old) for mask, old in zip(given.wanted, kept, strict=True)]
    return x, state, mean, _stacked(kept) if slots > count else tuple(kept)


def _stacked(values: list[Any]) -> Any:
    """Nests of tensors as one nest of all of them: a graph has the fewer outputs."""
    first = values[0]
    if isinstance(first, tuple):
        return tuple(_stacked(list(parts)) for parts in zip(*values, strict=True))
    return None if first is None else torch.stack(values)


def _unstacked(values: Any, place: int) -> Any:
    """One of them."""
    if isinstance(values, tuple):
        return tuple(_unstacked(part, place) for part in cast(tuple[Any, ...], values))
    return None if values is None else values[place]


def _options() -> dict[str, Any]:
    """Those of torch's compiler: headers are not compiled apart, which would take longer than the few graphs of a solve."""
    name = "cpp_cache_precompile_headers"  # an option that some releases lack, which only torch._inductor tells
    return {name: False} if name in torch._inductor.list_options() else {}  # pyright: ignore[reportPrivateUsage]


def _attempts(sde: Any, solver: Any, control: Controller, x: Tensor, state: Any, p: Progress, given: Attempt) -> Any:
    """Adaptive steps: (x, state, progress, evaluations, whether any sample is under way); traced, never run as it is."""
    bare, evaluations = Bare(sde), given.evaluations
    for draws in given.drawn:
        start, end = expand(p.t0, x), expand(p.t1, x)
        span = Span(start, end, (end - start).to(x.dtype), p.accepted, _Given(draws))
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


class _Graph:
    """A compiled `_steps` or `_attempts`; `broken` says why there is none."""

    def __init__(self, sde: Any, solver: Any, function: types.FunctionType, dynamic: bool) -> None:
        self.sde, self.solver = sde, solver  # held, so that their identities stay theirs
        self.broken: str | None = None
        self._tried = False
        # torch counts the forms of a function by its code, and would refuse the ninth SDE
        own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
        self._call = torch.compile(own, fullgraph=True, dynamic=dynamic, options=_options())

    def __call__(self, *arguments: Any) -> Any:
        """The steps, or None where they cannot be compiled."""
        try:
            if self._tried:
                return self._call(self.sde, self.solver, *arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                result = self._call(self.sde, self.solver, *arguments)
        except Exception as error:  # what is wrong with the functions themselves, the plain loop will say
            self.broken = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return None
        self._tried = True
        return result


_graphs: OrderedDict[tuple[Any, ...], _Graph] = OrderedDict()


def _graph(function: Any, run: Run, *form: Any) -> _Graph:
    """The graph of a run's SDE, solver, shape and so on, made once."""
    sde, solver, shape = run.sde.given, run.solver, tuple(run.x.shape)
    shapes = {key[2] for key in _graphs if key[0] == id(sde) and key[1] == solver}
    # code for one shape is faster; who comes with many gets code for any
    dynamic = shape not in shapes and len(shapes) >= _SHAPES
    key = (id(sde), solver, None if dynamic else shape, run.x.dtype, run.x.device, function, *form)
    if key not in _graphs:
        _graphs[key] = _Graph(sde, solver, function, dynamic)
        while len(_graphs) > _KEPT:
            _graphs.popitem(last=False)
    _graphs.move_to_end(key)
    return _graphs[key]


def march(run: Run) -> None:
    """Take a run to its end through graphs."""
    if run.watch is not None:
        raise Incompatible("compile=True does not look for events: leave out compile, or the event")
    if run.recorder is not None and run.recorder.dense is not None:
        raise Incompatible(
            "compile=True keeps no interpolants: leave out compile, or ask for times instead of dense=True"
        )
    if hasattr(run.pace, "ahead"):
        _FixedMarch(run).go()
    elif hasattr(run.pace, "controller"):
        _march_adaptive(run)
    run.go()


def _say(run: Run, why: str) -> None:
    """That a run is not compiled."""
    name, kind = type(run.solver).__name__, type(run.sde.given).__name__
    warnings.warn(f"compile=True: {name} on {kind} was not compiled, and goes on step by step ({why})", stacklevel=5)


def _march_adaptive(run: Run) -> None:
    """Adaptive steps, each in one graph with its verdict and the plan of the next."""
    pace: Any = run.pace
    control: Controller = pace.controller
    if run.recorder is not None or len(control.jumps):
        return _say(run, "states saved between adaptive steps, and jump times, are looked at step by step")
    pace.leave_host()
    if pace.next() is None:
        return None
    calls, requests, state = _try(run, pace.span(pace.progress), run.increment(pace.span(pace.progress)))
    if _form(state) != _form(run.state):
        return _say(run, "the solver's memory changes its form")
    model = calls[2] if run.sde.calls[2] or calls[2] else calls[0]
    # several are tried at once where that costs nothing but arithmetic; at the end some are for nothing
    many = run.path is None and not requests and not _has_parameters(run.sde.given)
    graph = _graph(_attempts, run, many, model)
    if graph.broken is not None:
        return _say(run, graph.broken)
    tolerances = torch.tensor(control.tolerances, dtype=torch.float64)
    more = True
    while more:
        span, p = pace.span(pace.progress), pace.progress
        dw = run.increment(span)
        drawn = (tuple(_drawn(run, request, span.index) for request in requests),) * (_ATTEMPTS if many else 1)
        result = graph(control, run.x, run.state, p, Attempt(dw, drawn, run.evaluations, model, tolerances))
        if result is None:
            assert graph.broken is not None
            return _say(run, graph.broken)
        run.x, run.state, pace.progress, run.evaluations, under_way = result
        run.sde.calls = _added(run.sde.calls, calls, len(drawn))
        if run.progress is not None:
            run.progress(run.fraction(span))
        more = bool(under_way)
    return None


Calls = tuple[int, int, int]


def _added(calls: Calls, more: Calls, times: int = 1) -> Calls:
    """Calls of drift, diffusion and score, and as many more."""
    return (calls[0] + times * more[0], calls[1] + times * more[1], calls[2] + times * more[2])


def _try(run: Run, span: Span, dw: Increment | None) -> tuple[Calls, list[Request], Any]:
    """Make a step and let it go: what it calls, what it asks for, and the solver's memory after it."""
    before, draws = run.sde.calls, _Noting(run.draws)
    step = run.solver.step(run.sde, span._replace(draws=draws), run.x, dw, run.state)
    calls = _added(run.sde.calls, before, -1)
    run.sde.calls = before
    return calls, draws.requests, step.state


def _drawn(run: Run, request: Request, step: int | Tensor) -> Tensor:
    """What a step draws."""
    source = getattr(run.draws, request.kind)
    return source(request.purpose, step, request.shape, run.x.dtype, run.x.device, part=request.part)


def _has_parameters(sde: Any) -> bool:
    """Whether an SDE holds a module, whose calls may cost more than a graph saves."""
    parts = [sde, *(getattr(sde, name, None) for name in ("score", "drift", "diffusion", "network"))]
    return any(isinstance(part, torch.nn.Module) for part in parts)


def _form(value: Any) -> Any:
    """What a nest of tensors looks like."""
    if isinstance(value, tuple):
        return tuple(_form(part) for part in cast(tuple[Any, ...], value))
    return None if value is None else (value.shape, value.dtype)


class _FixedMarch:
    """Known steps, K at a time."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.pace: Any = run.pace
        size = 1 if run.like is None else run.like[0].numel() if len(run.like) else 1
        chunk = chunk_steps(size)
        steps = _SMALL_STEPS if run.x.numel() <= _SMALL else _STEPS
        self.count = steps if run.like is None else min(steps, chunk)
        self.calls = (0, 0, 0)
        self.requests: list[Request] = []
        fresh = isinstance(run.path, FreshIncrements) and hasattr(run.path.draws, "seeds")
        self.terms = law.terms(run.levy) if fresh and run.levy is not Levy.AREA else 0
        self._alone: FreshIncrements | None = None
        self._masks: dict[tuple[int, ...], Tensor] = {}
        self.window: tuple[int, Tensor, Tensor, list[Tensor]] | None = None

    def go(self) -> None:
        """All the graphs that fit."""
        run, pace = self.run, self.pace
        if pace.steps < 2:
            return None
        self._try()
        # a step is compiled for the longer the more it calls
        calls = max(1.0, sum(self.calls[:2]) / 2)
        self.count = max(2, self.count >> math.ceil(math.log2(calls)))
        if pace.steps < self.count or not self._settle():
            return None
        slots = self._slots()
        graph = _graph(_steps, run, self.count, slots)
        while pace.steps - pace.taken >= self.count:
            if graph.broken is not None:
                return _say(run, graph.broken)
            whole, within = ([], []) if run.recorder is None else run.recorder.needs(self._clock(), pace.taken)
            wanted = sorted({*whole, *within, *(k + 1 for k in within)})
            if len(wanted) > slots:  # more than it was made for
                run.go(self.count)
                continue
            self._take(graph, slots, wanted, whole, within)
        return None

    def _try(self) -> Any:
        """Make a step and let it go; the solver's memory after it."""
        span = copy.copy(self.pace).next()
        self.calls, self.requests, state = _try(self.run, span, self._any_increment(span))
        return state

    def _settle(self) -> bool:
        """Make steps until the solver's memory has its lasting form, and a chunk of noise begins."""
        for _ in range(4 * _STEPS):
            if self.pace.taken >= self.pace.steps:
                return False
            if _form(self._try()) == _form(self.run.state) and self.pace.taken % self.count == 0:
                return True
            self.run.go(1)
        return False

    def _any_increment(self, span: Span) -> Increment | None:
        """An increment to try a step with: nothing is drawn for it where that can be avoided."""
        if not self.terms or self.run.like is None:
            return self.run.increment(span)
        return Increment(*(torch.zeros_like(self.run.like) for _ in range(self.terms)))

    def _slots(self) -> int:
        """How many states a graph keeps for the recorder."""
        recorder = self.run.recorder
        if recorder is None:
            return 0
        expected = recorder.count(self.pace.steps) * self.count / self.pace.steps
        return max(2, math.ceil(expected)) if expected <= _SLOTS else self.count + 1

    def _times(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Times, sizes and standard deviations of the next K steps."""
        first, count = self.pace.taken, self.count
        if self.window is None or first + count > self.window[0] + len(self.window[2]):
            times, h = self.pace.ahead(min(max(_WINDOW, count), self.pace.steps - first))
            scales = [(h.abs() / variance).sqrt().to(self.run.x.dtype) for variance in law.VARIANCES[: self.terms]]
            self.window = (first, times, h.to(self.run.x.dtype), scales)
        start, times, h, scales = self.window
        at = slice(first - start, first - start + count)
        return times[at.start : at.stop + 1], h[at], [scale[at] for scale in scales]

    def _clock(self) -> list[float]:
        """The times around the next K steps, as numbers; none where samples have their own."""
        times = self._times()[0]
        return cast(list[float], times.tolist()) if times.ndim == 1 else [math.nan] * len(times)

    def _take(self, graph: _Graph, slots: int, wanted: list[int], whole: list[int], within: list[int]) -> None:
        """One graph's worth of steps."""
        run, pace, count = self.run, self.pace, self.count
        if run.alarm is not None:
            run.alarm.look(run)
        some = 0 < slots <= count
        given = self._material(self._chosen(slots, wanted) if some else None)
        result = graph(slots, run.x.dtype, run.x, run.state, given)
        if result is None:
            return
        first = pace.taken
        run.x, run.state, run.mean, kept = result
        pace.skip(count)
        so_far = run.sde.model_calls
        run.sde.calls = _added(run.sde.calls, self.calls, count)
        run.evaluations += run.sde.model_calls - so_far
        if wanted:
            place: Any = {n: k for k, n in enumerate(wanted)} if some else range(count + 1)
            self._record(first, given.times, place, kept, whole, within)
        if run.progress is not None:
            run.progress(pace.taken / pace.steps)

    def _chosen(self, slots: int, wanted: list[int]) -> Tensor:
        """`Material.wanted`; steps and save times that go together ask for few of them."""
        found = self._masks.get(tuple(wanted))
        if found is None:
            mask = torch.zeros(slots, self.count + 1, 1, dtype=torch.bool)
            mask[range(len(wanted)), wanted] = True
            found = mask.to(self.run.x.device).repeat(1, 1, len(self.run.x))
            if len(self._masks) < _KEPT:
                self._masks[tuple(wanted)] = found
        return found

    def _record(self, first: int, times: Tensor, place: Any, kept: Any, whole: list[int], within: list[int]) -> None:
        """Give the recorder the states it saves, and show it the steps that it looks at; place: of each among the kept."""
        run, recorder = self.run, self.run.recorder
        assert recorder is not None
        many = isinstance(place, range)
        states = kept[0] if many else [x for x, _ in kept]
        for n in sorted([*whole, *(k + 1 for k in within)]):
            if n - 1 not in within:
                recorder.put(times[n], states[place[n]])
                continue
            x, state = _unstacked(kept, n - 1) if many else kept[place[n - 1]]
            t0, t1 = times[n - 1], times[n]
            h: Any = float(t1 - t0) if times.ndim == 1 else (t1 - t0).to(run.x.dtype)
            span = Span(t0, t1, h, first + n - 1, run.draws)
            dw = self._increment(span) if recorder.inside(span) else None
            recorder.take(span, x, Step(states[place[n]]), dw, state, None)

    def _increment(self, span: Span) -> Increment | None:
        """The increment over one step by itself."""
        path, like = self.run.path, self.run.like
        if not isinstance(path, FreshIncrements) or like is None:
            return self.run.increment(span)
        self._alone = self._alone or FreshIncrements(path.draws, path.area_rate, ahead=False)
        return self._alone.increment(span, like, self.run.levy)

    def _material(self, wanted: Tensor | None) -> Material:
        run, count, first = self.run, self.count, self.pace.taken
        times, h, scales = self._times()
        noise, increments = tuple(self._noise(part, first) for part in range(self.terms)), None
        if not noise and run.like is not None:
            pace = copy.copy(self.pace)
            spans = [pace.next() for _ in range(count)]
            increments = tuple(dw for dw in map(run.increment, spans) if dw is not None)
        drawn: tuple[tuple[Tensor, ...], ...] = ()
        if self.requests:
            drawn = tuple(tuple(_drawn(run, request, first + k) for request in self.requests) for k in range(count))
        return Material(times, h, noise, tuple(scales), increments, drawn, wanted)

    def _noise(self, part: int, first: int) -> tuple[Tensor, Tensor]:
        """What the noise of the K steps from `first` on is made of."""
        like, path = self.run.like, self.run.path
        assert like is not None
        assert isinstance(path, FreshIncrements)
        source: Any = path.draws
        return source.seeds(Purpose.PATH, first, self.count, tuple(like.shape), like.dtype, like.device, part)
