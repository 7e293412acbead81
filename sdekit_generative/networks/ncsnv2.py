"""NCSNv2: a RefineNet with dilated convolutions and InstanceNorm++, of discrete noise levels.

Notation: x is the noisy image `(B, C, H, W)`, k its noise level, `(B,)`, 0 the largest:
σ_k = σ_max (σ_min/σ_max)^(k/(levels − 1)). Stages are numbered from full resolution.

Reference: Song, Ermon (2020), "Improved techniques for training score-based generative models", appendix A;
Lin, Milan, Shen, Reid (2017), "RefineNet"; Song, Ermon (2019), appendix A.2 (InstanceNorm++, there conditional).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conditioning import sigma_of
from .options import check_choice, check_divisible, check_positive
from .residual import ACTIVATIONS

Activation = Callable[..., Tensor]


@dataclass(frozen=True)
class NCSNv2Config:
    """What an `NCSNv2` looks like. The defaults are those for images below 96 pixels.

    channels               width at full resolution
    multipliers            width of each stage, as multiples of `channels`; (1, 2, 2, 4, 4) for 96 to 128 pixels,
                           (1, 2, 2, 2, 4, 4) for up to 256
    dilations              of the convolutions of each stage; every stage but the first halves the resolution if it is 1,
                           and keeps it, seeing further, if it is more. (1, 1, 1, 2, 4) and (1, 1, 1, 1, 2, 4)
    activation             "elu", "relu", "lrelu" or "swish"
    sigma_max, sigma_min, levels   the noise levels
    centered               whether images are given in [−1, 1]; if not, in [0, 1], and 2x − 1 is taken first

    Raises ValueError for options that do not exist or do not fit.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[int, ...] = (1, 1, 2, 4)
    activation: str = "elu"
    sigma_max: float = 50.0
    sigma_min: float = 0.01
    levels: int = 232
    centered: bool = False

    def __post_init__(self) -> None:
        if len(self.multipliers) != len(self.dilations) or len(self.multipliers) < 2 or self.dilations[0] != 1:
            raise ValueError(
                "multipliers and dilations: expected one of each for two or more stages, the first dilation 1, "
                f"got {self.multipliers} and {self.dilations}"
            )
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_positive(channels=self.channels - 1, sigma_max=self.sigma_max, sigma_min=self.sigma_min)
        check_positive(multipliers=min(self.multipliers), dilations=min(self.dilations), levels=self.levels - 1)

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    @property
    def halvings(self) -> int:
        """How often the resolution is halved."""
        return sum(dilation == 1 for dilation in self.dilations[1:])

    def build(self, shape: tuple[int, ...]) -> NCSNv2:
        """The network for images `(C, H, W)`, freshly initialised by torch's global generator."""
        check_divisible(shape, self.halvings + 1)
        network = NCSNv2(self, shape[0])
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (an overload torch does not list)
        return network


def _conv(channels_in: int, channels_out: int, size: int = 3, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2 * dilation, dilation=dilation, bias=bias)


class InstanceNormPlus(nn.Module):
    """`γ (norm(h) + α m) + β`: every channel normalised, and the means m it loses, normalised over channels, added back.

    Reference: Song, Ermon (2019), appendix A.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(1.0 + 0.02 * torch.randn(channels))
        self.gamma = nn.Parameter(1.0 + 0.02 * torch.randn(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor) -> Tensor:
        """`(B, C, H, W)`, C > 1."""
        variance, mean = torch.var_mean(h, dim=(2, 3), correction=0)
        spread, middle = torch.var_mean(mean, dim=1, keepdim=True)
        slope = self.gamma * (variance + 1e-5).rsqrt()
        kept = (mean - middle) * (spread + 1e-5).rsqrt()
        shift = self.beta + self.gamma * self.alpha * kept - slope * mean
        return torch.addcmul(shift[:, :, None, None], h, slope[:, :, None, None])


class MeanPooled(nn.Module):
    """A convolution and then the mean of every square of four."""

    def __init__(self, channels_in: int, channels_out: int, size: int) -> None:
        super().__init__()
        self.conv = _conv(channels_in, channels_out, size)

    def forward(self, h: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(h), 2)


class Residual(nn.Module):
    """`shortcut(h) + conv(a(norm(conv(a(norm(h))))))`, at half the resolution where a stage begins undilated."""

    def __init__(self, channels_in: int, channels_out: int, begins: bool, dilation: int, act: Activation) -> None:
        super().__init__()
        halves = begins and dilation == 1
        middle = channels_in if begins else channels_out
        self.act = act
        self.norm_in = InstanceNormPlus(channels_in)
        self.conv_in = _conv(channels_in, middle, dilation=dilation)
        self.norm_out = InstanceNormPlus(middle)
        self.conv_out = (
            MeanPooled(middle, channels_out, 3) if halves else _conv(middle, channels_out, dilation=dilation)
        )
        self.shortcut = None
        if halves:
            self.shortcut = MeanPooled(channels_in, channels_out, 1)
        elif begins or channels_in != channels_out:
            self.shortcut = _conv(channels_in, channels_out, 3 if dilation > 1 else 1, dilation)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.conv_in(self.act(self.norm_in(h)))
        inner = self.conv_out(self.act(self.norm_out(inner)))
        return inner + (h if self.shortcut is None else self.shortcut(h))


class Adapt(nn.ModuleList):
    """RefineNet's residual units: `count` times, `h + conv(a(conv(a(h))))`."""

    def __init__(self, channels: int, count: int, act: Activation) -> None:
        super().__init__(nn.ModuleList(_conv(channels, channels, bias=False) for _ in range(2)) for _ in range(count))
        self.act = act

    def forward(self, h: Tensor) -> Tensor:
        for unit in self:
            inner = h
            for conv in unit:  # pyright: ignore[reportGeneralTypeIssues] (torch does not say that it is a list)
                inner = conv(self.act(inner))
            h = inner + h
        return h


class Refine(nn.Module):
    """One step of the way back: adapt each input, bring them to one size and add them, pool in a chain, adapt."""

    def __init__(self, channels_in: list[int], channels: int, act: Activation, last: bool) -> None:
        super().__init__()
        self.act = act
        self.adapt = nn.ModuleList(Adapt(wide, 2, act) for wide in channels_in)
        self.fuse = nn.ModuleList(_conv(wide, channels) for wide in channels_in) if len(channels_in) > 1 else None
        self.chain = nn.ModuleList(_conv(channels, channels, bias=False) for _ in range(2))
        self.out = Adapt(channels, 3 if last else 1, act)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Features at the resolution of the first input."""
        adapted = [adapt(h) for adapt, h in zip(self.adapt, inputs, strict=True)]
        h = adapted[0]
        if self.fuse is not None:
            h = torch.stack(
                [
                    F.interpolate(conv(part), size=h.shape[2:], mode="bilinear", align_corners=True)
                    for conv, part in zip(self.fuse, adapted, strict=True)
                ]
            ).sum(0)
        h = path = self.act(h)
        for conv in self.chain:
            path = conv(F.max_pool2d(path, 5, stride=1, padding=2))
            h = h + path
        return self.out(h)


class NCSNv2(nn.Module):
    """`(x, k) → score`, an image of the shape of x. See `NCSNv2Config`."""

    def __init__(self, config: NCSNv2Config, image: int) -> None:
        super().__init__()
        self.config, self.act, widths = config, ACTIVATIONS[config.activation], config.widths
        self.enter = _conv(image, widths[0])
        self.norm = InstanceNormPlus(widths[0])
        self.leave = _conv(widths[0], image)
        self.down = nn.ModuleList()
        for stage, (wide, dilation) in enumerate(zip(widths, config.dilations, strict=True)):
            before = widths[max(stage - 1, 0)]
            first = Residual(before, wide, stage > 0, dilation, self.act)
            self.down.append(nn.Sequential(first, Residual(wide, wide, False, dilation, self.act)))
        self.up = nn.ModuleList()
        below: list[int] = []
        for stage in reversed(range(len(widths))):
            out = widths[max(stage - 1, 0)] if below else widths[stage]  # a lone input cannot change its width
            self.up.append(Refine([widths[stage], *below], out, self.act, last=stage == 0))
            below = [out]

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The score at noise levels k = c `(B,)`. Raises ValueError where sides cannot be halved often enough."""
        check_divisible(tuple(x.shape), self.config.halvings + 1)
        x = x.contiguous(memory_format=torch.channels_last)
        h = self.enter(x if self.config.centered else 2.0 * x - 1.0)
        made = []
        for stage in self.down:
            h = stage(h)
            made.append(h)
        below: list[Tensor] = []
        for refine in self.up:
            below = [refine([made.pop(), *below])]
        out = self.leave(self.act(self.norm(below[0])))
        return out / sigma_of(c, self.config.sigma_max, self.config.sigma_min, self.config.levels)[:, None, None, None]
