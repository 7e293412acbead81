"""Random words as functions of integers: no state, so that any number may be asked for at any time, on any device.

* `fold` turns integers into one 64-bit key, `mixed_keys` a key and the numbers of samples into a key for each sample, and
  `step_keys` those into keys for a step, or a chunk of steps.
* Word k under a key is `mix(key + k · stride)`: SplitMix64's k-th output from a start of the key's own. Eleven integer
  operations, which fuse into one kernel with what is made of the words where they are compiled.
* `normal_pair` is Box and Muller's formula, which turns two words into two normals.

Keys are mixed twice or more, so that starts are as good as random: streams overlap as rarely as random starts in 2⁶⁴ places.

Reference: Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators", OOPSLA; Salmon, Moraes, Dror, Shaw
(2011), "Parallel random numbers: as easy as 1, 2, 3", SC11 (numbers as functions of counters).
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix_int(z: int) -> int:
    """The finaliser of SplitMix64: a bijection of 64-bit words that looks random."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def fold(*words: int) -> int:
    """One 64-bit key from a sequence of integers."""
    key = 0
    for word in words:
        key = mix_int((key + GOLDEN + mix_int((word + GOLDEN) & MASK64)) & MASK64)
    return key


# --- words ---------------------------------------------------------------------------------------------------------------


def _int64(word: int) -> int:
    """A 64-bit word as the signed integer that torch multiplies modulo 2⁶⁴."""
    word &= MASK64
    return word - (1 << 64) if word >= 1 << 63 else word


_STRIDE = _int64(GOLDEN)
_FACTORS = _int64(0xBF58476D1CE4E5B9), _int64(0x94D049BB133111EB)


_LOW_FIRST = 1 if sys.byteorder == "little" else -1
_ONE_THREAD = 1 << 15  # numbers that torch leaves to one thread
_SHIFTS = tuple(np.uint64(n) for n in (30, 27, 31))
_UNSIGNED = tuple(np.uint64(factor & MASK64) for factor in _FACTORS)


def array(z: Tensor) -> Any:
    """The array in the memory of a tensor, to be worked on in place where NumPy is the faster.

    None on other devices, in graphs and transforms, and for numbers that torch shares out to several threads.
    """
    if not z.is_cpu or torch.compiler.is_compiling() or (z.numel() > _ONE_THREAD and torch.get_num_threads() > 1):
        return None
    try:
        return z.numpy()
    except RuntimeError:  # what a transform of torch.func wraps has no memory of its own
        return None


def mix(z: Tensor, scratch: Tensor | None = None) -> Tensor:
    """`mix_int` on an int64 tensor, in place; scratch: memory of the same shape, where there is some."""
    word = array(z)
    if word is not None:
        # torch multiplies int64 a third as fast, and has no shift that fills with zeros
        word = word.view(np.uint64)
        other = np.empty_like(word) if scratch is None else scratch.numpy().view(np.uint64)
        for n, factor in zip(_SHIFTS, (*_UNSIGNED, None), strict=True):
            np.bitwise_xor(word, np.right_shift(word, n, out=other), out=word)
            if factor is not None:
                np.multiply(word, factor, out=word)
        return z
    shift = torch.bitwise_right_shift
    z.bitwise_xor_(shift(z, 30, out=scratch).bitwise_and_((1 << 34) - 1)).mul_(_FACTORS[0])
    z.bitwise_xor_(shift(z, 27, out=scratch).bitwise_and_((1 << 37) - 1)).mul_(_FACTORS[1])
    return z.bitwise_xor_(shift(z, 31, out=scratch).bitwise_and_((1 << 33) - 1))


def mixed_keys(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """An int64 key `(B,)` for each of samples first … first + count − 1."""
    return mix(torch.arange(first + 1, first + count + 1, device=device) * _STRIDE + _int64(key))


def step_keys(keys: Tensor, step: int | Tensor) -> Tensor:
    """Keys `(B,)` of the samples at one step, or each at its own."""
    return mix(keys + (step * _STRIDE if isinstance(step, Tensor) else _int64(step * GOLDEN)))


def strides(number: Tensor) -> Tensor:
    """`k · stride` for words k = 1, 2, …: what is added to a key to find the word."""
    return number * _STRIDE


def words(keys: Tensor, places: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two words for every place, given as `strides` of odd numbers: of 64 bits for float64, halves of one for the rest."""
    if dtype == torch.float64:
        return mix(keys + places), mix(keys + (places + _STRIDE))
    word = mix(keys + places)
    return word >> 32, word.to(torch.int32)


# --- numbers from words ------------------------------------------------------------------------------------------------


def _unit(dtype: torch.dtype) -> float:
    """What takes a signed word, of 64 bits for float64 and 32 for the rest, to [−1, 1)."""
    return 2.0**-63 if dtype == torch.float64 else 2.0**-31


def normal_pair(keys: Tensor, places: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two standard normals, float32 or float64, from the two `words` of every place.

        r = √(−2 ln u),   u = (|a| + 1) / 2ᵏ⁻¹ in (0, 1],   θ = π b / 2ᵏ⁻¹ in [−π, π)   →   (r cos θ, r sin θ)

    Small |a| make the large normals, and floating point keeps all digits of those. Reference: Box, Muller (1958).
    """
    a, b = words(keys, places, dtype)
    r = a.to(dtype).abs_().add_(1.0).mul_(_unit(dtype)).log_().mul_(-2.0).sqrt_()
    theta = b.to(dtype).mul_(math.pi * _unit(dtype))
    return theta.cos().mul_(r), theta.sin_().mul_(r)


class NormalPairs:
    """`normal_pair` for large tensors: everything it goes through stays in memory that is used again."""

    _AT_ONCE = 1 << 16  # places for one thread; more would leave the cache

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._words = torch.empty(0, dtype=torch.int64, device=device)
        self._numbers = torch.empty(0, dtype=dtype, device=device)
        self._places = self._words

    def fill(self, out: Tensor, keys: Tensor, places: Tensor) -> None:
        """Numbers into out, `(2 P, B, S)`, a pair to neighbours: keys `(B, 1)`, places `(P, 1, S)`."""
        if not out.numel():
            return
        pairs, size = places.shape[0], places.shape[-1]
        rows = max(1, self._AT_ONCE * torch.get_num_threads() // max(1, pairs * size))
        for start in range(0, len(keys), rows):
            part = slice(start, start + rows)
            self._part(out[:, part], keys[part], places)

    def entries(self, keys: Tensor, size: int) -> Tensor:
        """Numbers `(B, size)` under keys `(B,)`, a pair to two entries of one sample."""
        half = (size + 1) // 2
        out = torch.empty((2, len(keys), half), dtype=self._dtype, device=self._device)
        if self._places.numel() != half:
            self._places = strides(2 * torch.arange(half, device=self._device) + 1).reshape(1, 1, half)
        self.fill(out, keys[:, None], self._places)
        return torch.cat(out.unbind(), dim=1)[:, :size]

    def _part(self, out: Tensor, keys: Tensor, places: Tensor) -> None:
        shape = (len(places), len(keys), places.shape[-1])
        count = math.prod(shape)
        if self._words.numel() < 2 * count:
            self._words, self._numbers = self._words.new_empty(2 * count), self._numbers.new_empty(3 * count)
        word, scratch = self._words[: 2 * count].view(2, *shape).unbind()
        r, theta, cosine = self._numbers[: 3 * count].view(3, *shape).unbind()
        unit, wide = _unit(self._dtype), self._dtype == torch.float64
        mix(torch.add(keys, places, out=word), scratch)
        if wide:
            r.copy_(word)
            theta.copy_(mix(torch.add(keys, places + _STRIDE, out=word), scratch))
        else:
            _convert_halves(word, r, theta)
        r.abs_().add_(1.0).mul_(unit).log_().mul_(-2.0).sqrt_()
        torch.cos(theta.mul_(math.pi * unit), out=cosine)
        torch.mul(cosine, r, out=out[0::2])
        torch.mul(theta.sin_(), r, out=out[1::2])


def _convert_halves(word: Tensor, high: Tensor, low: Tensor) -> None:
    """Both signed halves of int64 words to float32."""
    if not word.numel():
        return
    halves = word.view(torch.int32).reshape(*word.shape, 2)
    for half, out in zip(halves.unbind(-1), (low, high)[::_LOW_FIRST], strict=True):
        if (there := array(out)) is not None:
            np.copyto(there, half.numpy(), casting="unsafe")  # NumPy is twice as fast where integers lie apart
        else:
            out.copy_(half)


def uniform_pair(keys: Tensor, places: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two numbers in [0, 1) from the two `words` of every place, with as many bits as cannot round up to 1."""
    bits = 53 if dtype == torch.float64 else 24
    drop = (64 if dtype == torch.float64 else 32) - bits
    a, b = (((word >> drop) + 2 ** (bits - 1)).to(dtype).mul_(2.0**-bits) for word in words(keys, places, dtype))
    return a, b


# --- numbers of tree nodes -------------------------------------------------------------------------------------------------


def _word_normals(word: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normals, float32, from each random int64 word, by Box and Muller's formula."""
    # half a word has more bits than float32; |·| + 1 keeps the small numbers, which make the large normals
    radius, angle = torch.empty((2, *word.shape), dtype=torch.float32, device=word.device).unbind()
    _convert_halves(word, radius, angle)
    radius.abs_().add_(1.0).mul_(2.0**-31).log_().mul_(-2.0).sqrt_()
    angle.mul_(math.pi * 2.0**-31)
    return angle.cos().mul_(radius), angle.sin_().mul_(radius)


def node_normal(keys: Tensor, nodes: Tensor, count: int, size: int) -> Tensor:
    """Standard normals `(L, count, B, size)`, float32, of nodes `(L, 1)` or `(L, B)` under the samples' keys `(B,)`."""
    words = size if count > 1 else -(-size // 2)
    number = torch.arange(1, -(-count // 2) * words + 1, device=keys.device).reshape(-1, 1, words) * _STRIDE
    pair = _word_normals(mix(mix(keys + nodes * _STRIDE)[:, None, :, None] + number))
    if count == 1:
        return torch.cat(pair, dim=-1)[..., :size]
    return torch.stack(pair, dim=2).flatten(1, 2)[:, :count]
