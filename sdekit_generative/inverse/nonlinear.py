"""Operators that are not linear: phase retrieval, and quantisation as in JPEG.

Methods that only differentiate the misfit (DPS, the particle method) take them; those that need Aᵀ do not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .operator import MeasurementError, Pullback
from .transforms import dct2, idct2


class Nonlinear(ABC):
    """An operator whose derivative is found by automatic differentiation."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...

    def keep(self, y: Tensor) -> Tensor:
        return y

    def linearise(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """A(x), and the transposed derivative at x."""
        with torch.enable_grad():
            found = torch.func.vjp(self, x.detach())
        return found[0].detach(), lambda v: found[1](v)[0]


@dataclass(frozen=True)
class PhaseRetrieval(Nonlinear):
    """The amplitude `|F P x|` of the orthonormal Fourier transform of the image padded with zeros.

    oversampling  how many times the padded image is as wide and as high; 2 makes the phase recoverable in principle, up
                  to the image turned by 180°

    Raises MeasurementError unless oversampling is 1 or more.

    Reference: Fienup (1982), Applied Optics 21(15).
    """

    oversampling: float = 2.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.oversampling < math.inf:
            raise MeasurementError(f"PhaseRetrieval: oversampling is 1 or more, got {self.oversampling!r}")

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise MeasurementError(f"PhaseRetrieval: takes images (B, C, H, W), got shape {tuple(x.shape)}")
        size = [math.ceil(n * self.oversampling) for n in x.shape[-2:]]
        # a root of squares whose derivative exists at 0 too
        v = torch.fft.fft2(x, s=size, norm="ortho")
        return (v.real.square() + v.imag.square() + torch.finfo(x.dtype).tiny).sqrt()


@dataclass(frozen=True)
class Quantise(Nonlinear):
    """Cosine transforms of blocks, rounded to multiples of a step that grows with frequency, as JPEG does it.

        step_ij = step (1 + i + j),   i, j = 0 … block − 1

    `(B, C, H, W)`, in units of the image's own range. Rounding has no derivative, so the image is taken to pass through
    unchanged where a derivative is asked for (straight-through). The error is about step/√12 a coefficient: give the
    method a noise level of that size.

    Raises MeasurementError unless step > 0 and block ≥ 1.

    Reference: Wallace (1991), Commun. ACM 34(4); Bengio, Léonard, Courville (2013), arXiv 1308.3432.
    """

    step: float = 0.1
    block: int = 8

    def __post_init__(self) -> None:
        if not 0.0 < self.step < math.inf or self.block < 1:
            raise MeasurementError(
                f"Quantise: expected a positive step and block, got {self.step!r} and {self.block!r}"
            )

    def __call__(self, x: Tensor) -> Tensor:
        n = self.block
        if x.ndim != 4 or x.shape[-1] % n or x.shape[-2] % n:
            raise MeasurementError(f"Quantise: takes images (B, C, H, W) of whole blocks of {n}, got {tuple(x.shape)}")
        index = torch.arange(n, dtype=x.dtype, device=x.device)
        steps = self.step * (1.0 + index[:, None] + index)
        blocks = x.unfold(2, n, n).unfold(3, n, n)
        rounded = idct2(torch.round(dct2(blocks) / steps) * steps)
        return rounded.transpose(3, 4).reshape(x.shape)

    def linearise(self, x: Tensor) -> tuple[Tensor, Pullback]:
        return self(x), lambda v: v
