"""Fast orthonormal transforms of the last axis, and the plane: the cosine transform by way of the FFT.

DCT-II, orthonormal:  X_k = c_k Σ_n x_n cos(π k (2n + 1) / 2N),  c_0 = √(1/N), c_k = √(2/N)

Reference: Makhoul (1980), IEEE Trans. ASSP 28(1), "A fast cosine transform in one and two dimensions".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _twist(n: int, x: Tensor) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64, device=x.device) * (math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), -angle).to(
        torch.complex128 if x.dtype == torch.float64 else torch.complex64
    )


def _weights(n: int, x: Tensor) -> Tensor:
    weights = torch.full((n,), math.sqrt(2.0 / n), dtype=x.dtype, device=x.device)
    weights[0] = math.sqrt(1.0 / n)
    return weights


def dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last axis."""
    n = x.shape[-1]
    order = torch.cat((torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0))).to(x.device)
    return (torch.fft.fft(x[..., order], dim=-1) * _twist(n, x)).real * _weights(n, x)


def idct(c: Tensor) -> Tensor:
    """The inverse of `dct`, and its adjoint."""
    n = c.shape[-1]
    order = torch.cat((torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0))).to(c.device)
    c = c / _weights(n, c)
    mirrored = torch.cat((torch.zeros_like(c[..., :1]), c[..., 1:].flip(-1)), -1)
    shuffled = torch.fft.ifft(torch.complex(c, -mirrored) * _twist(n, c).conj(), dim=-1).real
    x = torch.empty_like(c)
    x[..., order] = shuffled
    return x


def dct2(x: Tensor) -> Tensor:
    """`dct` of the last two axes."""
    return dct(dct(x).mT).mT


def idct2(c: Tensor) -> Tensor:
    """The inverse of `dct2`."""
    return idct(idct(c).mT).mT
