"""Embeddings of the noise level, which tell a network how noisy its input is.

Notation: σ is the noise level of x/s, c = ln σ its logarithm `(B,)`. Features are `(B, width)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _waves(c: Tensor, frequencies: Tensor, unit: float = 1.0) -> Tensor:
    """`[sin(ω_i c), cos(ω_i c)]`, ω = unit · frequencies: `(B,)` → `(B, 2n)`.

    Raises ValueError for frequencies in half precision, which has no digits for the phases.
    """
    if frequencies.dtype in (torch.bfloat16, torch.float16):
        name = str(frequencies.dtype).removeprefix("torch.")
        raise ValueError(
            f"the network's weights are {name}, in which noise levels cannot be told apart; leave them in float32 and "
            f"evaluate under autocast: precision=torch.{name} of a ScoreModel"
        )
    phase = c[:, None].to(frequencies.dtype) * frequencies * unit
    return torch.cat([phase.sin(), phase.cos()], dim=1)


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
        return _waves(c, self.frequencies)


class RandomFourier(nn.Module):
    """Sines and cosines of random frequencies: `c ↦ [sin(2π W c), cos(2π W c)]`, W ~ N(0, scale²), never trained.

    width: number of features, even.

    Reference: Tancik et al. (2020); Song et al. (2021), appendix H.1 (of ln σ, with scale 16).
    """

    def __init__(self, width: int, scale: float = 16.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width: expected an even number of features, got {width}")
        # a parameter, so that it is kept wherever parameters are
        self.W = nn.Parameter(scale * torch.randn(width // 2), requires_grad=False)

    def forward(self, c: Tensor) -> Tensor:
        """`(B,)` → `(B, width)`."""
        return _waves(c, self.W, 2.0 * math.pi)


class Positions(nn.Module):
    """Sines and cosines of a position, or time step: wavelengths from 2π to 2π · 10⁴ in a geometric row.

        c ↦ [sin(ω_i c), cos(ω_i c)],   ω_i = 10⁻⁴ⁱ⁄⁽ʰ⁻¹⁾,   i = 0 … h − 1,   h = ⌊width/2⌋

    width: number of features, 4 or more; the last of an odd number is zero.

    Reference: Vaswani et al. (2017), §3.5; Ho, Jain, Abbeel (2020), appendix B.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 4:
            raise ValueError(f"width: expected 4 features or more, got {width}")
        half = width // 2
        self.width = width
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """`(B,)` → `(B, width)`."""
        return nn.functional.pad(_waves(c, self.frequencies), (0, self.width % 2))


class NoiseEmbedding(nn.Sequential):
    """What every block is given: sinusoids of c = ln σ through two dense layers, `(B,)` → `(B, width)`."""

    def __init__(self, width: int, sinusoids: int = 64) -> None:
        super().__init__(
            Sinusoids(sinusoids), nn.Linear(sinusoids, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
