"""A Brownian path on a fine grid, drawn once: the exact increment between any two of its times.

Coarsening joins the fine increments by Chen's relation, so that one path can be followed at many step sizes, which is
how strong errors are measured. With the seed of a solve, step k of the grid has the numbers of that solve's step k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..arguments import floating
from ..protocols import Increment, Levy, Span, as_time
from ..random import KeyedDraws, Purpose, Shape
from . import levy as law


class BrownianGrid:
    """A path at `times` (n + 1 increasing numbers) with noise of the given shape `(B, *noise)`.

    seed, first: sample i has the path of (seed, first + i).  levy: how much of (W, H, K) is drawn; the area is joined
    from W and H of the fine steps, with mean-square error Σ hᵢ²/12.  dtype, device: of the numbers kept.
    """

    def __init__(
        self,
        times: Tensor | Sequence[float],
        shape: Shape,
        seed: int = 0,
        first: int = 0,
        levy: Levy = Levy.H,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self._place(times)
        law.check_request("BrownianGrid", shape, levy, dtype)
        where, draws = torch.device(device), KeyedDraws(seed, first)
        lengths = cast(list[float], self.times.diff().tolist())
        shape = tuple(shape)
        fine: list[Tensor] = []
        for k in range(law.terms(levy)):
            kept = torch.empty((len(lengths), *shape), dtype=dtype, device=where)
            for step, h in enumerate(lengths):
                z = draws.normal(Purpose.PATH, step, shape, dtype, where, k)
                torch.mul(z, law.std(h, k, z), out=kept[step])
            fine.append(kept)
        self.levy, self._fine = levy, Increment(*fine)

    @classmethod
    def from_increments(
        cls, times: Tensor | Sequence[float], W: Tensor, H: Tensor | None = None, K: Tensor | None = None
    ) -> BrownianGrid:
        """A grid of given increments, each `(n, B, …)` for the n intervals of `times`."""
        grid = cls.__new__(cls)
        grid._place(times)
        n = len(grid.times) - 1
        given = {name: floating(name, x) for name, x in (("W", W), ("H", H), ("K", K)) if x is not None}
        for name, x in given.items():
            if x.ndim < 2 or x.shape[0] != n or x.shape != given["W"].shape:
                raise ValueError(f"{name}: expected shape ({n}, B, …) for {n} intervals, as W; got {tuple(x.shape)}")
        if K is not None and H is None:
            raise ValueError("K was given without H: give both, or neither")
        grid.levy = Levy.K if K is not None else Levy.H if H is not None else Levy.W
        grid._fine = Increment(**given)
        return grid

    def _place(self, times: Tensor | Sequence[float]) -> None:
        t = as_time(times, what="times").detach().cpu()
        if t.ndim != 1 or len(t) < 2 or not bool(torch.isfinite(t).all()) or not bool((t.diff() > 0).all()):
            raise ValueError(f"times: expected two or more finite times in increasing order, got {times}")
        self.times, self._slack = t, 1e-6 * float(t.diff().min())

    @property
    def shape(self) -> Shape:
        """Shape `(B, *noise)` of an increment."""
        return tuple(self._fine.W.shape[1:])

    def __repr__(self) -> str:
        n, t = len(self.times) - 1, self.times
        return f"BrownianGrid({n} steps on [{float(t[0])}, {float(t[-1])}], {self.shape}, levy={self.levy.name})"

    def __call__(self, ta: float | Tensor, tb: float | Tensor) -> Increment:
        """The increment from ta to tb, grid times; where tb < ta it is the path traversed backwards."""
        levy = self.levy if self.levy is not Levy.AREA or len(self.shape) == 2 else Levy.H
        return self._between(as_time(ta), as_time(tb), levy, self._fine.W.dtype)

    def value(self, t: float | Tensor) -> Tensor:
        """W at a grid time, with W = 0 at the first."""
        return self._between(self.times[0], as_time(t), Levy.W, self._fine.W.dtype).W

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span, shaped like the noise `like`, along the direction of travel."""
        law.check_shape(self.shape, like)
        return self._between(span.t0, span.t1, levy, like.dtype)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`, which must be a grid time."""
        law.check_shape(self.shape, like)
        return self._between(span.t0, inner.t1, levy, like.dtype)

    def _between(self, ta: Tensor, tb: Tensor, levy: Levy, dtype: torch.dtype) -> Increment:
        law.check_level(self.levy, levy, "BrownianGrid")
        a, b = self._index(ta), self._index(tb)
        if a.numel() == b.numel() == 1:
            i, j = int(a), int(b)
            found = self._joined(min(i, j), max(i, j), levy, None)
            return law.selected(law.reversed_increment(found) if j < i else found, levy, dtype)
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        found = self._joined(int(low.min()), int(high.max()), levy, (low, high))
        return law.selected(law.where(b < a, law.reversed_increment(found), found), levy, dtype)

    def _joined(self, i: int, j: int, levy: Levy, own: tuple[Tensor, Tensor] | None) -> Increment:
        """From grid time i to j; `own` are the samples' own ends within, `(B,)`."""
        names = ("W", "H", "K")[: law.terms(levy)]
        cut = [x[i:j].to(torch.float64) for name in names if (x := getattr(self._fine, name)) is not None]
        lengths = self.times[i : j + 1].diff().to(cut[0].device)
        if own is not None:
            number = torch.arange(i, j, device=lengths.device)[:, None]
            held = ((number >= own[0]) & (number < own[1])).to(torch.float64)
            lengths = held * lengths[:, None]
            held = held.reshape(*held.shape, *(1,) * (cut[0].ndim - 2))
            cut, lengths = [x * held for x in cut], lengths.reshape(held.shape)
        return law.join(lengths, Increment(*cut), area=levy is Levy.AREA)

    def _index(self, t: Tensor) -> Tensor:
        """Indices of grid times, 0-d or `(B,)`; met to a millionth of a fine step."""
        t = t.detach().reshape(() if t.numel() == 1 else -1).to(self.times.device)
        k = torch.searchsorted(self.times, t).clamp(1, len(self.times) - 1)
        k = torch.where(t - self.times[k - 1] < self.times[k] - t, k - 1, k)
        if bool(((t - self.times[k]).abs() <= self._slack).all()):
            return k
        raise ValueError(
            f"the time {t.tolist()} is not on this Brownian grid, whose nearest time is {self.times[k].tolist()}: "
            "step and save at grid times, put the time into the grid, or use BrownianTree, which has all times"
        )
