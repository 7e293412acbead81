"""Checks of what a network's configuration may say, with messages that say what to write instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class NetworkConfig(Protocol):
    """What a network looks like: a frozen record that builds it."""

    def build(self, shape: tuple[int, ...], /) -> nn.Module:
        """The network for images `(C, H, W)`, freshly initialised by torch's global generator."""
        ...


def check_choice(name: str, given: str, known: Sequence[str]) -> None:
    """Raises ValueError unless the option is one of those known."""
    if given not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {given!r}")


def check_positive(**numbers: float) -> None:
    """Raises ValueError unless every number is above zero."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name}: expected a number above 0, got {number!r}")


def check_probability(name: str, given: float) -> None:
    """Raises ValueError unless the number is in [0, 1)."""
    if not 0.0 <= given < 1.0:
        raise ValueError(f"{name}: expected a probability in [0, 1), got {given!r}")


def check_divisible(size: tuple[int, ...], levels: int) -> None:
    """Raises ValueError unless images `(…, H, W)` can be halved `levels − 1` times."""
    step = 2 ** (levels - 1)
    if any(side < step or side % step for side in size[-2:]):
        height, width = size[-2:]
        raise ValueError(
            f"images of {height} × {width} cannot be halved {levels - 1} times; "
            f"take sides that are multiples of {step}, or fewer multipliers"
        )
