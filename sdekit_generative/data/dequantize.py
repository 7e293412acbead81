"""From grey levels to real numbers and back.

Notation: k a level in {0, …, L−1}; u uniform in [0, 1); y a value in [0, 1); x the same in the range the network sees.

    y = (k + u) / L,     k = ⌊L y⌋,     x = low + (high − low) y

A density p over y gives the probability of the levels: log₂ P(k) ≥ E_u log₂ p(y) + D log₂(1/L).

Reference: Theis, van den Oord, Bethge (2016), "A note on the evaluation of generative models", §3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.random import Draws, Purpose

# in float32, 255 + u must not round up to 256: the largest u that cannot changes the law by 3e-5 of a level
_LARGEST = 1.0 - 2.0**-15


def dequantise(images: Tensor, levels: int, draws: Draws, step: int = 0) -> Tensor:
    """`(k + u) / L`: uint8 `(B, C, H, W)` → float32 in [0, 1), u keyed by (seed, sample, step)."""
    u = draws.uniform(Purpose.DEQUANTISE, step, tuple(images.shape), torch.float32, images.device)
    return (images.to(torch.float32) + u.clamp_max(_LARGEST)) / levels


def quantise(y: Tensor, levels: int) -> Tensor:
    """`⌊L y⌋` held to the levels there are: floats in [0, 1] → uint8."""
    return (y * levels).floor().clamp(0, levels - 1).to(torch.uint8)


def shown(levels: Tensor, count: int) -> Tensor:
    """Levels as the brightness they stand for, `k/(L − 1)`: uint8 → floats in [0, 1]."""
    return levels.to(torch.float32) / (count - 1)


@dataclass(frozen=True)
class DataRange:
    """The interval that stands for [0, 1) inside the model: `x = low + (high − low) y`."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"data range: expected low < high, got [{self.low}, {self.high}]")

    @property
    def width(self) -> float:
        return self.high - self.low

    def enter(self, y: Tensor) -> Tensor:
        """Y in [0, 1) → x."""
        return y * self.width + self.low

    def leave(self, x: Tensor) -> Tensor:
        """X → y; values outside the range stay outside [0, 1]."""
        return (x - self.low) / self.width
