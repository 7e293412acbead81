"""What each dyadic node adds to the increment over an interval: the weights of the series in module `dyadic`.

White noise on a root interval of 2^D ticks is expanded in orthonormal functions: the Legendre polynomials of degree
0, 1, 2 on the root, and on every dyadic node the piecewise polynomials on its two halves that are orthogonal to those
polynomials on the node, which is what a midpoint split adds. The standard normals (w, η, κ) of an interval Q = [s, t]
are the inner products of the series with Q's own Legendre functions. They are integrals over a short piece P:

* where one half of the node holds all of Q, P = Q;
* where s and t part at the middle of the node, P is each of the two pieces of Q;
* on a deeper node around s or t, Q covers the node from one end to s or t. What the node adds is orthogonal to
  polynomials, so the part outside Q may be integrated instead, with the other sign; P is whichever lies in the half
  that holds s or t;
* no other node contributes, nor one below the last one bit of s or t: the series is finite and exact.

No difference of path values is taken, so an increment keeps its relative accuracy down to a single tick. Only + − × /
and √ are used, on int64 and float64 arrays of NumPy: the weights are the same on every machine, batch and device.

Reference: Alpert (1993), SIAM J. Math. Anal. 24(1) (multiwavelets); for W alone it is the Lévy–Ciesielski series.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .levy import midpoint

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Rows(NamedTuple):
    """For every row and sample, `(R, 1 or B)`: the piece P, the half-node C that holds it, C's side ±1, P's sign."""

    p0: Ints
    p1: Ints
    c0: Ints
    c1: Ints
    side: Ints
    sign: Ints


class Weights(NamedTuple):
    """Weights `(rows, k, j, 1 or B)` of a node's normal j in the interval's normal k.

    root: one row.  end: the nodes that hold t, from level 0.  start: those that hold s and not t, from level `first`.
    """

    root: Floats
    end: Floats
    start: Floats
    first: int


def stop_level(end: Ints, depth: int) -> int:
    """Number of levels whose node is cut by some end: none lies below the last one bit."""
    last = int(np.bitwise_or.reduce(end, axis=None))
    return 0 if last == 0 else max(0, depth + 1 - (last & -last).bit_length())


def weights(s: Ints, t: Ints, depth: int, count: int) -> Weights:
    """Weights for intervals of ticks `(1,)` or `(B,)`, 0 ≤ s < t ≤ 2^depth, and the first `count` of (w, η, κ)."""
    levels = stop_level(t, depth)
    first = depth + 1 - int(np.bitwise_or.reduce(s ^ t, axis=None)).bit_length()
    below = max(0, stop_level(s, depth) - first)
    one = np.ones_like(s)
    whole = Rows(*(x[None] for x in (s, t, 0 * s, one << depth, one, one)))
    end, middle, parted = _to_end(s, t, levels, depth)
    parts = [whole, middle, end]
    if below:
        parts.append(_from_start(s, t, first, first + below, depth))
    rows = Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    inner = _inner(rows, s, t, count)
    added = _added(inner, rows, count)
    to_end = added[2 : 2 + levels]
    level, sample = parted.nonzero()
    to_end[level, :, :, sample] += added[1][..., sample].transpose(2, 0, 1)
    root = np.array([[entry[0] for entry in row] for row in inner])[None]
    return Weights(root, to_end, added[2 + levels :], first)


def _halves(end: Ints, first: int, stop: int, depth: int) -> tuple[Ints, Ints, Ints, Ints]:
    """On levels first … stop − 1: shift from ticks to halves, ends of the half that holds `end`, and its side ±1."""
    shift = np.arange(depth - 1 - first, depth - 1 - stop, -1, dtype=np.int64)[:, None]
    half = end >> shift
    return shift, half << shift, (half + 1) << shift, 1 - 2 * (half & 1)


def _to_end(s: Ints, t: Ints, levels: int, depth: int) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    """Rows of the nodes that hold t; one row for Q's piece before the middle where s and t part; which node that is."""
    shift, c0, c1, side = _halves(t, 0, levels, depth)
    start = s >> shift
    within = start == t >> shift
    below = start >> 1 != t >> shift + 1
    outside = below & (side < 0)
    p0 = np.where(within, s, np.where(outside, t, c0))
    rows = Rows(p0, np.where(outside, c1, t), c0, c1, side, np.where(outside, -1, 1))
    parted = ~(within | below)
    level, sample = parted.nonzero()
    middle, size = np.array(s), np.ones_like(s)
    middle[sample], size[sample] = c0[level, sample], (c1 - c0)[level, sample]
    one = np.ones_like(middle)
    first = Rows(*(x[None] for x in np.broadcast_arrays(s, middle, middle - size, middle, one, one)))
    return rows, first, parted


def _from_start(s: Ints, t: Ints, first: int, stop: int, depth: int) -> Rows:
    """Rows of the nodes that hold s, empty where they hold t too."""
    shift, c0, c1, side = _halves(s, first, stop, depth)
    below = s >> shift + 1 != t >> shift + 1
    outside = side > 0
    p0, p1 = np.where(below & outside, c0, s), np.where(below & ~outside, c1, s)
    return Rows(p0, p1, c0, c1, side, np.where(outside, -1, 1))


def _restricted(rows: Rows, short: Floats, x0: Ints, x1: Ints, count: int) -> tuple[Floats, list[list[Floats | float]]]:
    """|X|, and X's functions on P (of length `short`) by P's own: [m][k − m] is P's m in X's k, times √(|X|/|P|)."""
    size = (x1 - x0).astype(np.float64)
    ratio = short / size
    table: list[list[Floats | float]] = [[1.0]]
    if count > 1:
        offset = ((rows.p0 - x0) + (rows.p1 - x1)) / (2.0 * size)
        table[0].append(-math.sqrt(12.0) * offset)
        table.append([ratio])
        if count > 2:
            table[0].append(math.sqrt(180.0) * (offset**2 - (1.0 - ratio**2) / 12.0))
            table[1].append(-2.0 * math.sqrt(15.0) * offset * ratio)
            table.append([ratio**2])
    return size, table


def _inner(rows: Rows, s: Ints, t: Ints, count: int) -> list[list[Floats]]:
    """∫ over P of (Q's function k) (C's function i), as [k][i]; zero where P is empty."""
    short = (rows.p1 - rows.p0).astype(np.float64)
    size_q, in_q = _restricted(rows, short, s, t, count)
    size_c, in_c = _restricted(rows, short, rows.c0, rows.c1, count)
    scale = short / np.sqrt(size_q * size_c)

    def entry(k: int, i: int) -> Floats:
        total = in_q[0][k] * in_c[0][i]
        for m in range(1, min(k, i) + 1):
            total = total + in_q[m][k - m] * in_c[m][i - m]
        return scale * total

    return [[entry(k, i) for i in range(count)] for k in range(count)]


def _added(inner: list[list[Floats]], rows: Rows, count: int) -> Floats:
    """From weights of a half's normals to weights of the node's own, `(R, k, j, 1 or B)`."""
    free, bound = midpoint(count)
    sign = rows.sign.astype(np.float64)
    both = sign * rows.side
    out = np.empty((both.shape[0], count, count, both.shape[1]))
    for j in range(count):
        own, other = both * free[j], sign * bound[j] if j < count - 1 else None
        for k, row in enumerate(inner):
            out[:, k, j] = own * row[j] if other is None else own * row[j] - other * row[j + 1]
    return out
