"""Eight ways to spoil a file."""

from __future__ import annotations

import random
from collections.abc import Callable


def _bit(content: bytearray, place: int, rng: random.Random) -> None:
    content[place] ^= 1 << rng.randrange(8)


def _bytes(content: bytearray, place: int, rng: random.Random) -> None:
    content[place : place + 8] = rng.randbytes(8)


def _cut(content: bytearray, place: int, rng: random.Random) -> None:
    del content[place:]


def _zeros(content: bytearray, place: int, rng: random.Random) -> None:
    content[place : place + 64] = bytes(64)


def _double(content: bytearray, place: int, rng: random.Random) -> None:
    content[place:place] = content[place : place + 100]


def _header(content: bytearray, place: int, rng: random.Random) -> None:
    content[:8] = rng.randbytes(8)


def _empty(content: bytearray, place: int, rng: random.Random) -> None:
    content.clear()


def _more(content: bytearray, place: int, rng: random.Random) -> None:
    content += rng.choice([rng.randbytes(50), bytes(content[-100:]), b"\n", bytes(content)])


MUTATORS: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    _bit,
    _bytes,
    _cut,
    _zeros,
    _double,
    _header,
    _empty,
    _more,
)


def mutated(content: bytes, rng: random.Random, way: int) -> bytes:
    """The content spoiled in one way: at any place of it, or near its beginning, where its structure is."""
    changed = bytearray(content)
    place = rng.choice([rng.randrange(len(content)), min(int(rng.expovariate(1 / 400)), len(content) - 1)])
    MUTATORS[way % len(MUTATORS)](changed, place, rng)
    return bytes(changed)
