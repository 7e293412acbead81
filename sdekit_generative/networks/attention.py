"""Self-attention of every place of an image to every other."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .initialise import scaled_uniform

ROOT_HALF = math.sqrt(0.5)


class SelfAttention(nn.Module):
    """`(h + W_o softmax(q kᵀ/√d) v)/√2`, `(B, C, H, W)` → the same; q, k, v are linear in norm(h).

    heads: number of heads, d = C/heads; it must divide C.
    norm: applied to h first.
    rescale: without it, the sum is not divided by √2.
    """

    def __init__(self, channels: int, heads: int, norm: nn.Module, rescale: bool = True) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads: {heads} do not divide {channels} channels")
        self.heads, self.rescale = heads, rescale
        self.norm = norm
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = scaled_uniform(nn.Conv2d(channels, channels, 1), scale=0.0)

    def forward(self, h: Tensor) -> Tensor:
        batch, channels, height, width = h.shape
        # channels last: from (B, 3C, H, W) to (B, heads, places, d) without a copy, and back
        qkv = self.qkv(self.norm(h)).permute(0, 2, 3, 1)
        qkv = qkv.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        q, k, v = qkv.transpose(1, 3).unbind(dim=2)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        added = self.out(mixed.reshape(batch, height, width, channels).permute(0, 3, 1, 2)).add_(h)
        return added.mul_(ROOT_HALF) if self.rescale else added


def differentiable(x: Tensor, weight: Tensor) -> AbstractContextManager[object]:
    """Inside, attention can be differentiated as often as its use asks for, by x, the input of a network, and weights.

    Where gradients by both are wanted, as in sliced score matching, they may be gradients of gradients, which the fast
    kernels of attention do not have.
    """
    both = x.requires_grad and weight.requires_grad and torch.is_grad_enabled()
    return sdpa_kernel(SDPBackend.MATH) if both else nullcontext()
