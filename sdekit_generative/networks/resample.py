"""Halving and doubling the resolution: by a smoothing filter (FIR), by means and repeats, or by convolutions.

Notation: k a filter of n taps that sums to 1, K = k kᵀ; ↓ keeps every second place, ↑ puts a zero after every place.

    FIR down  y = ↓(K * x)          FIR up  y = 4 K * (↑ x)

with zeros outside the image, as depthwise convolutions. [1, 3, 3, 1] is the quadratic B-spline: no aliasing to speak of.

Reference: Zhang (2019), "Making convolutional networks shift-invariant again"; Karras et al. (2020), StyleGAN2,
appendix B; Song et al. (2021), appendix H.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .initialise import scaled_uniform

Kernel = tuple[float, ...]
QUADRATIC_SPLINE: Kernel = (1.0, 3.0, 3.0, 1.0)


def fir_kernel(taps: Kernel, channels: int) -> Tensor:
    """K for each channel, `(channels, 1, n, n)`. Raises ValueError for fewer than two taps or a zero sum."""
    if len(taps) < 2 or sum(taps) == 0.0:
        raise ValueError(f"fir_kernel: expected two or more taps whose sum is not 0, got {taps}")
    k = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    k = torch.outer(k, k)
    return k.to(torch.float32).expand(channels, 1, -1, -1).contiguous(memory_format=torch.channels_last)


class _Fir(nn.Module):
    kernel: Tensor

    def __init__(self, channels: int, taps: Kernel, gain: float, turned: bool) -> None:
        super().__init__()
        self.taps = len(taps)
        kernel = gain * fir_kernel(taps, channels)
        self.register_buffer("kernel", kernel.flip(2, 3) if turned else kernel, persistent=False)


class FirDown(_Fir):
    """`(B, C, H, W)` → `(B, C, H/2, W/2)`."""

    def __init__(self, channels: int, taps: Kernel = QUADRATIC_SPLINE) -> None:
        super().__init__(channels, taps, gain=1.0, turned=True)  # conv2d correlates, whereas a filter convolves

    def forward(self, x: Tensor) -> Tensor:
        before, after = (self.taps - 1) // 2, (self.taps - 2) // 2
        return _padded_conv(x, self.kernel, None, 2, before, after, groups=len(self.kernel))


class FirUp(_Fir):
    """`(B, C, H, W)` → `(B, C, 2H, 2W)`."""

    def __init__(self, channels: int, taps: Kernel = QUADRATIC_SPLINE) -> None:
        super().__init__(channels, taps, gain=4.0, turned=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = self.taps - 2 - (self.taps - 1) // 2
        y = F.conv_transpose2d(x, self.kernel, stride=2, padding=padding, groups=len(self.kernel))
        return y[:, :, : 2 * x.shape[2], : 2 * x.shape[3]]  # an odd number of taps leaves one row too many


class MeanDown(nn.Module):
    """The mean of every square of four."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


class RepeatUp(nn.Module):
    """Every value four times."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def down(channels: int, taps: Kernel | None) -> nn.Module:
    """Half the resolution, without weights: by a filter, or by means where there is none."""
    return MeanDown() if taps is None else FirDown(channels, taps)


def up(channels: int, taps: Kernel | None) -> nn.Module:
    """Twice the resolution, without weights: by a filter, or by repeats where there is none."""
    return RepeatUp() if taps is None else FirUp(channels, taps)


class ConvDown(nn.Conv2d):
    """A 3×3 convolution at every second place, after the filter where there is one: `C_in, H, W` → `C_out, H/2, W/2`."""

    def __init__(self, channels_in: int, channels_out: int, taps: Kernel | None) -> None:
        super().__init__(channels_in, channels_out, 3, stride=2)
        scaled_uniform(self)
        self.smooth = None if taps is None else _Smooth(channels_in, taps, 1.0, len(taps) + 1)

    def forward(self, input: Tensor) -> Tensor:
        if self.smooth is None:
            return _padded_conv(input, self.weight, self.bias, 2, 0, 1)
        return super().forward(self.smooth(input))


class ConvUp(nn.Conv2d):
    """A 3×3 convolution of the image between zeros, then the filter; of the repeated image where there is none.

    `C_in, H, W` → `C_out, 2H, 2W`.
    """

    def __init__(self, channels_in: int, channels_out: int, taps: Kernel | None) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1)
        scaled_uniform(self)
        self.smooth = None if taps is None else _Smooth(channels_out, taps, 4.0, len(taps) - 1)

    def forward(self, input: Tensor) -> Tensor:
        if self.smooth is None:
            return super().forward(F.interpolate(input, scale_factor=2.0, mode="nearest"))
        # the transpose of a convolution turns the kernel round; turned beforehand, it is a convolution of ↑ x
        turned = self.weight.flip(2, 3).transpose(0, 1)
        y = self.smooth(F.conv_transpose2d(input, turned, stride=2))
        return y if self.bias is None else y + self.bias[:, None, None]


class _Smooth(_Fir):
    """The filter at full resolution; half of the zeros around the image before it, the odd one too."""

    def __init__(self, channels: int, taps: Kernel, gain: float, reach: int) -> None:
        super().__init__(channels, taps, gain, turned=True)
        self.before, self.after = reach // 2, (reach - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        return _padded_conv(x, self.kernel, None, 1, self.before, self.after, groups=len(self.kernel))


def _padded_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, before: int, after: int, groups: int = 1
) -> Tensor:
    """conv2d with zeros before and after, added by conv2d itself where they are as many."""
    if before != after:
        x, before = F.pad(x, (before, after, before, after)), 0
    return F.conv2d(x, weight, bias, stride=stride, padding=before, groups=groups)
