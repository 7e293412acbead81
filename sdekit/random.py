"""Randomness as a value: every number is a function of (seed, purpose, sample, step), never of the batch or the order.

Two sources stand behind `KeyedDraws`, chosen by what is asked:

* steps that all samples share: a `torch.Generator` is keyed by (seed, purpose, block of samples, chunk of steps) and
  always draws the whole block, so that sample i gets the same numbers whatever the batch around it. The size of a
  block depends on the size of one sample only.
* a step number per sample (adaptive solves): Threefry-2x32 with 20 rounds, a counter-based generator written in torch
  integer operations.

A Brownian tree asks for some hundred numbers at once, each under a node of its own; `node_normal` makes them from
words mixed twice by SplitMix64, at a tenth of Threefry's operations.

CPU generators are keyed through their whole state, since `manual_seed` keeps 32 bits only and would make collisions
likely after some 10⁵ blocks.

Reference: Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", SC11; Steele, Lea, Flood
(2014), "Fast splittable pseudorandom number generators", OOPSLA (the mixing function of the keys).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .arguments import check_integer

Shape = tuple[int, ...]


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


_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: int) -> int:
    """The finaliser of SplitMix64: a bijection of 64-bit words that looks random."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


def fold(*words: int) -> int:
    """One 64-bit key from a sequence of integers."""
    key = 0
    for word in words:
        key = _mix((key + _GOLDEN + _mix((word + _GOLDEN) & _MASK64)) & _MASK64)
    return key


# --- blocks of samples × chunks of steps, by torch.Generator -----------------------------------------------------------

_BLOCK_NUMBERS = 8192  # numbers in a block: large enough to hide the cost of keying, small enough for one tiny sample
_CHUNK_STEPS = 16


def _block_shape(size: int) -> tuple[int, int]:
    """(samples in a block, steps in a chunk) for samples of `size` numbers; powers of two."""
    steps = min(_CHUNK_STEPS, max(1, 1 << int(math.log2(max(1, _BLOCK_NUMBERS // size)))))
    samples = max(1, 1 << int(math.log2(max(1, _BLOCK_NUMBERS // (size * steps)))))
    return samples, steps


_STATE_OFFSET, _STATE_WORDS = 24, 624  # layout of a CPU generator's state: words of 32 bits, each in 8 bytes


def _key_states(keys: list[int]) -> np.ndarray:
    """Mersenne-Twister states `(len(keys), 624)` filled by SplitMix64 streams that start at the keys."""
    z = np.array(keys, dtype=np.uint64)[:, None] + np.arange(1, 313, dtype=np.uint64) * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).view(np.uint32)


class _Generator:
    """A `torch.Generator` that can be put to the start of any 64-bit key's stream."""

    def __init__(self, device: torch.device) -> None:
        self.generator = torch.Generator(device=device)
        self._on_cpu = device.type == "cpu"
        if self._on_cpu:
            self._state = self.generator.manual_seed(0).get_state()
            self._words = self._state.numpy()[_STATE_OFFSET : _STATE_OFFSET + 8 * _STATE_WORDS].view(np.uint64)

    def blocks(self, keys: list[int], shape: Shape, uniform: bool, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """One tensor a key."""
        draw = torch.rand if uniform else torch.randn
        out: list[Tensor] = []
        states = _key_states(keys) if self._on_cpu else None
        for i, key in enumerate(keys):
            if states is None:
                self.generator.manual_seed(key)
            else:
                self._words[:] = states[i]
                self.generator.set_state(self._state)
            out.append(draw(shape, dtype=dtype, device=device, generator=self.generator))
        return out


_NORMAL, _UNIFORM = 0, 1


def check_seed(seed: object, first: object) -> None:
    """Raise unless seed is an integer, and first the index of a sample."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed: expected an integer, or a source of draws such as Replay(…), got {seed!r}")
    check_integer("first: the index of a sample", first, 0)


class KeyedDraws:
    """Numbers keyed by (seed, purpose, sample, step); row 0 of every draw is sample `first`.

    seed: any integer.  first: index of the first sample held, so that chunks of one ensemble agree with the whole.
    """

    def __init__(self, seed: int, first: int = 0) -> None:
        check_seed(seed, first)
        self.seed, self.first = int(seed), int(first)
        self._chunks: dict[tuple, tuple[int, Tensor]] = {}
        self._generators: dict[torch.device, _Generator] = {}

    def __repr__(self) -> str:
        return f"KeyedDraws(seed={self.seed}, first={self.first})"

    def normal(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        if isinstance(step, Tensor):
            return counter_normal(fold(self.seed, purpose, part), self.first, step, shape, dtype)
        return self._slice(_NORMAL, purpose, step, shape, dtype, device, part)

    def uniform(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        if isinstance(step, Tensor):
            return counter_uniform(fold(self.seed, purpose, part), self.first, step, shape, dtype)
        return self._slice(_UNIFORM, purpose, step, shape, dtype, device, part)

    def sign(
        self, purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        # halves of the uniforms, so that a sign costs no source of its own
        return (self.uniform(purpose, step, shape, dtype, device, part) < 0.5).to(dtype).mul_(2).sub_(1)

    def _slice(
        self, kind: int, purpose: Purpose, step: int, shape: Shape, dtype: torch.dtype, device: torch.device, part: int
    ) -> Tensor:
        name = (kind, purpose, part, shape, dtype, device)
        held = self._chunks.get(name)
        size = math.prod(shape[1:])
        samples, steps = _block_shape(max(1, size))
        chunk = step // steps
        if held is None or held[0] != chunk:
            held = (chunk, self._chunk(kind, purpose, chunk, shape, (samples, steps, size), dtype, device, part))
            self._chunks[name] = held
        return held[1][step % steps]

    def _chunk(
        self,
        kind: int,
        purpose: Purpose,
        chunk: int,
        shape: Shape,
        block: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        part: int,
    ) -> Tensor:
        """`(steps, B, *shape)`: all whole blocks that hold samples first … first + B − 1, cut to those."""
        samples, steps, size = block
        count = shape[0]
        low, high = self.first // samples, -(-(self.first + count) // samples)
        if count == 0:
            return torch.empty((steps, *shape), dtype=dtype, device=device)
        if device not in self._generators:
            self._generators[device] = _Generator(device)
        root = fold(self.seed, kind, purpose, part, chunk)
        keys = [_mix((root + b * _GOLDEN) & _MASK64) for b in range(low, high)]
        wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        blocks = self._generators[device].blocks(keys, (steps, samples, size), kind == _UNIFORM, wide, device)
        drawn = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
        start = self.first - low * samples
        return drawn[:, start : start + count].reshape(steps, *shape).to(dtype)


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


# --- counter-based numbers -----------------------------------------------------------------------------------------------

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _int32(word: int) -> int:
    """The low 32 bits of a word as a signed integer, which is how torch adds modulo 2³²."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >= 1 << 31 else word


def _rotate(x: Tensor, bits: int) -> Tensor:
    return (x << bits) | ((x >> (32 - bits)) & ((1 << bits) - 1))


def threefry(key: tuple[Tensor | int, Tensor | int], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Threefry-2x32 with 20 rounds on int32 tensors (two's complement words). Reference: Salmon et al. (2011), §4."""
    k0, k1 = key
    if isinstance(k0, Tensor) or isinstance(k1, Tensor):
        k2: Tensor | int = k0 ^ k1 ^ _PARITY
    else:
        k2 = _int32(k0 ^ k1 ^ _PARITY)
    keys = (k0, k1, k2)
    x0, x1 = counter[0] + k0, counter[1] + k1
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = _rotate(x1, bits) ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + (group + 1)
    return x0, x1


def split_words(number: Tensor) -> tuple[Tensor, Tensor]:
    """int64 as its low and high int32 words."""
    low = number & 0xFFFFFFFF
    low = torch.where(low >= 1 << 31, low - (1 << 32), low)
    return low.to(torch.int32), (number >> 32).to(torch.int32)


def sample_keys(key: int, first: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A Threefry key `(B,)` for each of samples first … first + count − 1."""
    return threefry((_int32(key), _int32(key >> 32)), split_words(torch.arange(first, first + count, device=device)))


def _words(key: int, first: int, step: Tensor, shape: Shape, pairs: int) -> tuple[Tensor, Tensor]:
    """Random int32 words, two tensors `(B, pairs)`."""
    device = step.device
    keys = threefry(sample_keys(key, first, shape[0], device), split_words(step.expand(shape[0])))
    number = torch.arange(pairs, dtype=torch.int32, device=device)
    return threefry((keys[0][:, None], keys[1][:, None]), (number[None, :], torch.zeros_like(number)[None, :]))


def _unit(word: Tensor, dtype: torch.dtype) -> Tensor:
    """A 32-bit word as a number in (0, 1]: ((w mod 2³²) + 1) / 2³²."""
    return (word.to(torch.float64) + (2.0**31 + 1.0)).mul_(2.0**-32).to(dtype)


def box_muller(word0: Tensor, word1: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals (float64) from two random words. Reference: Box, Muller (1958)."""
    radius = torch.sqrt(-2.0 * torch.log(_unit(word0, torch.float64)))
    angle = (2.0 * math.pi) * _unit(word1, torch.float64)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def counter_normal(key: int, first: int, step: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Normals `shape` for samples that stand at their own steps `(B,)`."""
    size = math.prod(shape[1:])
    z0, z1 = box_muller(*_words(key, first, step, shape, -(-size // 2)))
    return torch.stack((z0, z1), dim=-1).reshape(shape[0], -1)[:, :size].reshape(shape).to(dtype)


def counter_uniform(key: int, first: int, step: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Uniforms in [0, 1), for samples that stand at their own steps `(B,)`."""
    size = math.prod(shape[1:])
    word, _ = _words(key, first, step, shape, size)
    # 24 bits, so that float32 cannot round up to 1
    return ((word.to(torch.int64) >> 8) + 2**23).to(dtype).mul_(2.0**-24).reshape(shape)


# --- numbers of tree nodes -------------------------------------------------------------------------------------------------


def _int64(word: int) -> int:
    """A 64-bit word as the signed integer that torch multiplies modulo 2⁶⁴."""
    word &= _MASK64
    return word - (1 << 64) if word >= 1 << 63 else word


_STRIDE = _int64(_GOLDEN)


def mix(z: Tensor) -> Tensor:
    """`_mix` on an int64 tensor, in place. Eleven operations where Threefry has 135, which is what a tree waits for."""
    z.bitwise_xor_((z >> 30).bitwise_and_((1 << 34) - 1)).mul_(_int64(0xBF58476D1CE4E5B9))
    z.bitwise_xor_((z >> 27).bitwise_and_((1 << 37) - 1)).mul_(_int64(0x94D049BB133111EB))
    return z.bitwise_xor_((z >> 31).bitwise_and_((1 << 33) - 1))


def mixed_keys(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """An int64 key `(B,)` for each of samples first … first + count − 1."""
    return mix(torch.arange(first + 1, first + count + 1, device=device) * _STRIDE + _int64(key))


def _word_normals(word: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normals, float32, from each random int64 word, by Box and Muller's formula."""
    # half a word has more bits than float32; |·| + 1 keeps the small numbers, which make the large normals
    radius = (word >> 32).to(torch.float32).abs_().add_(1.0).mul_(2.0**-31).log_().mul_(-2.0).sqrt_()
    angle = word.to(torch.int32).to(torch.float32).mul_(math.pi * 2.0**-31)
    return angle.cos().mul_(radius), angle.sin_().mul_(radius)


def node_normal(keys: Tensor, nodes: Tensor, count: int, size: int) -> Tensor:
    """Standard normals `(L, count, B, size)`, float32, of nodes `(L, 1)` or `(L, B)` under the samples' keys `(B,)`."""
    words = size if count > 1 else -(-size // 2)
    number = torch.arange(1, -(-count // 2) * words + 1, device=keys.device).reshape(-1, 1, words) * _STRIDE
    pair = _word_normals(mix(mix(keys + nodes * _STRIDE)[:, None, :, None] + number))
    if count == 1:
        return torch.cat(pair, dim=-1)[..., :size]
    return torch.stack(pair, dim=2).flatten(1, 2)[:, :count]


def step_keys(keys: Tensor, step: int | Tensor) -> Tensor:
    """Keys `(B,)` of the samples at one step, or each at its own."""
    return mix(keys + (step * _STRIDE if isinstance(step, Tensor) else _int64(step * _GOLDEN)))
