"""The parts that the compact U-Net is made of: residual blocks and resampling.

Notation: h are features `(B, C, H, W)`, e the noise embedding `(B, width)`. Where two branches are summed the sum is
divided by √2, which keeps the variance of the features where it was.

Reference: Ho, Jain, Abbeel (2020), "Denoising diffusion probabilistic models", appendix B; Song et al. (2021),
"Score-based generative modeling through stochastic differential equations", appendix H.
"""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

_ROOT_HALF = math.sqrt(0.5)

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with at most 32 groups of at least 4 channels."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 4)), channels, eps=1e-6)


def silent(layer: Layer) -> Layer:
    """The layer with its weights set to zero, so that the branch it ends begins by adding nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """`(skip(h) + conv(act((1 + scale(e)) norm(conv(act(norm(h)))) + shift(e)))) / √2`.

    `(B, C_in, H, W)` → `(B, C_out, H, W)`.
    """

    def __init__(self, channels_in: int, channels_out: int, embedding: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_in = group_norm(channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels_out)
        self.norm_out = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = silent(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.modulation(e)[:, :, None, None].chunk(2, dim=1)
        inner = self.conv_in(F.silu(self.norm_in(h)))
        inner = F.silu(shift + self.norm_out(inner) * (1 + scale))
        return (self.skip(h) + self.conv_out(self.dropout(inner))) * _ROOT_HALF


class Downsample(nn.Conv2d):
    """Half the resolution by a strided 3×3 convolution: `(B, C, H, W)` → `(B, C, ⌈H/2⌉, ⌈W/2⌉)`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """Twice the resolution by repetition and a 3×3 convolution, cropped to the size asked for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, size: tuple[int, int]) -> Tensor:
        h = F.interpolate(h, scale_factor=2.0, mode="nearest")
        return self.conv(h[:, :, : size[0], : size[1]])
