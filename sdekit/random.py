"""Randomness as a value: every number is a function of (seed, purpose, sample, step), never of the batch or the order.

`KeyedDraws`, which `seed=<integer>` makes, numbers the words under keys of the samples (module `counters`); they are the
same on every device, to the rounding of a logarithm and a sine.

Words become normals two at a time, and the two belong to neighbouring steps of one entry: then a compiled solve makes
both where it needs them, and no normal goes through memory. In the plain loop the normals of a chunk of steps are made
together, which is what makes a small sample's draw cheap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from .arguments import check_integer, floating
from .counters import NormalPairs, Shape, fold, mixed_keys, normal_pair, step_keys, strides, uniform_pair


class Purpose(IntEnum):
    """What a number is drawn for, so that one seed may be given to every call without drawing the same numbers twice."""

    PRIOR = 1
    PATH = 2
    BRIDGE = 3
    CORRECTOR = 4
    CHURN = 5
    PROBE = 6
    DEQUANTISE = 7
    DATA = 8
    TIME = 9
    TREE = 10
    USER = 11


class Draws(Protocol):
    """A source of keyed numbers. `step` is an int, or `(B,)` int64 where samples are at different steps."""

    def normal(
        self,
        purpose: Purpose,
        step: int | Tensor,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> Tensor:
        """Standard normals of the given shape, sample first."""
        ...

    def uniform(
        self,
        purpose: Purpose,
        step: int | Tensor,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> Tensor:
        """Uniforms in [0, 1)."""
        ...

    def sign(
        self,
        purpose: Purpose,
        step: int | Tensor,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> Tensor:
        """−1 or +1 with equal odds."""
        ...


def check_seed(seed: object, first: object) -> None:
    """Raise unless seed is an integer, and first the index of a sample."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed: expected an integer, or a source of draws such as Replay(…), got {seed!r}")
    check_integer("first: the index of a sample", first, 0)


_NORMAL, _UNIFORM = 0, 1
_AHEAD = 1 << 19  # numbers that are made ahead of their steps at most


def chunk_steps(size: int) -> int:
    """Steps in a chunk, an even number, for samples of `size` numbers: the more, the less a small sample's draw costs."""
    if size <= 16:
        return 64 if size <= 4 else 16
    return max(2, 1 << int(math.log2(256 // size))) if size <= 128 else 2


class _Want(NamedTuple):
    """Which numbers: all that must agree for two steps to come from one chunk."""

    kind: int
    purpose: Purpose
    part: int
    shape: Shape
    dtype: torch.dtype
    device: torch.device

    @property
    def size(self) -> int:
        """Numbers in a sample."""
        return math.prod(self.shape[1:])

    @property
    def wide(self) -> torch.dtype:
        """The dtype in which numbers are made: half precision is cut from single."""
        return _wide(self.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class KeyedDraws:
    """Numbers keyed by (seed, purpose, sample, step); row 0 of every draw is sample `first`.

    seed: any integer.  first: index of the first sample held, so that chunks of one ensemble agree with the whole.

    Raises TypeError or ValueError for a seed that is no integer, or a negative `first`.
    """

    def __init__(self, seed: int, first: int = 0) -> None:
        check_seed(seed, first)
        self.seed, self.first = int(seed), int(first)
        self._chunks: dict[_Want, tuple[int, tuple[Tensor, ...]]] = {}
        self._keys: dict[tuple[int, Purpose, int, int, torch.device], Tensor] = {}
        self._last_keys: dict[_Want, tuple[int, Tensor]] = {}
        self._places: dict[tuple[int, torch.device], Tensor] = {}
        self._makers: dict[tuple[torch.device, torch.dtype], NormalPairs] = {}

    def __repr__(self) -> str:
        return f"KeyedDraws(seed={self.seed}, first={self.first})"

    def normal(
        self,
        purpose: Purpose,
        step: int | Tensor,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> Tensor:
        return self._draw(_Want(_NORMAL, purpose, part, shape, dtype, device), step)

    def uniform(
        self,
        purpose: Purpose,
        step: int | Tensor,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> Tensor:
        return self._draw(_Want(_UNIFORM, purpose, part, shape, dtype, device), step)

    def sign(
        self,
        purpose: Purpose,
        step: int | Tensor,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> Tensor:
        # halves of the uniforms, so that a sign costs no source of its own
        return (self.uniform(purpose, step, shape, dtype, device, part) < 0.5).to(dtype).mul_(2).sub_(1)

    def ahead(
        self, purpose: Purpose, step: int, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> tuple[int, tuple[Tensor, ...]]:
        """A step, at or before the one that is asked, and the normals of it and those after it that are at hand."""
        want = _Want(_NORMAL, purpose, part, shape, dtype, device)
        self._draw(want, step)
        return self._chunks[want]

    def pair(
        self, purpose: Purpose, step: int, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> tuple[int, tuple[Tensor, ...]]:
        """The same of the pair of steps that share their words, and nothing more."""
        want = _Want(_NORMAL, purpose, part, shape, dtype, device)
        first = step - step % 2
        return first, self._steps(want, first, 2).reshape(2, *shape).to(dtype).unbind(0)

    def seeds(
        self,
        purpose: Purpose,
        step: int,
        count: int,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """What `normal_pair` makes the normals of `count` steps of: keys `(B, 1, …, 1)` and places `(count/2, 1, *shape)`.

        step, count: even, within one chunk.
        """
        want = _Want(_NORMAL, purpose, part, shape, dtype, device)
        chunk, place = divmod(step, chunk_steps(want.size))
        places = self._chunk_places(want)[place // 2 : (place + count) // 2]
        keys = self._chunk_keys(want, chunk)
        return keys.reshape(shape[0], *(1,) * (len(shape) - 1)), places.reshape(count // 2, 1, *shape[1:])

    def _draw(self, want: _Want, step: int | Tensor) -> Tensor:
        if isinstance(step, Tensor):
            if step.dtype != torch.int64 or step.shape not in ((), want.shape[:1]) or step.device != want.device:
                raise TypeError(
                    f"step: expected int64 ({want.shape[0]},) on {want.device}, got {step.dtype} {tuple(step.shape)} on "
                    f"{step.device}"
                )
            return self._own(want, step.expand(want.shape[0]))
        held = self._chunks.get(want)
        if held is not None:
            place = step - held[0]
            if 0 <= place < len(held[1]):
                return held[1][place]
        check_integer("step", step, 0)
        steps = chunk_steps(want.size)
        # many numbers are made for a pair of steps at a time
        count = steps if steps * math.prod(want.shape) <= _AHEAD else 2
        first = step - step % count
        values = self._steps(want, first, count).reshape(count, *want.shape).to(want.dtype).unbind(0)
        self._chunks[want] = (first, values)
        return values[step - first]

    def maker(self, device: torch.device, dtype: torch.dtype) -> NormalPairs:
        """What makes normals there, to be cut to this dtype, in memory that is used again."""
        name = (device, _wide(dtype))
        if name not in self._makers:
            self._makers[name] = NormalPairs(*name)
        return self._makers[name]

    def _steps(self, want: _Want, first: int, count: int) -> Tensor:
        """The numbers of `count` steps, within one chunk: `(count, B, size)`, float32 or float64."""
        chunk, place = divmod(first, chunk_steps(want.size))
        keys = self._chunk_keys(want, chunk)[:, None]
        places = self._chunk_places(want)[place // 2 : (place + count) // 2]
        if want.kind == _UNIFORM:
            return torch.stack(uniform_pair(keys, places, want.wide), dim=1).flatten(0, 1)
        out = torch.empty((2 * len(places), len(keys), want.size), dtype=want.wide, device=want.device)
        self.maker(want.device, want.dtype).fill(out, keys, places)
        return out

    def _own(self, want: _Want, step: Tensor) -> Tensor:
        """The numbers of samples at steps `(B,)` of their own."""
        steps = chunk_steps(want.size)
        chunk = torch.div(step, steps, rounding_mode="floor")
        keys = step_keys(self._sample_keys(want), chunk)[:, None]
        places = self._chunk_places(want)[:, 0][(step - chunk * steps) // 2]
        pair = (uniform_pair if want.kind == _UNIFORM else normal_pair)(keys, places, want.wide)
        return torch.where((step % 2 == 1)[:, None], pair[1], pair[0]).reshape(want.shape).to(want.dtype)

    def _sample_keys(self, want: _Want) -> Tensor:
        """A key `(B,)` for every sample."""
        name = (want.kind, want.purpose, want.part, want.shape[0], want.device)
        if name not in self._keys:
            key = fold(self.seed, want.kind, want.purpose, want.part)
            self._keys[name] = mixed_keys(key, self.first, want.shape[0], want.device)
        return self._keys[name]

    def _chunk_keys(self, want: _Want, chunk: int) -> Tensor:
        """A key `(B,)` for every sample's chunk of steps; that of the last chunk is kept."""
        held = self._last_keys.get(want)
        if held is None or held[0] != chunk:
            held = self._last_keys[want] = (chunk, step_keys(self._sample_keys(want), chunk))
        return held[1]

    def _chunk_places(self, want: _Want) -> Tensor:
        """The places `(pairs, 1, size)` of a chunk's pairs of words."""
        name = (want.size, want.device)
        if name not in self._places:
            pairs = chunk_steps(want.size) // 2
            number = 2 * torch.arange(pairs * want.size, device=want.device) + 1
            self._places[name] = strides(number).reshape(pairs, 1, want.size)
        return self._places[name]


class Replay:
    """Recorded numbers given back in order, purpose by purpose: for comparison with another system's run.

    `Replay({Purpose.PATH: [z0, z1, …], Purpose.CORRECTOR: […]})`; every array is used once, in the order of asking.
    """

    def __init__(self, recorded: Mapping[Purpose, Iterable[Tensor]]) -> None:
        self._queues = {purpose: deque(arrays) for purpose, arrays in recorded.items()}

    def normal(
        self,
        purpose: Purpose,
        step: int | Tensor,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        part: int = 0,
    ) -> Tensor:
        queue = self._queues.get(purpose)
        if not queue:
            raise ValueError(f"Replay has no recorded array left for {purpose.name} at step {step}")
        array = floating("Replay: recorded", queue.popleft()).to(dtype=dtype, device=device)
        if tuple(array.shape) != tuple(shape):
            raise ValueError(
                f"Replay: {purpose.name} at step {step} needs shape {shape}, recorded is {tuple(array.shape)}"
            )
        return array

    uniform = normal
    sign = normal


def as_draws(seed: int | Draws, first: int = 0) -> Draws:
    """The source that `seed=` names: an integer makes a `KeyedDraws`, any other source is taken as it is."""
    if isinstance(seed, (int, np.integer)) or not all(hasattr(seed, name) for name in ("normal", "uniform", "sign")):
        return KeyedDraws(cast(int, seed), first)  # which refuses what is neither
    return seed
