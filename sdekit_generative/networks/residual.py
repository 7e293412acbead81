"""The residual blocks of NCSN++ and DDPM, and what they are made of.

Notation: h are features `(B, C, H, W)`, e the activated noise embedding `(B, width)`; a the activation, R the resampling
(the identity in most blocks), W₁ and W₂ convolutions of 3×3, S the identity, or a 1×1 convolution where the number of
channels or the resolution changes.

    h ↦ (S(R h) + W₂ dropout(a(norm(W₁ R a(norm(h)) + V e)))) / √2

Reference: Song et al. (2021), appendix H.1 and figure 8; Brock, Donahue, Simonyan (2019), BigGAN, appendix B;
Ho, Jain, Abbeel (2020), appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import ROOT_HALF
from .initialise import scaled_uniform
from .resample import FirUp, RepeatUp

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "swish": F.silu,
    "relu": F.relu,
    "elu": F.elu,
    "lrelu": partial(F.leaky_relu, negative_slope=0.2),
}


@dataclass(frozen=True)
class Style:
    """What all blocks of one network have in common.

    activation   one of ACTIVATIONS
    embedding    width of e; 0 for a network that is not told the noise level
    dropout      probability of dropping a feature before W₂
    rescale      whether sums are divided by √2
    init_scale   of the first weights of W₂
    groups       of every norm; None for a quarter of the channels, at most 32
    """

    activation: str
    embedding: int
    dropout: float
    rescale: bool
    init_scale: float
    groups: int | None = None

    def norm(self, channels: int, activated: bool = True) -> NormAct:
        """GroupNorm with these groups, and the activation after it."""
        return NormAct(_groups(channels, self.groups), channels, ACTIVATIONS[self.activation] if activated else None)


def _groups(channels: int, wanted: int | None) -> int:
    """The number of groups, lowered to a divisor of the channels where need be."""
    most = min(max(channels // 4, 1), 32) if wanted is None else wanted
    return next(groups for groups in range(min(most, channels), 0, -1) if channels % groups == 0)


class NormAct(nn.GroupNorm):
    """GroupNorm, and an activation which takes no memory of its own where no gradient is wanted."""

    def __init__(self, groups: int, channels: int, activation: Callable[..., Tensor] | None) -> None:
        super().__init__(groups, channels, eps=1e-6)
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        h = super().forward(input)
        return h if self.activation is None else self.activation(h, inplace=not h.requires_grad)


class Residual(nn.Module):
    """One residual block, `(B, C_in, H, W)` → `(B, C_out, H', W')`.

    resample: R, without weights; None for the identity.
    """

    def __init__(self, channels_in: int, channels_out: int, style: Style, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.rescale = style.rescale
        self.norm_in = style.norm(channels_in)
        self.resample = resample
        self.conv_in = scaled_uniform(nn.Conv2d(channels_in, channels_out, 3, padding=1))
        self.dense = scaled_uniform(nn.Linear(style.embedding, channels_out)) if style.embedding else None
        self.norm_out = style.norm(channels_out)
        self.dropout = nn.Dropout(style.dropout)
        self.conv_out = scaled_uniform(nn.Conv2d(channels_out, channels_out, 3, padding=1), style.init_scale)
        same = channels_in == channels_out and resample is None
        self.skip = None if same else scaled_uniform(nn.Conv2d(channels_in, channels_out, 1))
        self.early = channels_in == channels_out and isinstance(resample, (FirUp, RepeatUp))

    def forward(self, h: Tensor, e: Tensor | None) -> Tensor:
        inner = self.norm_in(h)
        if self.resample is not None:
            inner = self.resample(inner)
        inner = self.conv_in(inner)
        if self.dense is not None and e is not None:
            inner.add_(self.dense(e)[:, :, None, None])
        inner = self.dropout(self.norm_out(inner))
        # what a convolution has just made is nobody else's, so that sums need no memory of their own
        out = self._grown(inner, h) if self.early else self.conv_out(inner).add_(self._shortcut(h))
        return out.mul_(ROOT_HALF) if self.rescale else out

    def _shortcut(self, h: Tensor) -> Tensor:
        h = h if self.resample is None else self.resample(h)
        return h if self.skip is None else self.skip(h)

    def _grown(self, inner: Tensor, h: Tensor) -> Tensor:
        """`W₂ inner + S R h` where R doubles the resolution: `R S h` is the same and cheaper, but for the bias of S."""
        skip: Any = self.skip  # there is one in every block that changes the resolution
        last: Any = self.conv_out
        resample: Any = self.resample
        out = F.conv2d(inner, last.weight, last.bias + skip.bias, padding=1)
        return out.add_(resample(F.conv2d(h, skip.weight)))
