"""A compact U-Net for images of any size: the network of the digits, and a start for one's own images.

Notation: x is the noisy image scaled to unit size `(B, C, H, W)`, c = ln σ the logarithm of its noise level `(B,)`.

Reference: Ronneberger, Fischer, Brox (2015), "U-Net"; Ho, Jain, Abbeel (2020), appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import SelfAttention, differentiable
from .blocks import Downsample, ResidualBlock, Upsample, group_norm, silent
from .conditioning import ClassEmbedding, refuse_labels
from .embeddings import NoiseEmbedding


@dataclass(frozen=True)
class UNetConfig:
    """What a `UNet` looks like.

    channels     width at full resolution
    multipliers  width at each level, as multiples of `channels`; every level halves the resolution
    blocks       residual blocks a level
    attention    levels (0 is full resolution) that have self-attention after every block
    heads        attention heads
    dropout      probability of dropping a feature inside a residual block
    classes      number of classes; 0 for a network without labels

    Raises ValueError for sizes that do not fit.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    heads: int = 1
    dropout: float = 0.0
    classes: int = 0

    def __post_init__(self) -> None:
        if self.channels < 1 or self.blocks < 1 or not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"channels, blocks and multipliers: expected 1 or more, got {self}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: expected a probability in [0, 1), got {self.dropout}")
        if self.classes < 0:
            raise ValueError(f"classes: expected 0 or more, got {self.classes}")
        if any(level not in range(len(self.multipliers)) for level in self.attention):
            raise ValueError(f"attention: expected levels from 0 to {len(self.multipliers) - 1}, got {self.attention}")

    @property
    def widths(self) -> list[int]:
        """Channels at each level."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    def build(self, shape: tuple[int, ...]) -> UNet:
        """The network for images `(C, H, W)`, freshly initialised by torch's global generator."""
        network = UNet(self, image_channels=shape[0])
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (an overload torch does not list)
        return network


def _attention(channels: int, config: UNetConfig) -> SelfAttention:
    return SelfAttention(channels, config.heads, group_norm(channels))


class _Block(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(self, config: UNetConfig, level: int, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.residual = ResidualBlock(channels_in, channels_out, embedding, config.dropout)
        self.attention = _attention(channels_out, config) if level in config.attention else nn.Identity()

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.attention(self.residual(h, e))


class _Down(nn.Module):
    """One level on the way down: blocks, then half the resolution unless it is the last. Gives all its features."""

    def __init__(self, config: UNetConfig, level: int, channels_in: int, embedding: int) -> None:
        super().__init__()
        wide, last = config.widths[level], level == len(config.widths) - 1
        entries = [channels_in] + [wide] * (config.blocks - 1)
        self.blocks = nn.ModuleList(_Block(config, level, entry, wide, embedding) for entry in entries)
        self.shrink = None if last else Downsample(wide)
        self.made = [wide] * (config.blocks + (0 if last else 1))

    def forward(self, h: Tensor, e: Tensor) -> list[Tensor]:
        made = []
        for block in self.blocks:
            h = block(h, e)
            made.append(h)
        if self.shrink is not None:
            made.append(self.shrink(h))
        return made


class _Up(nn.Module):
    """One level on the way up: blocks that each take in one feature of the way down, then twice the resolution."""

    def __init__(
        self, config: UNetConfig, level: int, channels_in: int, skips: list[int], embedding: int, grow: bool
    ) -> None:
        super().__init__()
        wide = config.widths[level]
        entries = [a + b for a, b in zip([channels_in] + [wide] * config.blocks, skips, strict=True)]
        self.blocks = nn.ModuleList(_Block(config, level, entry, wide, embedding) for entry in entries)
        self.grow = Upsample(wide) if grow else None

    def forward(self, h: Tensor, e: Tensor, skips: list[Tensor]) -> Tensor:
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), e)
        if self.grow is not None:
            h = self.grow(h, (skips[-1].shape[-2], skips[-1].shape[-1]))
        return h


class UNet(nn.Module):
    """`(x, c, labels=None) → F`, an image of the shape of x. The last layer starts at zero, so F = 0 before training."""

    def __init__(self, config: UNetConfig, image_channels: int) -> None:
        super().__init__()
        self.config = config
        widths, embedding = config.widths, 4 * config.channels
        self.embed = NoiseEmbedding(embedding)
        self.enter = nn.Conv2d(image_channels, widths[0], 3, padding=1)

        skips, width = [widths[0]], widths[0]
        self.down = nn.ModuleList()
        for level in range(len(widths)):
            down = _Down(config, level, width, embedding)
            self.down.append(down)
            skips += down.made
            width = widths[level]

        self.middle_in = ResidualBlock(width, width, embedding, config.dropout)
        self.middle_attention = _attention(width, config)
        self.middle_out = ResidualBlock(width, width, embedding, config.dropout)

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            taken = [skips.pop() for _ in range(config.blocks + 1)]
            self.up.append(_Up(config, level, width, taken, embedding, grow=level > 0))
            width = widths[level]
        self.leave_norm = group_norm(width)
        self.leave = silent(nn.Conv2d(width, image_channels, 3, padding=1))
        self.label = ClassEmbedding(config.classes, embedding) if config.classes else None

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
        e = self.embed(c)
        if self.label is not None:
            e = e + self.label(labels, len(c), c.device)
        elif labels is not None:
            refuse_labels()
        with differentiable(x, self.enter.weight):
            return self._evaluate(x, e)

    def _evaluate(self, x: Tensor, e: Tensor) -> Tensor:
        # channels last is the faster memory layout for convolutions, on CPUs and GPUs alike
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for down in self.down:
            skips += down(h, e)
            h = skips[-1]
        h = self.middle_out(self.middle_attention(self.middle_in(h, e)), e)
        for up in self.up:
            h = up(h, e, skips)
        return self.leave(F.silu(self.leave_norm(h)))
