"""A virtual Brownian tree: one path, any interval, any order, no memory.

Times are counted in ticks of a clock so fine that it resolves every float64 of the size of the domain's ends; the
increment between two ticks is a finite series of keyed normals (module `dyadic`), exact in law for all queries
jointly. Nothing is stored but the normals on the way to the last ends asked, which makes sequential steps cheaper.

Reference: Jelinčič, Foster, Kidger (2024), arXiv:2405.06464 (virtual Brownian trees with space–time Lévy area).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from ..arguments import check_number
from ..counters import fold, mixed_keys
from ..protocols import Increment, Levy, Span, as_time, broadcast
from ..random import Purpose, Shape, check_seed
from . import levy as law
from .area import piece_lengths
from .dyadic import Series

Ticks = int | Tensor
"""Ticks of a clock: an int, or int64 `(B,)` on the CPU where each sample has its own."""


class Clock:
    """Ticks of length 2^−e over [t0, t1], counted from t0 in int64."""

    def __init__(self, t0: float, t1: float, tol: float | None) -> None:
        size = max(abs(t0), abs(t1))
        e = min(60 - math.frexp(t1 - t0)[1], 61 - math.frexp(size)[1], 1000)
        if tol is not None:
            check_number("tol, a length of time (None for the finest clock),", tol, above=0.0)
            e = min(e, math.ceil(-math.log2(tol)))
        self.t0, self.t1, self.rate = t0, t1, 2.0**e
        self.origin = round(t0 * self.rate)
        self.ticks = round(t1 * self.rate) - self.origin
        if self.ticks < 1:
            raise ValueError(f"tol: expected less than the length of [{t0}, {t1}], got {tol}")
        self.depth = max(1, (self.ticks - 1).bit_length())
        self._slack = max(1, math.ceil(size * self.rate * 2.0**-50))

    def read(self, t: Tensor, name: str = "t") -> int | Tensor:
        """Ticks of times, each rounded to the nearest; raises where a time lies outside by more than rounding."""
        if t.numel() == 1:
            time = float(t.detach())
            inside = self.t0 <= time <= self.t1
            return round(time * self.rate) - self.origin if inside else int(self._near(t, name))
        ticks = (t.detach().reshape(-1).cpu() * self.rate).round().to(torch.int64) - self.origin
        return ticks if bool(((ticks >= 0) & (ticks <= self.ticks)).all()) else self._near(t, name).reshape(-1)

    def _near(self, t: Tensor, name: str) -> Tensor:
        """The ticks of times that rounding put outside, moved to the ends."""
        ticks = t.detach().cpu() * self.rate - self.origin
        if not bool(((ticks >= -self._slack) & (ticks <= self.ticks + self._slack)).all()):
            raise ValueError(
                f"{name}: this Brownian path is defined on [{self.t0}, {self.t1}], and was asked at {t.tolist()}: "
                "make it with t0 and t1 that hold every time asked"
            )
        return ticks.round().to(torch.int64).clamp(0, self.ticks)


class BrownianTree:
    """A Brownian path on [t0, t1] with noise of the given shape `(B, *noise)`.

    t0, t1: ends of the domain, in any order.  seed, first: sample i has the path of (seed, first + i).
    levy: how much of (W, H, K) the path carries. Paths of one seed and different levels are different paths; every
        level answers the lower ones. AREA carries W and H, and joins A from ⌈area_rate/|h|⌉ pieces of a step.
    dtype, device: of the increments that `tree(ta, tb)` gives; a solve gets those of its state.
    tol: length of time to which times are rounded; None is the finest clock, which resolves all float64 times of the
        size of the domain's ends. A coarse clock is faster: the cost of a query is proportional to its bits.

    Raises ValueError where t0 = t1 or a number is out of its range, TypeError for what is no number.
    """

    def __init__(
        self,
        t0: float | Tensor,
        t1: float | Tensor,
        shape: Shape,
        seed: int = 0,
        first: int = 0,
        levy: Levy = Levy.H,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        tol: float | None = None,
        area_rate: float = 1.0,
    ) -> None:
        for name, t in (("t0", t0), ("t1", t1)):
            check_number(f"BrownianTree: {name}", t)
        low, high = sorted((float(t0), float(t1)))
        if low == high:
            raise ValueError(f"t0 and t1: expected two different finite times, got {t0} and {t1}")
        check_number("area_rate, the number of pieces per 1/|h|,", area_rate, above=0.0)
        law.check_request("BrownianTree", shape, levy, dtype)
        check_seed(seed, first)
        self.shape, self.levy, self.dtype, self.device = tuple(shape), levy, dtype, torch.device(device)
        self.seed, self.first, self.area_rate = seed, first, area_rate
        self._clock = Clock(low, high, tol)
        count = law.terms(self.levy)
        keys = mixed_keys(fold(seed, Purpose.TREE, count), first, self.shape[0], self.device)
        self._series = Series(keys, count, math.prod(self.shape[1:]), self._clock.depth)

    @property
    def domain(self) -> tuple[float, float]:
        """The first and the last time that the path is known at."""
        return self._clock.t0, self._clock.t1

    def __repr__(self) -> str:
        ends = f"{self._clock.t0}, {self._clock.t1}"
        return f"BrownianTree({ends}, {self.shape}, seed={self.seed}, levy={self.levy.name})"

    def __call__(self, ta: float | Tensor, tb: float | Tensor) -> Increment:
        """The increment from ta to tb, floats, 0-d or `(B,)`; where tb < ta it is the path traversed backwards."""
        levy = Levy.H if self.levy is Levy.AREA and len(self.shape) != 2 else self.levy
        return self._between(self._time("ta", ta), self._time("tb", tb), levy, self.dtype)

    def _time(self, name: str, t: float | Tensor) -> Tensor:
        """A time that was asked, of the path's domain."""
        time = as_time(t, what=name)
        if time.ndim > 1 or time.numel() not in (1, self.shape[0]):
            raise ValueError(
                f"{name}: a time must be a number or ({self.shape[0]},), one a sample, got {tuple(time.shape)}"
            )
        self._clock.read(time, name)
        return time

    def value(self, t: float | Tensor) -> Tensor:
        """W at t, with W = 0 at the earlier end of the domain."""
        return self._between(as_time(self._clock.t0), self._time("t", t), Levy.W, self.dtype).W

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span, shaped like the noise `like`, along the direction of travel."""
        law.check_shape(self.shape, like)
        return self._between(span.t0, span.t1, levy, like.dtype)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`: the path is the same whatever else is known of it."""
        return self.increment(Span(span.t0, inner.t1, inner.h, span.index), like, levy)

    def _between(self, ta: Tensor, tb: Tensor, levy: Levy, dtype: torch.dtype) -> Increment:
        law.check_level(self.levy, levy, "BrownianTree")
        a, b = self._clock.read(ta), self._clock.read(tb)
        give = self._area if levy is Levy.AREA else self._forward
        if isinstance(a, int) and isinstance(b, int):
            i = give(min(a, b), max(a, b), levy)
            return law.selected(law.reversed_increment(i) if b < a else i, levy, dtype)
        a, b = broadcast(torch.as_tensor(a), torch.as_tensor(b))
        i = give(torch.minimum(a, b), torch.maximum(a, b), levy)
        return law.selected(law.where((b < a).to(self.device), law.reversed_increment(i), i), levy, dtype)

    def _forward(self, s: Ticks, t: Ticks, levy: Levy) -> Increment:
        """W, H and K over [s, t], as far as the level asks; float64."""
        # an empty interval has no normals of its own; any will do, as they are multiplied by zero
        if isinstance(s, int) and isinstance(t, int):
            z = self._series.normals(*((s, t) if s < t else (0, 1)))
            # a tensor, whose square root is rounded like that of the samples' own lengths
            h = torch.tensor((t - s) / self._clock.rate, dtype=torch.float64, device=self.device)
        else:
            a, b = broadcast(torch.as_tensor(s), torch.as_tensor(t))
            z = self._series.normals(torch.where(a < b, a, 0), torch.where(a < b, b, 1))
            h = ((b - a).to(torch.float64) / self._clock.rate).to(self.device)
            h = h.reshape(-1, *(1,) * (len(self.shape) - 1))
        return law.from_normals([z[k].reshape(self.shape) for k in range(law.terms(levy))], h)

    def _area(self, s: Ticks, t: Ticks, levy: Levy) -> Increment:
        """W, H and A over [s, t], the area joined from pieces."""
        law.check_area_noise(torch.empty(self.shape, device="meta"))
        width = torch.as_tensor(t - s)
        shares = piece_lengths(width / self._clock.rate, self.area_rate, width).reshape(-1, *width.shape).cumsum(0)
        ends = s + (width * (shares / shares[-1]).nan_to_num(1.0)).round().to(torch.int64)
        starts = torch.cat((torch.as_tensor(s)[None], ends[:-1]))
        lengths = ((ends - starts).to(torch.float64) / self._clock.rate).to(self.device)
        pieces = [self._forward(*q, levy) for q in zip(_each(starts), _each(ends), strict=True)]
        stacked = Increment(torch.stack([p.W for p in pieces]), torch.stack([p.H for p in pieces if p.H is not None]))
        joined = law.join(lengths.reshape(*lengths.shape, *(1,) * width.ndim), stacked, area=True)
        whole = self._forward(s, t, levy)
        return Increment(whole.W, whole.H, A=joined.A)


def _each(ticks: Tensor) -> list[Ticks]:
    """The rows of `(n,)` or `(n, B)` ticks, as ints where shared."""
    return cast(list[Ticks], ticks.tolist()) if ticks.ndim == 1 else list(ticks)
