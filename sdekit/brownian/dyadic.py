"""A Brownian path as a series of keyed normals over dyadic nodes: any increment is a short weighted sum.

Level d has 2^d nodes of 2^(D−d) ticks; a node's heap number is 2^d + index, and the root's own normals have number 0.
The normals of a node are a function of (key of the sample, number of the node), and module `wavelets` says how much of
each an interval has. So all intervals agree with one another, in any order and however many have been asked.

Large batches are worked on in blocks of samples that fit the processor's cache; the sum over levels runs in a fixed
order, so that neither the block nor the batch shows in the result.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..random import node_normal
from .wavelets import Floats, Ints, Weights, weights

_BLOCK_NUMBERS = 512  # samples × numbers in a block: some 60 levels of them stay in a core's cache
_KEPT_NUMBERS = 1 << 23  # normals kept for the next query by a whole series


class _Block:
    """Some of the samples, and the normals on the way to the last shared ends that were asked."""

    def __init__(self, keys: Tensor, count: int, size: int, depth: int, root: Tensor | None, keep: bool) -> None:
        self._keys, self._count, self._size, self._depth, self._keep = keys, count, size, depth, keep
        self._root = self._draw(torch.zeros((1, 1), dtype=torch.int64, device=keys.device)) if root is None else root[None]
        self._kept: dict[int, Tensor] = {}

    def sum(self, s: Ints, t: Ints, w: Weights) -> Tensor:
        """`(k, B, size)`."""
        total = self._weigh(w.root, self._root)[0]
        if len(w.end):
            total += _fold(self._weigh(w.end, self._path(t, 0, len(w.end))), 0)
        if len(w.start):
            total += _fold(self._weigh(w.start, self._path(s, w.first, len(w.start))), w.first)
        return total

    def _draw(self, nodes: Tensor) -> Tensor:
        return node_normal(self._keys, nodes, self._count, self._size)

    def _path(self, end: Ints, first: int, levels: int) -> Tensor:
        """Normals `(levels, j, B, size)` of the nodes that hold `end`, from level `first`."""
        shared = len(end) == 1 and self._keep
        name = int(end[0])
        if shared and name in self._kept and len(self._kept[name]) >= first + levels:
            return self._kept[name][first : first + levels]
        shift = torch.arange(self._depth - first, self._depth - first - levels, -1)[:, None]
        nodes = (torch.from_numpy(end) >> shift) + (1 << (self._depth - shift))
        z = self._draw(nodes.to(self._keys.device))
        if shared and first == 0:
            if len(self._kept) >= 2:
                del self._kept[next(iter(self._kept))]
            self._kept[name] = z
        return z

    def _weigh(self, w: Floats, z: Tensor) -> Tensor:
        """Σ_j w[l, k, j] z[l, j]: `(l, k, B, size)`."""
        v = torch.from_numpy(w).to(z.device)[..., None]
        out = v[:, :, 0] * z[:, None, 0]
        for j in range(1, self._count):
            out.addcmul_(v[:, :, j], z[:, None, j])
        return out


class Series:
    """The series of one path on a root of 2^depth ticks, for samples with the int64 keys `(B,)`.

    count: how many of (W, H, K) the increments have.  size: numbers in one sample.
    root: the root's own normals `(count, B, size)`; None draws them.
    """

    def __init__(self, keys: Tensor, count: int, size: int, depth: int, root: Tensor | None = None) -> None:
        self.count, self.depth, batch = count, depth, len(keys)
        width = batch if keys.device.type != "cpu" else max(1, _BLOCK_NUMBERS // max(1, size))
        keep = batch * size * count * depth * 2 <= _KEPT_NUMBERS
        self._cuts = [slice(i, min(i + width, batch)) for i in range(0, max(1, batch), width)]
        self._blocks = [
            _Block(keys[cut], count, size, depth, None if root is None else root[:, cut], keep) for cut in self._cuts
        ]

    def normals(self, s: int | Tensor, t: int | Tensor) -> Tensor:
        """The normals `(count, B, size)` of [s, t], in ticks: ints, or int64 `(B,)`, with 0 ≤ s < t ≤ 2^depth."""
        a, b = (np.array([x]) if isinstance(x, int) else x.cpu().reshape(-1).numpy() for x in (s, t))
        shared = len(a) == len(b) == 1
        if shared:
            w = weights(a, b, self.depth, self.count)
        else:
            a, b = (np.ascontiguousarray(x) for x in np.broadcast_arrays(a, b))
        parts: list[Tensor] = []
        for cut, block in zip(self._cuts, self._blocks, strict=True):
            if not shared:
                w = weights(a[cut], b[cut], self.depth, self.count)
            parts.append(block.sum(a, b, w) if shared else block.sum(a[cut], b[cut], w))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _fold(x: Tensor, first: int) -> Tensor:
    """Sum over levels `first` and below, by halving 64 places: an order that depends on the levels alone."""
    if first:
        x = torch.cat((x.new_zeros((first, *x.shape[1:])), x))
    size = 64
    while size > 1:
        size //= 2
        if len(x) > size:
            head, tail = x[:size], x[size:]
            head[: len(tail)] += tail
            x = head
    return x[0]
