"""Random words as functions of integers: no state, so that any number may be asked for at any time, on any device.

* `fold` and `mix` turn integers into 64-bit keys.
* Threefry-2x32 with 20 rounds gives two words of 32 bits for a key and a counter, in torch integer operations that fuse
  into one kernel where they are compiled.
* `node_normal` makes the numbers of a Brownian tree, some hundred nodes at once, from words mixed twice by SplitMix64, at
  a tenth of Threefry's operations.
* `normal_pair` is Box and Muller's formula, which turns two words into two normals.

Reference: Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", SC11; Steele, Lea, Flood
(2014), "Fast splittable pseudorandom number generators", OOPSLA (the mixing function of the keys).
"""

from __future__ import annotations

import math

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


def counter_words(key: int, first: int, step: Tensor, count: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The words of two neighbouring steps: a pair of tensors `(*step.shape, size)`, the last dimension of step the samples'.

    step: `(…, B)` or `(…, 1)` int64; steps 2j and 2j + 1 share their pair of words, of which the first is that of 2j.
    dtype: of the numbers to be made of them; words of 64 bits for float64, else of 32.
    """
    keys = sample_keys(key, first, count, step.device)
    k0, k1 = (k[..., None] for k in threefry(keys, split_words(step >> 1)))
    number = torch.arange(size, dtype=torch.int32, device=step.device)
    zero = torch.zeros_like(number)
    a0, a1 = threefry((k0, k1), (number, zero))
    if dtype != torch.float64:
        return a0, a1
    b0, b1 = threefry((k0, k1), (number, zero + 1))
    return tuple((x.to(torch.int64) << 32) | (y.to(torch.int64) & 0xFFFFFFFF) for x, y in ((a0, b0), (a1, b1)))  # type: ignore[return-value]


# --- numbers from words ------------------------------------------------------------------------------------------------


def normal_pair(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normals from two random words of 32 or 64 bits, as float32 or float64.

        r = √(−2 ln u),   u = (|a| + 1) / 2ᵏ⁻¹ in (0, 1],   θ = π b / 2ᵏ⁻¹ in [−π, π)   →   (r cos θ, r sin θ)

    Small |a| make the large normals, and floating point keeps all digits of those. Reference: Box, Muller (1958).
    """
    wide = radius.dtype == torch.int64
    unit, dtype = (2.0**-63, torch.float64) if wide else (2.0**-31, torch.float32)
    r = ((radius.to(dtype).abs() + 1.0) * unit).log().mul(-2.0).sqrt()
    theta = angle.to(dtype) * (math.pi * unit)
    return r * theta.cos(), r * theta.sin()


def uniform_of(word: Tensor) -> Tensor:
    """A number in [0, 1) from a random word, with as many bits as its dtype can hold without rounding up to 1."""
    if word.dtype == torch.int64:
        return ((word >> 11) + 2**52).to(torch.float64) * 2.0**-53
    return ((word >> 8) + 2**23).to(torch.float32) * 2.0**-24


# --- numbers of tree nodes -------------------------------------------------------------------------------------------------


def _int64(word: int) -> int:
    """A 64-bit word as the signed integer that torch multiplies modulo 2⁶⁴."""
    word &= MASK64
    return word - (1 << 64) if word >= 1 << 63 else word


_STRIDE = _int64(GOLDEN)


def mix(z: Tensor) -> Tensor:
    """`mix_int` on an int64 tensor, in place. Eleven operations where Threefry has 135, which is what a tree waits for."""
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
    return mix(keys + (step * _STRIDE if isinstance(step, Tensor) else _int64(step * GOLDEN)))
