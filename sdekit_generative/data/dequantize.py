"""From grey levels to real numbers and back.

Notation: k a level in {0, …, L−1}; u in [0, 1), of density q; y a value in [0, 1); x the same in the range the network
sees; D numbers an image.

    y = (k + u) / L,     k = ⌊L y⌋,     x = low + (high − low) y

A density p over y gives the probability of the levels: log₂ P(k) ≥ E_u [log₂ p(y) − log₂ q(u)] + D log₂(1/L).

Reference: Theis, van den Oord, Bethge (2016), "A note on the evaluation of generative models", §3.1; Ho et al. (2019),
"Flow++", equation 9 (any q); Zheng et al. (2023), "Improved techniques for maximum likelihood estimation for diffusion
ODEs", §4.2 (truncated normal).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdekit.arguments import check_like, floating
from sdekit.random import Draws, Purpose

from .dataset import check_images

# in float32, 255 + u must not round up to 256: the largest u that cannot changes the law by 3e-5 of a level
_LARGEST = 1.0 - 2.0**-15


def dequantise(images: Tensor, levels: int, draws: Draws, step: int = 0) -> Tensor:
    """`(k + u) / L`: uint8 `(B, C, H, W)` → float32 in [0, 1), u keyed by (seed, sample, step)."""
    check_images(images)
    u = draws.uniform(Purpose.DEQUANTISE, step, tuple(images.shape), torch.float32, images.device)
    return (images.to(torch.float32) + u.clamp_max(_LARGEST)) / levels


class Dequantisation(Protocol):
    """A law of u."""

    def __call__(self, images: Tensor, levels: int, draws: Draws, step: int = 0) -> Tensor:
        """`y = (k + u)/L`, float32 in [0, 1); images uint8 `(B, C, H, W)`, u keyed by (seed, sample, step)."""
        ...

    def log2_density(self, images: Tensor, levels: int, y: Tensor) -> Tensor:
        """log₂ q(u) of each image `(B,)`, which bits/dim of y are to be corrected by: + log₂ q(u)/D."""
        ...


@dataclass(frozen=True)
class UniformNoise:
    """u uniform: log₂ q = 0."""

    def __call__(self, images: Tensor, levels: int, draws: Draws, step: int = 0) -> Tensor:
        return dequantise(images, levels, draws, step)

    def log2_density(self, images: Tensor, levels: int, y: Tensor) -> Tensor:
        return torch.zeros(len(images), dtype=torch.float64, device=images.device)


@dataclass(frozen=True)
class TruncatedNormalNoise:
    """u normal around the middle of the level, cut to the level: what small Gaussian noise makes of whole levels.

    width: standard deviation of the normal before it is cut, in levels.

    Raises ValueError unless width is positive.
    """

    width: float = 0.25

    def __post_init__(self) -> None:
        if not self.width > 0.0:
            raise ValueError(f"width: expected a number of levels above 0, got {self.width}")

    @property
    def _tail(self) -> float:
        """The probability below the level."""
        return 0.5 * math.erfc(0.5 / self.width / math.sqrt(2.0))

    def __call__(self, images: Tensor, levels: int, draws: Draws, step: int = 0) -> Tensor:
        check_images(images)
        v = draws.uniform(Purpose.DEQUANTISE, step, tuple(images.shape), torch.float32, images.device)
        tail = self._tail
        u = 0.5 + self.width * torch.special.ndtri(tail + (1.0 - 2.0 * tail) * v.to(torch.float64))
        return (images.to(torch.float32) + u.clamp(0.0, _LARGEST).to(torch.float32)) / levels

    def log2_density(self, images: Tensor, levels: int, y: Tensor) -> Tensor:
        check_like("y", y, "images", images)
        u = y.to(torch.float64) * levels - images
        normaliser = math.log(self.width * math.sqrt(2.0 * math.pi) * (1.0 - 2.0 * self._tail))
        return (-0.5 * ((u - 0.5) / self.width).square() - normaliser).flatten(1).sum(1) / math.log(2.0)


def quantise(y: Tensor, levels: int) -> Tensor:
    """`⌊L y⌋` held to the levels there are: floats in [0, 1] → uint8."""
    return (y * levels).floor().clamp(0, levels - 1).to(torch.uint8)


def shown(levels: Tensor, count: int) -> Tensor:
    """Levels as the brightness they stand for, `k/(L − 1)`: uint8 → floats in [0, 1]."""
    return levels.to(torch.float32) / (count - 1)


@dataclass(frozen=True)
class DataRange:
    """The interval that stands for [0, 1) inside the model: `x = low + (high − low) y`.

    Raises ValueError unless low < high.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"data range: expected low < high, got [{self.low}, {self.high}]")

    @property
    def width(self) -> float:
        """The length of the range."""
        return self.high - self.low

    def enter(self, y: Tensor) -> Tensor:
        """From y in [0, 1) to x."""
        return floating("y", y) * self.width + self.low

    def leave(self, x: Tensor) -> Tensor:
        """From x to y; values outside the range stay outside [0, 1]."""
        return (floating("x", x) - self.low) / self.width
