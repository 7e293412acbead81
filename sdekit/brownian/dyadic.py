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

from ..counters import node_normal
from .levy import ordered_sum
from .wavelets import Floats, Ints, Weights, weights

_BLOCK_NUMBERS = 4096  # samples × numbers in a block: some 60 levels of them stay in a core's cache
_FEW = 512  # numbers for which one sum of all levels costs less than a sum for each
_BLOCK_SAMPLES = 256  # weights of samples with times of their own take as much room
_KEPT_NUMBERS = 1 << 23  # normals kept for the next query by a whole series


class _Block:
    """Some of the samples, and the normals on the way to the last shared ends that were asked."""

    def __init__(self, keys: Tensor, count: int, size: int, depth: int, root: Tensor | None, keep: bool) -> None:
        self._keys, self._count, self._size, self._depth, self._keep = keys, count, size, depth, keep
        top = torch.zeros((1, 1), dtype=torch.int64, device=keys.device)
        self._root = self._draw(top) if root is None else root[None]
        self._kept: list[tuple[Ints, Tensor]] = []

    def sum(self, s: Ints, t: Ints, w: Weights) -> Tensor:
        """`(k, B, size)`."""
        total = self._weighed_sum(w.root, self._root)
        first, stop = w.first, w.first + len(w.start)
        z_start = self._known(s, stop) if len(w.start) else None
        z_end = self._known(t, len(w.end))
        if z_end is None:
            # down to `first` the nodes that hold s and t are the same
            common = None if z_start is None else z_start[:first]
            z_end = self._draw_path(t, 0, len(w.end), common)
        if z_start is None:
            z_start = self._draw_path(s, first, stop, None)
        else:
            self._keep_path(s, z_start)
            z_start = z_start[first:stop]
        self._keep_path(t, z_end)
        if len(w.end):
            total += self._weighed_sum(w.end, z_end[: len(w.end)])
        if len(w.start):
            total += self._weighed_sum(w.start, z_start)
        return total

    def _draw(self, nodes: Tensor) -> Tensor:
        return node_normal(self._keys, nodes.to(self._keys.device), self._count, self._size)

    def _draw_path(self, end: Ints, first: int, stop: int, common: Tensor | None) -> Tensor:
        """Normals of the nodes that hold `end`, levels first … stop − 1, of which the first ones may be known."""
        known = 0 if common is None else min(len(common), stop)
        shift = torch.arange(self._depth - first - known, self._depth - stop, -1)[:, None]
        z = self._draw((torch.from_numpy(np.ascontiguousarray(end)) >> shift) + (1 << (self._depth - shift)))
        return z if common is None else torch.cat((common[:known], z))

    def _keep_path(self, end: Ints, z: Tensor) -> None:
        """Remember the normals on the way to the last two ends asked."""
        if self._keep:
            self._kept = [(end, z), *(pair for pair in self._kept if pair[1] is not z)][:2]

    def _known(self, end: Ints, stop: int) -> Tensor | None:
        """Normals on the way to `end`, where every sample's end is one of its last two (a step taken, or refused)."""
        hits = [(e == end, z) for e, z in self._kept if len(e) == len(end) and len(z) >= stop]
        for hit, z in hits:
            if hit.all():
                return z
        if len(hits) == 2 and (hits[0][0] | hits[1][0]).all():
            n = min(len(z) for _, z in hits)
            mask = torch.from_numpy(hits[0][0])[:, None].to(self._keys.device)
            return torch.where(mask, hits[0][1][:n], hits[1][1][:n])
        return None

    def _weighed_sum(self, w: Floats, z: Tensor) -> Tensor:
        """Σ_l Σ_j w[l, k, j] z[l, j]: `(k, B, size)`, float64, added level by level.

        In two steps, product and sum: a fused one rounds otherwise where the array is too short to be vectorised.
        """
        v = torch.from_numpy(w).to(z.device)[..., None]
        if z[0].numel() > _FEW and z.is_cpu:
            total = torch.zeros((v.shape[1], *z.shape[2:]), dtype=torch.float64)
            level, term = torch.empty((2, *total.shape), dtype=torch.float64).unbind()
            columns = [zip(v[:, :, j].unbind(), z[:, j].unbind(), strict=True) for j in range(self._count)]
            for (weight, normal), *others in zip(*columns, strict=True):
                torch.mul(weight, normal, out=level)
                for weight, normal in others:
                    level.add_(torch.mul(weight, normal, out=term))
                total.add_(level)
            return total
        out = v[:, :, 0] * z[:, None, 0]
        for j in range(1, self._count):
            out += v[:, :, j] * z[:, None, j]
        if not z.is_cpu:
            return ordered_sum(out)
        return torch.from_numpy(np.add.accumulate(out.numpy(), axis=0)[-1])


class Series:
    """The series of one path on a root of 2^depth ticks, for samples with the int64 keys `(B,)`.

    count: how many of (W, H, K) the increments have.  size: numbers in one sample.
    root: the root's own normals `(count, B, size)`; None draws them.
    """

    def __init__(self, keys: Tensor, count: int, size: int, depth: int, root: Tensor | None = None) -> None:
        self.count, self.depth, batch = count, depth, len(keys)
        width = batch if keys.device.type != "cpu" else min(_BLOCK_SAMPLES, max(1, _BLOCK_NUMBERS // max(1, size)))
        keep = batch * size * count * depth * 2 <= _KEPT_NUMBERS
        self._cuts = [slice(i, min(i + width, batch)) for i in range(0, max(1, batch), width)]
        self._blocks = [
            _Block(keys[cut], count, size, depth, None if root is None else root[:, cut], keep) for cut in self._cuts
        ]

    def normals(self, s: int | Tensor, t: int | Tensor) -> Tensor:
        """The normals `(count, B, size)` of [s, t], in ticks: ints, or int64 `(B,)`, with 0 ≤ s < t ≤ 2^depth."""
        a, b = np.broadcast_arrays(*(np.array([x]) if isinstance(x, int) else x.cpu().numpy() for x in (s, t)))
        if len(self._blocks) == 1 or len(a) == 1:
            w = weights(a, b, self.depth, self.count)
            parts = [block.sum(a, b, w) for block in self._blocks]
        else:
            ends = [(a[cut], b[cut]) for cut in self._cuts]
            parts = [
                block.sum(*q, weights(*q, self.depth, self.count)) for block, q in zip(self._blocks, ends, strict=True)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
