"""Known steps, K to a graph, with the noise made where it is used."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from ..brownian import FreshIncrements
from ..brownian import levy as law
from ..counters import normal_pair
from ..protocols import Increment, Levy, Span, Step
from ..random import Purpose, chunk_steps
from ..save import select
from ..watch import Bare
from .graphs import Graph, graph_of, say
from .trial import Given, Request, added, draw, form_of, try_step

if TYPE_CHECKING:
    from ..solve import Run

_STEPS = 16  # in a graph: more would be compiled for longer and gain little
_SMALL_STEPS = 32  # where a step is a few numbers, and calling the graph costs more than they do
_SMALL = 1 << 8  # numbers
_SLOTS = 4  # states that a graph picks out; where more are wanted it gives all
_WINDOW = 4096  # steps whose times and sizes are computed together
_MASKS = 32  # patterns of saved states whose masks are kept


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
        span = Span(given.times[k], given.times[k + 1], given.h[k], k, Given(given.drawn[k]) if given.drawn else None)
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


class FixedMarch:
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
        graph = graph_of(_steps, run, self.count, slots)
        while pace.steps - pace.taken >= self.count:
            if graph.broken is not None:
                return say(run, graph.broken)
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
        self.calls, self.requests, state = try_step(self.run, span, self._any_increment(span))
        return state

    def _settle(self) -> bool:
        """Make steps until the solver's memory has its lasting form, and a chunk of noise begins."""
        for _ in range(4 * _STEPS):
            if self.pace.taken >= self.pace.steps:
                return False
            if form_of(self._try()) == form_of(self.run.state) and self.pace.taken % self.count == 0:
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

    def _take(self, graph: Graph, slots: int, wanted: list[int], whole: list[int], within: list[int]) -> None:
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
        run.sde.calls = added(run.sde.calls, self.calls, count)
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
            if len(self._masks) < _MASKS:
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
            drawn = tuple(tuple(draw(run, request, first + k) for request in self.requests) for k in range(count))
        return Material(times, h, noise, tuple(scales), increments, drawn, wanted)

    def _noise(self, part: int, first: int) -> tuple[Tensor, Tensor]:
        """What the noise of the K steps from `first` on is made of."""
        like, path = self.run.like, self.run.path
        assert like is not None
        assert isinstance(path, FreshIncrements)
        source: Any = path.draws
        return source.seeds(Purpose.PATH, first, self.count, tuple(like.shape), like.dtype, like.device, part)
