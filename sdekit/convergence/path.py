"""A recorded Brownian path: one set of numbers that a solver at any step size and an exact solution both read.

It is a `BrownianGrid` in *elapsed* time: s = |t − start|, measured along the direction of travel, so that one exact
solution serves both directions of time. Increments over several cells of the grid are joined exactly, so solves with
different steps run along one path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from ..brownian import BrownianGrid
from ..protocols import Increment, Levy, Span, as_time

_NODES = torch.tensor([-math.sqrt(0.6), 0.0, math.sqrt(0.6)], dtype=torch.float64) / 2
_WEIGHTS = torch.tensor([5.0, 8.0, 5.0], dtype=torch.float64) / 18


class RecordedPath:
    """Brownian motion over the cells between `nodes`, for noise of shape `(B, *shape)`.

    start: the time at which travel begins.  nodes: elapsed times that bound the cells, increasing from 0.
    seed: integer; sample i of the path depends on (seed, i) only.
    """

    def __init__(self, start: float, nodes: Sequence[float] | Tensor, shape: tuple[int, ...], seed: int) -> None:
        self.start, self.shape = start, shape
        self.grid = BrownianGrid(nodes, shape, seed, levy=Levy.K)
        self.nodes = self.grid.times
        # solvers at the same steps ask for the same increments
        self._known: dict[tuple[float, float, Levy], Increment] = {}

    def starting_at(self, start: float) -> RecordedPath:
        """The same path, for travel that begins at another time."""
        other = copy(self)
        other.start = start
        return other

    def _between(self, a: float, b: float, like: Tensor, levy: Levy) -> Increment:
        known = self._known.get((a, b, levy))
        if known is None:
            known = self.grid.increment(Span(as_time(a), as_time(b), b - a), like, levy)
            self._known[a, b, levy] = known
        return known

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over a span whose ends are nodes, along the direction of travel."""
        a, b = (abs(float(t) - self.start) for t in (span.t0, span.t1))
        return self._between(a, b, like, levy)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`, which must be a node."""
        return self.increment(inner, like, levy)

    # --- what exact solutions ask ---

    @cached_property
    def _cells(self) -> tuple[Tensor, Tensor, Tensor]:
        """W, H and K of every cell, `(n, B, *shape)`."""
        cells = [self.grid(a, b) for a, b in pairwise(self.nodes)]
        w, h, k = (torch.stack(parts) for parts in zip(*((c.W, c.H, c.K) for c in cells), strict=True))
        return w, h, k

    def w(self, s: float) -> Tensor:
        """W(s), `(B, *shape)`, starting from 0."""
        return self.grid.value(s)

    def integral(self, weight: Callable[[Tensor], Tensor], s: float) -> Tensor:
        """`∫₀ˢ a(r) dW(r)` for a deterministic weight a, by the Legendre coefficients of a on every cell.

        With a ≈ a₀ + a₁(r − c) + a₂((r − c)² − h²/12) a cell gives `a₀ W − a₁ h H + 2 a₂ h² K`; the error is O(h³).

        weight: elapsed times `(n,)` -> `(n,)`, or matrices `(n, d, m)` for noise `(B, m)`.
        """
        n = 1 + int((self.nodes[1:] - s).abs().argmin())
        h, centre = self.nodes.diff()[:n], 0.5 * (self.nodes[:n] + self.nodes[1 : n + 1])
        values = torch.stack([weight(centre + node * h) for node in _NODES])
        legendre = (torch.ones_like(_NODES), 12.0 * _NODES, 180.0 * (_NODES**2 - 1.0 / 12.0))
        total: Tensor | float = 0.0
        for shape, part, factor in zip(legendre, self._cells, (1.0, -1.0, 2.0), strict=True):
            coefficient = torch.einsum("q,q...->...", _WEIGHTS * shape * factor, values)
            rule = "n,n...->..." if coefficient.ndim == 1 else "ndm,nbm->bd"
            total = total + torch.einsum(rule, coefficient, part[:n])
        assert isinstance(total, Tensor)
        return total

    def area(self, s: float) -> Tensor:
        """The Lévy area `A_jk(s) = ½ ∫ (W_j dW_k − W_k dW_j)`, `(B, m, m)`, for noise `(B, m)`."""
        area = self._between(0.0, s, torch.empty(self.shape, dtype=torch.float64), Levy.AREA).A
        assert area is not None
        return area
