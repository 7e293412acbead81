"""Randomness as a value: every number is a function of (seed, purpose, sample, step), never of the batch or the order.

Two sources:

* `KeyedDraws`, which `seed=<integer>` makes. On the CPU, steps that all samples share take their words from a sequential
  generator (SFC64) that is put to the start of a stream of its own for every (seed, purpose, block of samples, chunk of
  steps) and always draws the whole block, so that sample i gets the same numbers whatever the batch around it. The size
  of a block depends on the size of one sample only.
* `CounterDraws`: Threefry throughout. Slower on the CPU unless compiled; the same numbers on every device.

`KeyedDraws` uses Threefry too on other devices than the CPU, and where samples are at steps of their own.

Words become normals two at a time, by Box and Muller's formula, and the two belong to neighbouring steps of one entry:
then a compiled solve makes both where it needs them, and no normal goes through memory.

Reference: Doty-Humphrey (2010), PractRand (SFC64); O'Neill (2014), HMC-CS-2014-0905 (how streams are told apart).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .arguments import check_integer
from .counters import GOLDEN, MASK64, Shape, counter_words, fold, mix_int, normal_pair, uniform_of


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
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        """Standard normals of the given shape, sample first."""
        ...

    def uniform(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        """Uniforms in [0, 1)."""
        ...

    def sign(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        """−1 or +1 with equal odds."""
        ...


def check_seed(seed: object, first: object) -> None:
    """Raise unless seed is an integer, and first the index of a sample."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed: expected an integer, or a source of draws such as Replay(…), got {seed!r}")
    check_integer("first: the index of a sample", first, 0)


_NORMAL, _UNIFORM = 0, 1
_BLOCK_WORDS = 8192  # large enough to hide the cost of keying, small enough for one tiny sample
_GROUP_WORDS = 1 << 18  # words that become numbers together: what they pass through stays in the cache


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
        return torch.float64 if self.dtype == torch.float64 else torch.float32


class _Stream:
    """A sequential generator of words that can be put to the start of any key's stream, and what it writes through."""

    _WARM_UP = 12  # rounds after which SFC64's author takes the state for well mixed

    def __init__(self) -> None:
        self._generator = np.random.SFC64(0)
        self._state = dict(self._generator.state)
        self._scratch: dict[torch.dtype, Tensor] = {}

    def words(self, out: np.ndarray, root: int, first: int) -> None:
        """Words for samples first … of one chunk into out, `(steps, B, size)` of 32- or 64-bit integers."""
        steps, count, size = out.shape
        samples = max(1, 1 << int(math.log2(max(1, _BLOCK_WORDS // (size * steps)))))
        drawn = self._WARM_UP + steps * samples * size * out.itemsize // 8
        low, high = first // samples, -(-(first + count) // samples)
        for block, key in zip(range(low, high), _stream_keys(root, low, high), strict=True):
            self._state["state"] = {"state": key}
            self._generator.state = self._state
            words = self._generator.random_raw(drawn)[self._WARM_UP :].view(out.dtype).reshape(steps, samples, size)
            start = block * samples - first
            if start >= 0 and start + samples <= count:
                out[:, start : start + samples] = words
            else:
                begin, end = max(0, start), min(count, start + samples)
                out[:, begin:end] = words[:, begin - start : end - start]

    def normals(self, out: Tensor, root: int, first: int) -> None:
        """Normals for samples first … of one chunk, by `normal_pair`, into out `(steps, B, size)`."""
        steps, count, size = out.shape
        if not out.numel():
            return
        word = np.dtype(np.int64 if out.dtype == torch.float64 else np.int32)
        group = max(1, _GROUP_WORDS // (steps * size))
        needed = 5 * steps // 2 * min(group, count) * size
        memory = self._scratch.get(out.dtype)
        if memory is None or memory.numel() < needed:
            self._scratch[out.dtype] = memory = torch.empty(needed, dtype=out.dtype)
        unit = 2.0 ** (1 - 8 * word.itemsize)
        for start in range(0, count, group):
            number = min(group, count - start)
            r, theta, cosine, *_ = memory[: 5 * steps // 2 * number * size].view(5, steps // 2, number, size)
            words = memory[3 * r.numel() : 5 * r.numel()].numpy().view(word).reshape(steps, number, size)
            self.words(words, root, first + start)
            drawn, into = torch.from_numpy(words), out[:, start : start + number]
            r.copy_(drawn[0::2]).abs_().add_(1.0).mul_(unit).log_().mul_(-2.0).sqrt_()
            theta.copy_(drawn[1::2]).mul_(math.pi * unit)
            torch.cos(theta, out=cosine)
            torch.mul(cosine, r, out=into[0::2])
            torch.mul(theta.sin_(), r, out=into[1::2])


def _stream_keys(root: int, low: int, high: int) -> list[np.ndarray] | np.ndarray:
    """States of SFC64 for blocks low … high − 1, each three words of key and a counter of 1."""
    if high - low <= 2:
        return [
            np.array([*(mix_int((root + (3 * block + k) * GOLDEN) & MASK64) for k in (1, 2, 3)), 1], dtype=np.uint64)
            for block in range(low, high)
        ]
    z = np.uint64(root) + np.arange(3 * low + 1, 3 * high + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    keys = np.ones((high - low, 4), dtype=np.uint64)
    keys[:, :3] = (z ^ (z >> np.uint64(31))).reshape(-1, 3)
    return keys


class KeyedDraws:
    """Numbers keyed by (seed, purpose, sample, step); row 0 of every draw is sample `first`.

    seed: any integer.  first: index of the first sample held, so that chunks of one ensemble agree with the whole.
    """

    def __init__(self, seed: int, first: int = 0) -> None:
        check_seed(seed, first)
        self.seed, self.first = int(seed), int(first)
        self._chunks: dict[_Want, tuple[int, tuple[Tensor, ...]]] = {}
        self._keys: dict[tuple[int, int, int], int] = {}
        self._stream: _Stream | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed}, first={self.first})"

    def normal(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        want = _Want(_NORMAL, purpose, part, shape, dtype, device)
        if isinstance(step, Tensor):
            return torch.where(_odd(step, shape), *reversed(normal_pair(*self._own_words(want, step)))).to(dtype)
        return self._at(want, step)

    def uniform(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        want = _Want(_UNIFORM, purpose, part, shape, dtype, device)
        if isinstance(step, Tensor):
            return uniform_of(torch.where(_odd(step, shape), *reversed(self._own_words(want, step)))).to(dtype)
        return self._at(want, step)

    def sign(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        # halves of the uniforms, so that a sign costs no source of its own
        return (self.uniform(purpose, step, shape, dtype, device, part) < 0.5).to(dtype).mul_(2).sub_(1)

    def words(
        self, purpose: Purpose, chunk: int, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        """Words `(chunk_steps, B, *shape)` of which the normals of a chunk of steps are made, by `normal_pair`."""
        return self._words(_Want(_NORMAL, purpose, part, shape, dtype, device), chunk).reshape(-1, *shape)

    def _at(self, want: _Want, step: int) -> Tensor:
        held = self._chunks.get(want)
        if held is not None:
            place = step - held[0]
            if 0 <= place < len(held[1]):
                return held[1][place]
        steps = chunk_steps(want.size)
        chunk = step // steps
        values = self._numbers(want, chunk).reshape(steps, *want.shape).to(want.dtype).unbind(0)
        self._chunks[want] = (chunk * steps, values)
        return values[step - chunk * steps]

    def _numbers(self, want: _Want, chunk: int) -> Tensor:
        """`(steps, B, size)` in float32 or float64."""
        if want.kind == _UNIFORM:
            return uniform_of(self._words(want, chunk))
        if not self._sequential(want.device):
            words = self._words(want, chunk)
            return torch.stack(normal_pair(words[0::2], words[1::2]), dim=1).flatten(0, 1)
        out = torch.empty((chunk_steps(want.size), want.shape[0], want.size), dtype=want.wide)
        self._sequence().normals(out, fold(self._key(want), chunk), self.first)
        return out

    def _words(self, want: _Want, chunk: int) -> Tensor:
        """Words `(steps, B, size)`."""
        steps, count, size = chunk_steps(want.size), want.shape[0], want.size
        if not self._sequential(want.device):
            step = torch.arange(chunk * steps, (chunk + 1) * steps, 2, device=want.device)[:, None]
            pair = counter_words(self._key(want), self.first, step, count, size, want.dtype)
            return torch.stack(pair, dim=1).flatten(0, 1)
        words = np.empty((steps, count, size), dtype=np.int64 if want.wide == torch.float64 else np.int32)
        if words.size:
            self._sequence().words(words, fold(self._key(want), chunk), self.first)
        return torch.from_numpy(words)

    def _own_words(self, want: _Want, step: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of words of samples at steps `(B,)` of their own."""
        step = step.expand(want.shape[0])
        a, b = counter_words(self._key(want), self.first, step, want.shape[0], want.size, want.dtype)
        return a.reshape(want.shape), b.reshape(want.shape)

    def _key(self, want: _Want) -> int:
        name = want[:3]
        if name not in self._keys:
            self._keys[name] = fold(self.seed, *name)
        return self._keys[name]

    def _sequence(self) -> _Stream:
        if self._stream is None:
            self._stream = _Stream()
        return self._stream

    def _sequential(self, device: torch.device) -> bool:
        """Whether words come from a sequential generator, block by block."""
        return device.type == "cpu"


class CounterDraws(KeyedDraws):
    """`KeyedDraws` made of Threefry alone: the same numbers on every device, and whether or not samples share their steps.

    Give it in place of a seed: `solve(…, seed=CounterDraws(0))`.
    """

    def _sequential(self, device: torch.device) -> bool:
        return False


def _odd(step: Tensor, shape: Shape) -> Tensor:
    """Which samples `(B, 1, …, 1)` take the second number of their pair of steps."""
    return (step % 2 == 1).reshape(-1, *(1,) * (len(shape) - 1))


class Replay:
    """Recorded numbers given back in order, purpose by purpose: for comparison with another system's run.

    `Replay({Purpose.PATH: [z0, z1, …], Purpose.CORRECTOR: […]})`; every array is used once, in the order of asking.
    """

    def __init__(self, recorded: Mapping[Purpose, Iterable[Tensor]]) -> None:
        self._queues = {purpose: deque(arrays) for purpose, arrays in recorded.items()}

    def normal(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        queue = self._queues.get(purpose)
        if not queue:
            raise ValueError(f"Replay has no recorded array left for {purpose.name} at step {step}")
        array = torch.as_tensor(queue.popleft(), dtype=dtype, device=device)
        if tuple(array.shape) != tuple(shape):
            raise ValueError(f"Replay: {purpose.name} at step {step} needs shape {shape}, recorded is {tuple(array.shape)}")
        return array

    uniform = normal
    sign = normal


def as_draws(seed: int | Draws, first: int = 0) -> Draws:
    """The source that `seed=` names: an integer makes a `KeyedDraws`, any other source is taken as it is."""
    if isinstance(seed, (int, np.integer)) or not all(hasattr(seed, name) for name in ("normal", "uniform", "sign")):
        return KeyedDraws(seed, first)  # type: ignore[arg-type]
    return seed
