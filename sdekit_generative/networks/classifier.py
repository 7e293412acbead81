"""Classifiers of noisy images, told how noisy they are, to guide a score towards a class.

Notation: x/s is the image with noise of standard deviation σ added, `(B, C, H, W)`; c = ln σ `(B,)`; logits are
`(B, classes)`. Train them on noisy images: `cross_entropy(classifier(x₀ + σ z, ln σ), y)`.

Reference: Song et al. (2021), appendix I.1; Zagoruyko, Komodakis (2016), "Wide residual networks"; Dhariwal, Nichol
(2021), §4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import SelfAttention
from .conditioning import Conditioning
from .options import check_divisible, check_positive, check_probability
from .resample import FirDown
from .residual import ACTIVATIONS, Residual, Style


def _standardised(x: Tensor) -> Tensor:
    """Every image with mean 0 and standard deviation 1, noise included, so that all noise levels look alike in size."""
    variance, mean = torch.var_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
    return (x - mean) * (variance + 1e-6).rsqrt()


@dataclass(frozen=True)
class WideResNetConfig:
    """What a noise-conditional `WideResNet` looks like. The defaults are WRN-28-10, 39M weights.

    classes     number of classes
    channels    width of the first layer; the three stages have 1, 2 and 4 times `widening` as many
    widening    10 in WRN-28-10
    blocks      residual blocks a stage; the depth is 6 blocks + 4
    dropout     probability of dropping a feature inside a block
    features, scale   of the Fourier embedding of ln σ: sines and as many cosines, spread of the frequencies

    Raises ValueError for sizes that do not fit.
    """

    classes: int = 10
    channels: int = 16
    widening: int = 10
    blocks: int = 4
    dropout: float = 0.0
    features: int = 128
    scale: float = 16.0

    def __post_init__(self) -> None:
        check_positive(classes=self.classes - 1, channels=self.channels, widening=self.widening, blocks=self.blocks)
        check_positive(features=self.features, scale=self.scale)
        check_probability("dropout", self.dropout)

    def build(self, shape: tuple[int, ...]) -> WideResNet:
        """The classifier of images `(C, H, W)`, freshly initialised by torch's global generator."""
        check_divisible(shape, 3)
        network = WideResNet(self, shape[0])
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (an overload torch does not list)
        return network


class WideBlock(nn.Module):
    """`S h + W₂ dropout(relu(norm(W₁ relu(norm(h)) + V e)))`, at half the resolution where `stride` is 2."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, embedding: int, dropout: float) -> None:
        super().__init__()
        style = Style("relu", embedding, dropout, rescale=False, init_scale=1.0)
        self.norm_in = style.norm(channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
        self.dense = nn.Linear(embedding, channels_out)
        self.norm_out = style.norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out and stride == 1
        self.skip = None if same else nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        entered = self.norm_in(h)
        inner = self.conv_in(entered).add_(self.dense(e)[:, :, None, None])
        return self.conv_out(self.dropout(self.norm_out(inner))).add_(h if self.skip is None else self.skip(entered))


class _NoisyClassifier(nn.Module):
    """What noise-conditional classifiers do with their layers, whichever these are."""

    embed: Conditioning
    enter: nn.Conv2d
    blocks: nn.ModuleList
    attention: nn.Module
    norm: nn.Module
    head: nn.Linear

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Logits `(B, classes)` at c = ln σ `(B,)`."""
        e = self.embed(c, None)
        h = self.enter(_standardised(x).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h, e)
        return self.head(self.norm(self.attention(h)).mean((2, 3)))


class WideResNet(_NoisyClassifier):
    """`(x/s, c) → logits`. See `WideResNetConfig`."""

    def __init__(self, config: WideResNetConfig, image: int) -> None:
        super().__init__()
        self.embed = Conditioning(config.features, "fourier", config.scale, F.silu)
        self.enter = nn.Conv2d(image, config.channels, 3, padding=1)
        self.blocks, width = nn.ModuleList(), config.channels
        for stage in range(3):
            wide = config.channels * config.widening * 2**stage
            for block in range(config.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.blocks.append(WideBlock(width, wide, stride, 4 * config.features, config.dropout))
                width = wide
        self.attention = nn.Identity()
        self.norm = Style("relu", 0, 0.0, False, 1.0).norm(width)
        self.head = nn.Linear(width, config.classes)


@dataclass(frozen=True)
class SmallClassifierConfig:
    """What a `SmallClassifier` looks like: the way down of a small NCSN++. 0.3M weights.

    classes      number of classes
    channels     width at full resolution
    multipliers  width at each level, as multiples of `channels`
    dropout      probability of dropping a feature inside a block

    Raises ValueError for sizes that do not fit.
    """

    classes: int = 10
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_positive(
            classes=self.classes - 1, channels=self.channels - 3, multipliers=min(self.multipliers, default=0)
        )
        check_probability("dropout", self.dropout)

    def build(self, shape: tuple[int, ...]) -> SmallClassifier:
        """The classifier of images `(C, H, W)`, freshly initialised by torch's global generator."""
        check_divisible(shape, len(self.multipliers))
        network = SmallClassifier(self, shape[0])
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (an overload torch does not list)
        return network


class SmallClassifier(_NoisyClassifier):
    """`(x/s, c) → logits`. See `SmallClassifierConfig`."""

    def __init__(self, config: SmallClassifierConfig, image: int) -> None:
        super().__init__()
        style = Style("swish", 4 * config.channels, config.dropout, rescale=True, init_scale=0.0)
        self.embed = Conditioning(config.channels, "fourier", 1.0, ACTIVATIONS["swish"])
        self.enter = nn.Conv2d(image, config.channels, 3, padding=1)
        self.blocks, width = nn.ModuleList(), config.channels
        for level, multiplier in enumerate(config.multipliers):
            wide = config.channels * multiplier
            self.blocks.append(Residual(width, wide, style))
            if level < len(config.multipliers) - 1:
                self.blocks.append(Residual(wide, wide, style, FirDown(wide)))
            width = wide
        self.attention = SelfAttention(width, 1, style.norm(width, activated=False))
        self.norm = style.norm(width)
        self.head = nn.Linear(width, config.classes)
