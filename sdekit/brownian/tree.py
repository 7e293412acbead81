"""A virtual Brownian tree: one path, any interval, any order, no memory.

Times are counted in ticks of a clock so fine that it resolves every float64 of the size of the domain's ends; the
increment between two ticks is a finite series of keyed normals (module `dyadic`), exact in law for all queries
jointly. Nothing is stored but the normals on the way to the last ends asked, which makes sequential steps cheaper.

Reference: Jelinčič, Foster, Kidger (2024), arXiv:2405.06464 (virtual Brownian trees with space–time Lévy area).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..protocols import Increment, Levy, Span, as_time, expand
from ..random import Purpose, Shape, fold, mixed_keys
from . import levy as law
from .area import piece_lengths
from .dyadic import Series


class Clock:
    """Ticks of length 2^−e over [t0, t1], counted from t0 in int64."""

    def __init__(self, t0: float, t1: float, tol: float | None) -> None:
        size = max(abs(t0), abs(t1))
        e = min(60 - math.frexp(t1 - t0)[1], 61 - math.frexp(size)[1], 1000)
        if tol is not None:
            if not tol > 0:
                raise ValueError(f"tol: expected a positive length of time, or None for the finest clock, got {tol}")
            e = min(e, math.ceil(-math.log2(tol)))
        self.t0, self.t1, self.rate = t0, t1, 2.0**e
        self.origin = round(t0 * self.rate)
        self.ticks = round(t1 * self.rate) - self.origin
        if self.ticks < 1:
            raise ValueError(f"tol: expected less than the length of [{t0}, {t1}], got {tol}")
        self.depth = max(1, (self.ticks - 1).bit_length())
        self._slack = max(1, math.ceil(size * self.rate * 2.0**-50))

    def read(self, t: Tensor) -> Tensor:
        """Ticks of times, each rounded to the nearest; raises where a time lies outside by more than rounding."""
        ticks = (t * self.rate).round().to(torch.int64) - self.origin
        low, high = (int(ticks), int(ticks)) if ticks.ndim == 0 else (int(x) for x in ticks.aminmax())
        if low < -self._slack or high > self.ticks + self._slack:
            raise ValueError(
                f"this Brownian path is defined on [{self.t0}, {self.t1}], and was asked at {t.tolist()}: "
                "make it with t0 and t1 that hold every time asked"
            )
        return ticks if low >= 0 and high <= self.ticks else ticks.clamp(0, self.ticks)

    def lengths(self, ticks: Tensor) -> Tensor:
        return ticks.to(torch.float64) / self.rate


class BrownianTree:
    """A Brownian path on [t0, t1] with noise of the given shape `(B, *noise)`.

    t0, t1: ends of the domain, in any order.  seed, first: sample i has the path of (seed, first + i).
    levy: how much of (W, H, K) the path carries. Paths of one seed and different levels are different paths; every
        level answers the lower ones. AREA carries W and H, and joins A from ⌈area_rate/|h|⌉ pieces of a step.
    dtype, device: of the increments that `tree(ta, tb)` gives; a solve gets those of its state.
    tol: length of time to which times are rounded; None is the finest clock, which resolves all float64 times of the
        size of the domain's ends. A coarse clock is faster: the cost of a query is proportional to its bits.
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
        low, high = sorted((float(t0), float(t1)))
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"t0 and t1: expected two different finite times, got {t0} and {t1}")
        if not area_rate > 0:
            raise ValueError(f"area_rate: expected a positive number of pieces per 1/|h|, got {area_rate}")
        self.shape, self.levy, self.dtype, self.device = tuple(shape), Levy(levy), dtype, torch.device(device)
        if len(self.shape) < 1 or min(self.shape) < 0:
            raise ValueError(f"shape: expected the noise's (B, …), got {shape}")
        self.seed, self.first, self.area_rate = seed, first, area_rate
        self._clock = Clock(low, high, tol)
        count = law.terms(self.levy)
        keys = mixed_keys(fold(seed, Purpose.TREE, count), first, self.shape[0], self.device)
        self._series = Series(keys, count, math.prod(self.shape[1:]), self._clock.depth)

    def __repr__(self) -> str:
        return f"BrownianTree({self._clock.t0}, {self._clock.t1}, {self.shape}, seed={self.seed}, levy={self.levy.name})"

    def __call__(self, ta: float | Tensor, tb: float | Tensor) -> Increment:
        """The increment from ta to tb, floats, 0-d or `(B,)`; where tb < ta it is the path traversed backwards."""
        return self._between(as_time(ta), as_time(tb), self.levy, self.dtype)

    def value(self, t: float | Tensor) -> Tensor:
        """W at t, with W = 0 at the earlier end of the domain."""
        return self._between(as_time(self._clock.t0), as_time(t), Levy.W, self.dtype).W

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span, shaped like the noise `like`, along the direction of travel."""
        if tuple(like.shape) != self.shape:
            raise ValueError(f"this Brownian path has noise of shape {self.shape}, and the SDE needs {tuple(like.shape)}")
        return self._between(span.t0, span.t1, levy, like.dtype)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`: the path is the same whatever else is known of it."""
        return self.increment(Span(span.t0, inner.t1, inner.h, span.index), like, levy)

    def _between(self, ta: Tensor, tb: Tensor, levy: Levy, dtype: torch.dtype) -> Increment:
        if law.terms(levy) > law.terms(self.levy):
            raise ValueError(
                f"this Brownian path carries levy=Levy.{self.levy.name} and the solver needs Levy.{levy.name}: "
                f"make it with BrownianTree(…, levy=Levy.{levy.name})"
            )
        a, b = (self._clock.read(t.detach().reshape(() if t.numel() == 1 else -1)) for t in (ta, tb))
        if a.ndim != b.ndim:
            a, b = torch.broadcast_tensors(a, b)
        backwards = b < a
        s, t = torch.minimum(a, b), torch.maximum(a, b)
        i = self._area(s, t) if levy is Levy.AREA else self._forward(s, t, law.terms(levy))
        if a.ndim > 0:
            i = _where(backwards, law.reversed_increment(i), i)
        elif bool(backwards):
            i = law.reversed_increment(i)
        return Increment(*(None if x is None else x.to(dtype) for x in (i.W, i.H, i.K, i.A)))

    def _forward(self, s: Tensor, t: Tensor, count: int) -> Increment:
        """The first `count` of (W, H, K) over [s, t], in ticks; float64."""
        length = self._clock.lengths(t - s)
        # an empty interval has no normals of its own; any will do, as they are multiplied by zero
        empty = t == s
        z = self._series.normals(torch.where(empty, 0, s), torch.where(empty, 1, t)).reshape(-1, *self.shape)
        return law.from_normals(list(z[:count]), expand(length, z[0]).to(z.device))

    def _area(self, s: Tensor, t: Tensor) -> Increment:
        """W, H and A over [s, t], joined from pieces."""
        law.check_area_noise(torch.empty(self.shape, device="meta"))
        length = self._clock.lengths(t - s)
        shares = piece_lengths(length, self.area_rate, length)
        n = shares.shape[0]
        shares = shares.reshape(n, *t.shape).cumsum(0)
        ends = s + ((t - s) * (shares / shares[-1]).nan_to_num(1.0)).round().to(torch.int64)
        starts = torch.cat((s[None], ends[:-1]))
        pieces = [self._forward(starts[j], ends[j], 2) for j in range(n)]
        stacked = Increment(torch.stack([p.W for p in pieces]), torch.stack([p.H for p in pieces if p.H is not None]))
        lengths = self._clock.lengths(ends - starts)
        return law.join(lengths.reshape(n, *(1,) * 0, *t.shape, *(1,) * (t.ndim)), stacked, area=True)


def _where(mask: Tensor, a: Increment, b: Increment) -> Increment:
    """Sample by sample, a where the mask `(B,)` is set, else b."""
    pairs = ((getattr(a, name), getattr(b, name)) for name in "WHKA")
    return Increment(*(None if x is None or y is None else torch.where(expand(mask, x), x, y) for x, y in pairs))
