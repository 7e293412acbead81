"""Brownian paths that torchsde and sdekit use of one another; torchsde is not imported.

Over an interval of length h torchsde's paths give W, U = h (W/2 + H) and A. Its times only increase: see `torchsde`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .. import brownian
from ..brownian.levy import reversed_increment
from ..counters import fold
from ..errors import Incompatible
from ..protocols import Increment, Levy, Span

_LEVY_NAMES = {Levy.W: "none", Levy.H: "space-time", Levy.K: "space-time", Levy.AREA: "foster"}


class TorchsdeBrownian:
    """A `BrownianTree` of sdekit as the `bm` of torchsde: `bm(ta, tb, return_U, return_A)`.

    start: as in `to_torchsde`: torchsde's time is s = start − t.

    W, U, A have the shapes `(B, m)`, `(B, m)` and `(B, m, m)`; a tree for states of other shapes is flattened.

    Raises TypeError for anything but a `BrownianTree` of sdekit.
    """

    def __init__(self, tree: brownian.BrownianTree, start: float | None = None) -> None:
        if not isinstance(tree, brownian.BrownianTree):
            raise TypeError(f"TorchsdeBrownian wraps an sdekit BrownianTree, got {type(tree).__name__}")
        self.tree, self.start = tree, start
        self.shape = torch.Size((tree.shape[0], torch.Size(tree.shape[1:]).numel()))
        self.dtype, self.device = tree.dtype, tree.device
        self.levy_area_approximation = _LEVY_NAMES[tree.levy]

    def __repr__(self) -> str:
        return f"TorchsdeBrownian({self.tree!r})"

    def size(self) -> torch.Size:
        """The shape of W."""
        return self.shape

    def __call__(
        self, ta: float | Tensor, tb: float | Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """W over [ta, tb], with U and A where asked; W(ta) from the beginning for a single time."""
        first = self.tree.domain[0] if self.start is None else 0.0
        a, b = (first, float(ta)) if tb is None else (float(ta), float(tb))
        i = self.tree(self._time(a), self._time(b))
        w = i.W.reshape(self.shape)
        out: list[Tensor] = [w]
        if return_U:
            out.append((b - a) * (0.5 * w + _given(i.H).reshape(self.shape)))
        if return_A:
            out.append(_given(i.A))
        return out[0] if len(out) == 1 else tuple(out)

    def _time(self, t: float) -> float:
        return _inside(self.tree, t if self.start is None else self.start - t)


def brownian_for_torchsde(tree: brownian.BrownianTree, start: float | None = None) -> TorchsdeBrownian:
    """An sdekit tree as the `bm` of `torchsde.sdeint`, so that both follow one path; see `TorchsdeBrownian`."""
    return TorchsdeBrownian(tree, start)


def _given(part: Tensor | None) -> Tensor:
    if part is None:
        raise ValueError("U needs a tree made with levy=Levy.H or more, A one made with levy=Levy.AREA")
    return part


def _inside(tree: brownian.BrownianTree, t: float) -> float:
    """A time moved into the tree's domain, where float32 rounding has put it a little outside."""
    low, high = tree.domain
    slack = 1e-6 * max(abs(low), abs(high))
    return min(max(t, low), high) if low - slack <= t <= high + slack else t


class TorchsdePath:
    """A Brownian path of torchsde (`BrownianInterval`, `BrownianPath`, `BrownianTree`) as the `path=` of `solve`.

    Solvers that need H ask for `levy_area_approximation="space-time"` or better, those that need A for "foster"; none
    gives K. Steps of each sample's own are asked one by one, so adaptive solves of large batches are slow.

    Raises TypeError for what is no such path.
    """

    def __init__(self, bm: Any) -> None:
        if not callable(bm) or not hasattr(bm, "levy_area_approximation"):
            raise TypeError(f"TorchsdePath takes a torchsde Brownian path, got {type(bm).__name__}")
        self.bm: Any = bm

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span, along the direction of travel."""
        have = {"none": Levy.W, "space-time": Levy.H}.get(self.bm.levy_area_approximation, Levy.AREA)
        if levy is Levy.K or levy > have:
            raise Incompatible(
                f"this solver needs levy=Levy.{levy.name} and the torchsde path has levy_area_approximation="
                f"{self.bm.levy_area_approximation!r}; use BrownianTree(…, levy=Levy.{levy.name}) of sdekit"
            )
        t0, t1 = (cast(list[float], t.detach().reshape(-1).tolist()) for t in (span.t0, span.t1))
        count = max(len(t0), len(t1))
        if count == 1:
            return self._over(t0[0], t1[0], like, levy)
        rows = [self._over(t0[i % len(t0)], t1[i % len(t1)], like, levy) for i in range(count)]
        columns: Any = ([getattr(row, name) for row in rows] for name in "WHKA")
        stacked: Any = (None if c[0] is None else torch.stack([x[i] for i, x in enumerate(c)]) for c in columns)
        return Increment(*stacked)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`."""
        return self.increment(Span(span.t0, inner.t1, inner.h, span.index), like, levy)

    def _over(self, t0: float, t1: float, like: Tensor, levy: Levy) -> Increment:
        low, high = min(t0, t1), max(t0, t1)
        if levy is Levy.W:
            i = Increment(self.bm(low, high).to(like).reshape(like.shape))
        else:
            w, u, *area = self.bm(low, high, return_U=True, return_A=levy is Levy.AREA)
            h = u / (high - low) - 0.5 * w if high > low else torch.zeros_like(w)
            a = area[0].to(like) if area else None
            i = Increment(w.to(like).reshape(like.shape), h.to(like).reshape(like.shape), None, a)
        return i if t0 <= t1 else reversed_increment(i)


class BrownianTree:
    """What code written for `torchsde.BrownianTree` expects, on a tree that any query order and any length leave alone.

    `tree(ta, tb)` is W(tb) − W(ta), `tree(t)` is w0 + W(t) − W(t0), both shaped like w0. Where w0 has a batch in front,
    sample i depends on (entropy, i) only.

    w1: the value at t1; the path is then the Brownian bridge from w0 to w1.  entropy: the seed, an integer or several;
    None takes one from the operating system.  tol, pool_size, cache_depth, safety: accepted, and not needed.

    Raises TypeError for a w0 that is no tensor.
    """

    def __init__(
        self,
        t0: float | Tensor,
        w0: Tensor,
        t1: float | Tensor | None = None,
        w1: Tensor | None = None,
        entropy: int | Sequence[int] | None = None,
        tol: float = 1e-6,
        pool_size: int = 24,
        cache_depth: int = 9,
        safety: float | None = None,
    ) -> None:
        if not isinstance(w0, Tensor):
            raise TypeError(f"w0: expected a tensor of the shape of the noise, got {type(w0).__name__}")
        end = float(t0) + 1.0 if t1 is None else float(t1)
        seed = secrets.randbits(63) if entropy is None else entropy if isinstance(entropy, int) else fold(*entropy)
        shape = tuple(w0.shape) if w0.ndim > 0 else (1,)
        self.w0, self.shape, self.dtype, self.device = w0, w0.shape, w0.dtype, w0.device
        self.levy_area_approximation = "space-time"
        self.tree = brownian.BrownianTree(
            float(t0), end, shape, seed=int(seed), levy=Levy.H, dtype=w0.dtype, device=w0.device
        )
        # a bridge is the path with a straight line added; H, which is what the line leaves alone, stays
        self._slope = (
            0.0 if w1 is None else (w1 - w0 - self.tree(float(t0), end).W.reshape(w0.shape)) / (end - float(t0))
        )

    def __repr__(self) -> str:
        return f"BrownianTree({self.tree!r})"

    def size(self) -> torch.Size:
        """The shape of W."""
        return self.shape

    def __call__(
        self, t: float | Tensor, tb: float | Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The increment over [t, tb], with U where asked; the value at t for a single time."""
        if return_A:
            raise ValueError(
                "this tree has no area A: use brownian_for_torchsde(sdekit.BrownianTree(…, levy=Levy.AREA))"
            )
        a, b = (self.tree.domain[0], float(t)) if tb is None else (float(t), float(tb))
        i = self.tree(_inside(self.tree, a), _inside(self.tree, b))
        w = i.W.reshape(self.shape) + self._slope * (b - a)
        if not return_U:
            return w if tb is not None else w + self.w0
        return w, (b - a) * (0.5 * w + _given(i.H).reshape(self.shape))
