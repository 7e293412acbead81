"""A recorded Brownian path: one set of numbers that a solver at any step size and an exact solution both read.

The span is cut into cells; each cell holds the standard normals of (W, H, K). An increment over several cells is joined
from theirs exactly (`brownian.levy`), so solves with different steps run along one path. Times here are *elapsed*:
s = |t − start|, measured along the direction of travel, so that one exact solution serves both directions of time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from ..brownian import levy as law
from ..protocols import Increment, Levy, Span
from ..random import KeyedDraws, Purpose

_NODES = torch.tensor([-math.sqrt(0.6), 0.0, math.sqrt(0.6)], dtype=torch.float64) / 2
_WEIGHTS = torch.tensor([5.0, 8.0, 5.0], dtype=torch.float64) / 18


class RecordedPath:
    """Brownian motion over the cells between `nodes`, for noise of shape `(B, *shape)`.

    start: the time at which travel begins.  nodes: elapsed times that bound the cells, increasing from 0.
    seed: integer; sample i of the path depends on (seed, i) only.
    """

    def __init__(self, start: float, nodes: Sequence[float] | Tensor, shape: tuple[int, ...], seed: int) -> None:
        self.start, self.nodes, self.shape = start, torch.as_tensor(nodes, dtype=torch.float64), shape
        self.lengths = self.nodes.diff()
        increasing = self.nodes.ndim == 1 and len(self.nodes) > 1 and bool((self.lengths > 0).all())
        if not increasing or float(self.nodes[0]) != 0.0:
            raise ValueError("nodes: expected elapsed times that increase strictly from 0")
        self._tolerance = 1e-9 * float(self.nodes[-1])
        draws, device = KeyedDraws(seed), self.nodes.device
        wide = self.lengths.reshape(-1, *(1,) * len(shape))
        parts = []
        for k in range(3):
            z = [draws.normal(Purpose.PATH, i, shape, torch.float64, device, part=k) for i in range(len(self.lengths))]
            parts.append(torch.stack(z) * (wide / law.VARIANCES[k]).sqrt())
        self.cells = Increment(*parts)
        self._position = torch.cat((torch.zeros(1, *shape, dtype=torch.float64), parts[0].cumsum(0)))

        self._joined: dict[tuple[int, int, Levy], Increment] = {}

    def starting_at(self, start: float) -> RecordedPath:
        """The same path, for travel that begins at another time."""
        other = copy(self)
        other.start = start
        return other

    def _index(self, elapsed: float) -> int:
        i = int(torch.searchsorted(self.nodes, elapsed - self._tolerance))
        if i >= len(self.nodes) or abs(float(self.nodes[i]) - elapsed) > self._tolerance:
            raise ValueError(f"the recorded path has no node at elapsed time {elapsed}: name it when recording")
        return i

    def _join(self, i: int, j: int, levy: Levy) -> Increment:
        w = self._position[j] - self._position[i]
        if levy is Levy.W or i == j:
            return Increment(w)
        cells = self.cells
        known = self._joined.get((i, j, levy))
        if known is None:
            assert cells.H is not None
            assert cells.K is not None
            pieces = Increment(cells.W[i:j], cells.H[i:j], cells.K[i:j] if levy is Levy.K else None)
            known = law.join(self.lengths[i:j], pieces, area=levy is Levy.AREA)._replace(W=w)
            self._joined[i, j, levy] = known
        return known

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over a span whose ends are nodes, in the dtype of `like`."""
        i, j = (self._index(abs(float(t) - self.start)) for t in (span.t0, span.t1))
        found = self._join(i, j, levy)
        return Increment(found.W.to(like.dtype), *(None if x is None else x.to(like.dtype) for x in found[1:]))

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`, which must be a node."""
        return self.increment(inner, like, levy)

    # --- what exact solutions ask ---

    def w(self, s: float) -> Tensor:
        """W(s), `(B, *shape)`, starting from 0."""
        return self._position[self._index(s)]

    def integral(self, weight: Callable[[Tensor], Tensor], s: float) -> Tensor:
        """`∫₀ˢ a(r) dW(r)` for a deterministic weight a, by the Legendre coefficients of a on every cell.

        With a ≈ a₀ + a₁(r − c) + a₂((r − c)² − h²/12) a cell gives `a₀ W − a₁ h H + 2 a₂ h² K`; the error is O(h³).

        weight: elapsed times `(n,)` -> `(n,)`, or matrices `(n, d, m)` for noise `(B, m)`.
        """
        n = self._index(s)
        h, centre = self.lengths[:n], 0.5 * (self.nodes[:n] + self.nodes[1 : n + 1])
        values = torch.stack([weight(centre + node * h) for node in _NODES])
        legendre = (torch.ones_like(_NODES), 12.0 * _NODES, 180.0 * (_NODES**2 - 1.0 / 12.0))
        total: Tensor | float = 0.0
        for shape, part, factor in zip(legendre, self.cells, (1.0, -1.0, 2.0), strict=False):
            assert part is not None
            coefficient = torch.einsum("q,q...->...", _WEIGHTS * shape * factor, values)
            rule = "n,n...->..." if coefficient.ndim == 1 else "ndm,nbm->bd"
            total = total + torch.einsum(rule, coefficient, part[:n])
        assert isinstance(total, Tensor)
        return total

    def area(self, s: float) -> Tensor:
        """The Lévy area `A_jk(s) = ½ ∫ (W_j dW_k − W_k dW_j)`, `(B, m, m)`, for noise `(B, m)`."""
        joined = self._join(0, self._index(s), Levy.AREA)
        assert joined.A is not None
        return joined.A
