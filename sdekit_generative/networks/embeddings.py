"""Embeddings of the noise level, which tell a network how noisy its input is.

Notation: σ is the noise level of x/s, c = ln σ its logarithm `(B,)`. Features are `(B, width)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Sinusoids(nn.Module):
    """Sines and cosines of a scalar at geometrically spaced wavelengths.

        c ↦ [sin(ω_i c), cos(ω_i c)],   ω_i = 2π / wavelength_i,   wavelengths from `longest` down to `shortest`

    width: number of features, even.  longest, shortest: wavelengths in units of c; e.g. ln σ spans about 12 units.
    """

    frequencies: Tensor

    def __init__(self, width: int, longest: float = 32.0, shortest: float = 0.5) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width: expected an even number of features, got {width}")
        frequencies = 2 * math.pi / torch.logspace(math.log10(longest), math.log10(shortest), width // 2)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """`(B,)` → `(B, width)`."""
        phase = c[:, None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class NoiseEmbedding(nn.Sequential):
    """What every block is given: sinusoids of c = ln σ through two dense layers, `(B,)` → `(B, width)`."""

    def __init__(self, width: int, sinusoids: int = 64) -> None:
        super().__init__(
            Sinusoids(sinusoids), nn.Linear(sinusoids, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
