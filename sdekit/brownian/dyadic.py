"""A Brownian path expanded over dyadic intervals, so that any increment is a short sum of keyed normals.

White noise on a root interval of 2^D ticks is a series in orthonormal functions: the Legendre polynomials of degree
0, 1, 2 on the root, and on every dyadic node the piecewise polynomials on its two halves that are orthogonal to those
polynomials on the node: what a midpoint split adds. Each function carries one standard normal, keyed by its node. The
normals (w, η, κ) of an interval Q = [s, t] are the series' inner products with Q's own Legendre functions:

* a node of which one half holds all of Q: the half's polynomials, restricted to Q;
* the node in whose middle s and t part: both pieces of Q;
* a deeper node around s or t: Q covers it from the end to one side. As the node's functions are orthogonal to
  polynomials on the node, the part outside Q may be integrated instead, with the other sign; the half-node in which
  the end lies gives the short piece P;
* all other nodes give nothing, and so do nodes below the last one bit of s and t: the series is finite and exact.

No difference of path values is taken, so increments keep their relative accuracy down to one tick; the sum has no
order-dependent state, so every query of one path agrees with every other.

Notation: an interval's ends are int64 ticks; L levels, level d has nodes of 2^(D−d) ticks and heap number
2^d + index, root functions have number 0. Ends are 0-d (shared) or `(B,)`; weights are `(L, 1)` or `(L, B)`.

Reference: Lévy–Ciesielski construction; Alpert (1993), SIAM J. Math. Anal. 24(1) (the multiwavelets).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..random import node_normal
from . import levy

Weights = list[list[Tensor]]
"""Weight of the node's normal j in the increment's normal k: `weights[k][j]`."""


Ends = tuple[Tensor, Tensor]


def _restricted(p: Ends, x: Ends, count: int) -> tuple[Tensor, list[list[Tensor | float]]]:
    """|X|, and X's functions in terms of P's: row m, column k − m is the part of function k ≥ m, times √(|X|/|P|)."""
    size = (x[1] - x[0]).to(torch.float64)
    ratio = (p[1] - p[0]).to(torch.float64) / size
    offset = 0.5 * ((p[0] - x[0]) + (p[1] - x[1])).to(torch.float64) / size
    rows: list[list[Tensor | float]] = [[1.0]]
    if count > 1:
        rows[0].append(-math.sqrt(12.0) * offset)
        rows.append([ratio])
    if count > 2:
        rows[0].append(math.sqrt(180.0) * (offset**2 - (1.0 - ratio**2) / 12.0))
        rows[1].append(-2.0 * math.sqrt(15.0) * offset * ratio)
        rows.append([ratio**2])
    return size, rows


def _inner(p: Ends, q: Ends, c: Ends, count: int) -> Weights:
    """∫ over P of (Q's function k) (C's function i); zero where P is empty."""
    size_q, in_q = _restricted(p, q, count)
    size_c, in_c = _restricted(p, c, count)
    scale = (p[1] - p[0]).to(torch.float64) / (size_q * size_c).sqrt()
    return [
        [scale * sum(in_q[m][k - m] * in_c[m][i - m] for m in range(min(k, i) + 1)) for i in range(count)]
        for k in range(count)
    ]


def _added(g: Weights, side: Tensor, sign: Tensor, count: int) -> Weights:
    """From weights on a half's normals to weights on the node's own; side is +1 in the first half, −1 in the second."""
    free, bound = levy.midpoint(count)
    out: Weights = []
    for row in g:
        own = [sign * side * (free[j] * row[j]) for j in range(count)]
        out.append([x - sign * (bound[j] * row[j + 1]) if j < count - 1 else x for j, x in enumerate(own)])
    return out


def _halves(end: Tensor, first: int, stop: int, depth: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """On levels first … stop − 1: shift from ticks to halves, ends of the half that holds `end`, +1 or −1 for its side."""
    shift = torch.arange(depth - 1 - first, depth - 1 - stop, -1, device=end.device)[:, None]
    half = end >> shift
    return shift, half << shift, (half + 1) << shift, 1 - 2 * (half & 1)


def _stack(weights: Weights) -> Tensor:
    """`(L, B, k, j)`."""
    return torch.stack([torch.stack(row, dim=-1) for row in weights], dim=-2)


def _nodes(end: Tensor, first: int, stop: int, depth: int) -> Tensor:
    """Heap numbers `(L, 1 or B)` of the nodes that hold `end`."""
    shift = torch.arange(depth - first, depth - stop, -1, device=end.device)[:, None]
    return (end >> shift) + (1 << (depth - shift))


def _stop(end: Tensor, depth: int) -> int:
    """Levels down to which a node is cut by an end: none below the last one bit."""
    last = torch.where(end == 0, 1 << depth, end & -end)
    return depth + 1 - int(last.min()).bit_length()


def _to_end(q: Ends, stop: int, depth: int, count: int) -> Tensor:
    """Weights of the nodes that hold t, levels 0 … stop − 1; those that hold s too are all among them."""
    s, t = q
    shift, c0, c1, side = _halves(t, 0, stop, depth)
    below = (s >> (shift + 1)) != (t >> (shift + 1))
    within = (s >> shift) == (t >> shift)
    outside = below & (side < 0)
    p = torch.where(within, s, torch.where(outside, t, c0)), torch.where(outside, c1, t)
    sign = torch.where(outside, -1.0, 1.0).to(torch.float64)
    weights = _stack(_added(_inner(p, q, (c0, c1), count), side, sign, count))
    # the node in whose middle s and t part holds a piece of Q in its first half too
    parted = ~(below | within)
    middle, size = (torch.where(parted, x, 0).sum(0) for x in (c0, c1 - c0))
    piece = _inner((s, middle), q, (middle - size, middle), count)
    first = _stack(_added(piece, torch.ones_like(middle), torch.ones_like(piece[0][0]), count))
    return torch.where(parted[..., None, None], weights + first, weights)


def _from_start(q: Ends, first: int, stop: int, depth: int, count: int) -> Tensor:
    """Weights of the nodes that hold s and not t, levels first … stop − 1."""
    s, t = q
    shift, c0, c1, side = _halves(s, first, stop, depth)
    below = (s >> (shift + 1)) != (t >> (shift + 1))
    outside = side > 0
    p = torch.where(below & outside, c0, s), torch.where(below & ~outside, c1, s)
    sign = torch.where(outside, -1.0, 1.0).to(torch.float64)
    return _stack(_added(_inner(p, q, (c0, c1), count), side, sign, count))


def _fold(x: Tensor) -> Tensor:
    """Sum over levels in an order that depends on neither their number nor the batch, so that equal queries are equal."""
    size = 64
    while size > 1:
        size //= 2
        if x.shape[0] > size:
            head, tail = x[:size], x[size:]
            head[: tail.shape[0]] += tail
            x = head
    return x[0]


class Series:
    """The series of one path on a root of 2^depth ticks, for samples with the int64 keys `(B,)`.

    count: how many of (W, H, K) the increments have.  size: numbers in one sample.
    root: the root's own normals `(B, count, size)`; None draws them under the node number 0.
    """

    def __init__(self, keys: Tensor, count: int, size: int, depth: int, root: Tensor | None = None) -> None:
        self.keys, self.count, self.size, self.depth = keys, count, size, depth
        self.root = self._draw(torch.zeros((1, 1), dtype=torch.int64, device=keys.device))[0] if root is None else root

    def _draw(self, nodes: Tensor) -> Tensor:
        """`(L, B, count, size)`."""
        z = node_normal(self.keys, nodes.to(self.keys.device), self.count * self.size)
        return z.reshape(*z.shape[:2], self.count, self.size)

    def normals(self, s: Tensor, t: Tensor) -> Tensor:
        """The normals `(B, count, size)` of [s, t], ends 0-d or `(B,)` with 0 ≤ s < t ≤ 2^depth."""
        q, depth, count = (s, t), self.depth, self.count
        whole = torch.zeros_like(t), torch.full_like(t, 1 << depth)
        total = self._sum(_stack(_inner(q, q, whole, count)).reshape(-1, count, count)[None], self.root[None])[0]
        stop = _stop(t, depth)
        if stop > 0:
            total += _fold(self._sum(_to_end(q, stop, depth, count), self._draw(_nodes(t, 0, stop, depth))))
        stop = _stop(s, depth)
        if stop > 0:
            total += _fold(self._sum(_from_start(q, 0, stop, depth, count), self._draw(_nodes(s, 0, stop, depth))))
        return total

    def _sum(self, weights: Tensor, z: Tensor) -> Tensor:
        """Σ_j weights[…, k, j] z[…, j, :] for every level."""
        w = weights.to(z.device)[..., None]
        out = w[..., 0, :] * z[..., None, 0, :]
        for j in range(1, self.count):
            out += w[..., j, :] * z[..., None, j, :]
        return out
