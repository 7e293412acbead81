"""NCSN++, DDPM++ and DDPM: one U-Net and its options.

    config = NCSNppConfig(channels=128, multipliers=(1, 2, 2, 2), blocks=4)
    network = config.build((3, 32, 32))
    network(x, c)                      # x (B, 3, 32, 32), c (B,)
    network(x, c, labels)              # where config.classes > 0

Notation: x is the noisy image `(B, C, H, W)`; c tells the noise level, `(B,)`: ln σ with the Fourier embedding, the
position (time step) with the positional one. Levels are numbered from full resolution, each half of the one before.

Reference: Song et al. (2021), "Score-based generative modeling through stochastic differential equations", appendix H;
Ho, Jain, Abbeel (2020), "Denoising diffusion probabilistic models", appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import ROOT_HALF, SelfAttention, differentiable
from .conditioning import Conditioning, sigma_of
from .initialise import scaled_uniform
from .options import check_choice, check_divisible, check_positive, check_probability
from .resample import QUADRATIC_SPLINE, ConvDown, ConvUp, Kernel, down, up
from .residual import ACTIVATIONS, NormAct, Residual, Style


@dataclass(frozen=True)
class NCSNppConfig:
    """What an `NCSNpp` looks like. The defaults are NCSN++ for CIFAR-10 with a continuous VE process, 62.8M weights.

    channels                 width of the first layer
    multipliers              width at each level, as multiples of `channels`
    blocks                   residual blocks a level; 8 for the deep variants
    attention_resolutions    heights at which every block is followed by self-attention
    dropout                  probability of dropping a feature inside a residual block
    activation               "swish", "relu", "elu" or "lrelu"
    embedding                "fourier" (of c = ln σ) or "positional" (of a time step)
    fourier_scale            standard deviation of the Fourier frequencies
    conditional              whether the network is told the noise level at all
    residual                 "biggan" blocks, which resample inside, or "ddpm" blocks with resampling between them
    fir, fir_kernel          whether resampling filters, and with which taps
    resample_with_conv       whether the resampling between DDPM blocks is a convolution
    skip_rescale             whether sums are divided by √2
    progressive              the output: "none", "output_skip" (images of all levels added up) or "residual"
    progressive_input        the input to lower levels: "none", "input_skip" (shrunken images) or "residual"
    progressive_combine      how "input_skip" joins: "sum" or "cat"
    init_scale               of the first weights of the last layer of every branch; 0 for silence
    groups                   of every norm; None for a quarter of the channels, at most 32
    scale_by_sigma           whether the output is divided by σ, so that it is the score
    sigma_max, sigma_min, levels   σ of a position, where that is what c is: σ_max (σ_min/σ_max)^(⌊c⌋/(levels − 1))
    centered                 whether images are given in [−1, 1]; if not, in [0, 1], and 2x − 1 is taken first
    classes                  number of classes; 0 for a network without labels
    checkpoint               whether training keeps only the inputs of blocks and computes the rest again: slower by a
                             third, in a fraction of the memory

    Raises ValueError for options that do not exist or do not fit.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    activation: str = "swish"
    embedding: str = "fourier"
    fourier_scale: float = 16.0
    conditional: bool = True
    residual: str = "biggan"
    fir: bool = True
    fir_kernel: Kernel = QUADRATIC_SPLINE
    resample_with_conv: bool = True
    skip_rescale: bool = True
    progressive: str = "none"
    progressive_input: str = "residual"
    progressive_combine: str = "sum"
    init_scale: float = 0.0
    groups: int | None = None
    scale_by_sigma: bool = True
    sigma_max: float = 50.0
    sigma_min: float = 0.01
    levels: int = 1000
    centered: bool = True
    classes: int = 0
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.channels < 4 or self.blocks < 1 or not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"channels: expected 4 or more, blocks and multipliers: 1 or more, got {self}")
        check_probability("dropout", self.dropout)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_choice("embedding", self.embedding, ("fourier", "positional"))
        check_choice("residual", self.residual, ("biggan", "ddpm"))
        check_choice("progressive", self.progressive, ("none", "output_skip", "residual"))
        check_choice("progressive_input", self.progressive_input, ("none", "input_skip", "residual"))
        check_choice("progressive_combine", self.progressive_combine, ("sum", "cat"))
        check_positive(sigma_max=self.sigma_max, sigma_min=self.sigma_min, levels=self.levels - 1)
        if self.classes < 0 or self.init_scale < 0:
            raise ValueError(f"classes and init_scale: expected 0 or more, got {self.classes} and {self.init_scale}")

    @property
    def widths(self) -> list[int]:
        """Channels at each level."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    @property
    def taps(self) -> Kernel | None:
        """The filter of the resampling, if there is one."""
        return self.fir_kernel if self.fir else None

    @property
    def style(self) -> Style:
        """What all residual blocks have in common."""
        width = 4 * self.channels if self.conditional or self.classes else 0
        return Style(self.activation, width, self.dropout, self.skip_rescale, self.init_scale, self.groups)

    def build(self, shape: tuple[int, ...]) -> NCSNpp:
        """The network for images `(C, H, W)`, freshly initialised by torch's global generator.

        Raises ValueError where H or W cannot be halved often enough.
        """
        check_divisible(shape, len(self.multipliers))
        network = NCSNpp(self, shape)
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (an overload torch does not list)
        return network


@dataclass(frozen=True)
class DDPMppConfig(NCSNppConfig):
    """DDPM++: NCSN++ without filters and progressive input, told the time step. For VP and sub-VP; 61.8M weights.

    Reference: Song et al. (2021), appendix H.2.
    """

    embedding: str = "positional"
    fir: bool = False
    progressive_input: str = "none"
    scale_by_sigma: bool = False


@dataclass(frozen=True)
class DDPMConfig(DDPMppConfig):
    """DDPM: plain sums, resampling between blocks, 32 groups. The defaults are those for CIFAR-10, 35.2M weights.

    Reference: Ho, Jain, Abbeel (2020), appendix B.
    """

    blocks: int = 2
    residual: str = "ddpm"
    skip_rescale: bool = False
    groups: int | None = 32


# --- levels -----------------------------------------------------------------------------------------------------------

Run = Callable[..., Tensor]
"""Calls a block with its inputs, perhaps under checkpointing."""


def _attention(config: NCSNppConfig, channels: int) -> SelfAttention:
    attention = SelfAttention(channels, 1, config.style.norm(channels, activated=False), config.skip_rescale)
    scaled_uniform(attention.qkv, scale=0.1, parts=3)
    scaled_uniform(attention.out, config.init_scale)
    return attention


def _join(made: Tensor, h: Tensor, rescale: bool) -> Tensor:
    """Their sum, in the memory of what a convolution has just made."""
    return made.add_(h).mul_(ROOT_HALF) if rescale else made.add_(h)


class Combine(nn.Module):
    """The shrunken image, through a 1×1 convolution, added to the features or set before them."""

    def __init__(self, channels_image: int, channels: int, how: str) -> None:
        super().__init__()
        self.cat = how == "cat"
        self.conv = scaled_uniform(nn.Conv2d(channels_image, channels, 1))

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        image = self.conv(image)
        return torch.cat([image, h], dim=1) if self.cat else image.add_(h)


class Down(nn.Module):
    """One level on the way down: blocks, then half the resolution unless it is the last. Gives all its features."""

    def __init__(self, config: NCSNppConfig, level: int, channels_in: int, pyramid: int, attend: bool) -> None:
        super().__init__()
        wide, style = config.widths[level], config.style
        entries = [channels_in] + [wide] * (config.blocks - 1)
        self.rescale = config.skip_rescale
        self.blocks = nn.ModuleList(Residual(entry, wide, style) for entry in entries)
        self.attention = nn.ModuleList(_attention(config, wide) for _ in entries) if attend else None
        self.shrink, self.enter, self.made = None, None, [wide] * config.blocks
        if level == len(config.widths) - 1:
            return
        self.shrink = (
            Residual(wide, wide, style, down(wide, config.taps))
            if config.residual == "biggan"
            else (ConvDown(wide, wide, config.taps) if config.resample_with_conv else down(wide, config.taps))
        )
        last = wide
        if config.progressive_input == "input_skip":
            self.enter = Combine(pyramid, wide, config.progressive_combine)
            last = 2 * wide if self.enter.cat else wide
        elif config.progressive_input == "residual":
            self.enter = ConvDown(pyramid, wide, config.taps)
        self.made.append(last)

    def forward(
        self, h: Tensor, e: Tensor | None, image: Tensor | None, run: Run
    ) -> tuple[list[Tensor], Tensor | None]:
        """Features made here, and the shrunken image of progressive input."""
        made = []
        for i, block in enumerate(self.blocks):
            h = run(block, h, e)
            if self.attention is not None:
                h = self.attention[i](h)
            made.append(h)
        if self.shrink is not None:
            h = run(self.shrink, h, e) if isinstance(self.shrink, Residual) else self.shrink(h)
            if isinstance(self.enter, Combine):
                h = self.enter(image, h)
            elif self.enter is not None:
                h = image = _join(self.enter(image), h, self.rescale)
            made.append(h)
        return made, image


class Leave(nn.Sequential):
    """norm, activation, 3×3 convolution."""

    def __init__(self, norm: NormAct, channels_in: int, channels_out: int, scale: float) -> None:
        super().__init__(norm, scaled_uniform(nn.Conv2d(channels_in, channels_out, 3, padding=1), scale))


class Up(nn.Module):
    """One level on the way up: blocks that each take in one feature of the way down, then twice the resolution."""

    def __init__(
        self, config: NCSNppConfig, level: int, channels_in: int, skips: list[int], image: int, attend: bool
    ) -> None:
        super().__init__()
        wide, style = config.widths[level], config.style
        entries = [a + b for a, b in zip([channels_in] + [wide] * config.blocks, skips, strict=True)]
        self.rescale = config.skip_rescale
        self.blocks = nn.ModuleList(Residual(entry, wide, style) for entry in entries)
        self.attention = _attention(config, wide) if attend else None
        lowest = level == len(config.widths) - 1
        self.leave = None
        if config.progressive == "output_skip":
            self.leave = Leave(style.norm(wide), wide, image, config.init_scale)
        elif config.progressive == "residual" and lowest:
            self.leave = Leave(style.norm(wide), wide, wide, 1.0)
        elif config.progressive == "residual":
            self.leave = ConvUp(config.widths[level + 1], wide, config.taps)
        self.grow = None
        if level > 0 and config.residual == "biggan":
            self.grow = Residual(wide, wide, style, up(wide, config.taps))
        elif level > 0:
            self.grow = ConvUp(wide, wide, config.taps) if config.resample_with_conv else up(wide, config.taps)
        self.enlarge = up(image, config.taps) if config.progressive == "output_skip" and not lowest else None

    def forward(
        self, h: Tensor, e: Tensor | None, skips: list[Tensor], image: Tensor | None, run: Run
    ) -> tuple[Tensor, Tensor | None]:
        """Features, and the image of progressive output so far."""
        for block in self.blocks:
            h = run(block, torch.cat([h, skips.pop()], dim=1), e)
        if self.attention is not None:
            h = self.attention(h)
        if isinstance(self.leave, ConvUp):
            h = image = _join(self.leave(image), h, self.rescale)
        elif self.leave is not None:
            added = self.leave(h)
            image = added if self.enlarge is None else added.add_(self.enlarge(image))
        if self.grow is not None:
            h = run(self.grow, h, e) if isinstance(self.grow, Residual) else self.grow(h)
        return h, image


# --- the network ------------------------------------------------------------------------------------------------------


class NCSNpp(nn.Module):
    """`(x, c, labels=None) → F`, an image of the shape of x. See `NCSNppConfig`."""

    def __init__(self, config: NCSNppConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.config, image = config, shape[0]
        widths, style = config.widths, config.style
        attend = [(shape[1] >> level) in config.attention_resolutions for level in range(len(widths))]
        self.embed = Conditioning(
            config.channels,
            config.embedding if config.conditional else None,
            config.fourier_scale,
            ACTIVATIONS[config.activation],
            config.classes,
        )
        self.enter = scaled_uniform(nn.Conv2d(image, config.channels, 3, padding=1))
        self.shrink_image = down(image, config.taps) if config.progressive_input == "input_skip" else None

        skips, pyramid = [config.channels], image
        self.down = nn.ModuleList()
        for level in range(len(widths)):
            part = Down(config, level, skips[-1], pyramid, attend[level])
            self.down.append(part)
            skips += part.made
            if config.progressive_input == "residual":
                pyramid = widths[level]

        width = skips[-1]
        self.middle_in = Residual(width, width, style)
        self.middle_attention = _attention(config, width)
        self.middle_out = Residual(width, width, style)

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            taken = [skips.pop() for _ in range(config.blocks + 1)]
            self.up.append(Up(config, level, width, taken, image, attend[level]))
            width = widths[level]
        gathers = config.progressive == "output_skip"
        self.leave = None if gathers else Leave(style.norm(width), width, image, config.init_scale)

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
        """The output at noise levels c `(B,)`; labels are classes `(B,)`, int64, −1 for none.

        Raises ValueError for images whose sides cannot be halved often enough, or labels that do not fit.
        """
        check_divisible(tuple(x.shape), len(self.down))
        with differentiable(x, self.enter.weight):
            out = self._evaluate(x, self.embed(c, labels))
        return out / self._sigma(c)[:, None, None, None] if self.config.scale_by_sigma else out

    def _evaluate(self, x: Tensor, e: Tensor | None) -> Tensor:
        # channels last is the faster memory layout for convolutions, on CPUs and GPUs alike
        x = x.contiguous(memory_format=torch.channels_last)
        x = x if self.config.centered else 2.0 * x - 1.0
        h, image, skips = self.enter(x), x, []
        skips.append(h)
        for part in self.down:
            if self.shrink_image is not None and part.shrink is not None:
                image = self.shrink_image(image)
            made, image = part(h, e, image, self._run)
            skips += made
            h = made[-1]
        h = self._run(self.middle_in, h, e)
        h = self._run(self.middle_out, self.middle_attention(h), e)
        image = None
        for part in self.up:
            h, image = part(h, e, skips, image, self._run)
        out: Any = image if self.leave is None else self.leave(h)
        return out

    def _run(self, block: nn.Module, h: Tensor, e: Tensor | None) -> Tensor:
        if self.config.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, h, e, use_reentrant=False)
        return block(h, e)

    def _sigma(self, c: Tensor) -> Tensor:
        if self.config.embedding == "fourier":
            return c.exp()
        return sigma_of(c, self.config.sigma_max, self.config.sigma_min, self.config.levels)
