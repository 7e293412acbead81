"""Linear operators on the entries and channels of an image: masks, colours, random projections.

Notation as in `operator`. Every one works on `(B, C, H, W)` and, where it says so, on any shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdekit.arguments import floating
from sdekit.random import KeyedDraws, Purpose

from .operator import SVD, Linear, MeasurementError
from .transforms import dct, idct


def _itself(v: Tensor) -> Tensor:
    return v


@dataclass(frozen=True, eq=False)
class Inpaint(Linear):
    """Keeps the entries where the mask is 1 (or True) and sets the others to 0. Any shape.

    mask  0 or 1, of the shape of one image, or one that broadcasts to it: `(H, W)`, `(1, H, W)`, `(C, H, W)`, `(D,)`

    What an observation holds where the mask is 0 is never looked at; it may be NaN.

    Raises MeasurementError for a mask that holds other values, or leaves nothing to be seen.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        mask = floating("Inpaint: mask", self.mask)
        if mask.ndim == 0 or not bool(((mask == 0) | (mask == 1)).all()):
            raise MeasurementError(
                "Inpaint: a mask holds 0 where a pixel is missing and 1 where it is known, nothing else; got "
                f"shape {tuple(mask.shape)} with values from {float(mask.min()):.3g} to {float(mask.max()):.3g}"
            )
        if not bool(mask.any()):
            raise MeasurementError("Inpaint: the mask leaves nothing to be seen")
        object.__setattr__(self, "mask", mask.bool())

    def _fitting(self, x: Tensor) -> Tensor:
        try:
            fits = torch.broadcast_shapes(self.mask.shape, x.shape[1:]) == x.shape[1:]
        except RuntimeError:
            fits = False
        if not fits:
            raise MeasurementError(
                f"Inpaint: a mask of shape {tuple(self.mask.shape)} does not fit images of shape {tuple(x.shape[1:])}"
            )
        return self.mask.to(x.device)

    def keep(self, y: Tensor) -> Tensor:
        return torch.where(self._fitting(y), y, torch.zeros_like(y))

    def forward(self, x: Tensor) -> Tensor:
        return self.keep(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.keep(y)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.keep(y)

    def svd(self, y: Tensor) -> SVD:
        return SVD(self._fitting(y).to(y), _itself, _itself)


@dataclass(frozen=True, eq=False)
class MixChannels(Linear):
    """A matrix `(K, C)` on dimension 1: `(B, C, …) -> (B, K, …)`, every pixel alike. Any shape.

    For flat states `(B, D)` that is a matrix on the whole state.

    Raises MeasurementError for what is no matrix.
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        matrix = floating("MixChannels: matrix", self.matrix).to(torch.float64)
        if matrix.ndim != 2:
            raise MeasurementError(f"MixChannels: expected a matrix (K, C), got shape {tuple(matrix.shape)}")
        object.__setattr__(self, "matrix", matrix)

    def _mix(self, matrix: Tensor, x: Tensor) -> Tensor:
        if x.shape[1] != matrix.shape[1]:
            raise MeasurementError(f"MixChannels: takes {matrix.shape[1]} channels, got {x.shape[1]}")
        return torch.einsum("kc,bc...->bk...", matrix.to(x), x)

    def forward(self, x: Tensor) -> Tensor:
        return self._mix(self.matrix, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._mix(self.matrix.mT, y)

    def svd(self, y: Tensor) -> SVD:
        squares, left = torch.linalg.eigh(self.matrix @ self.matrix.mT)
        values = squares.clamp_min(0.0).sqrt().to(y).reshape(-1, *(1,) * (y.ndim - 2))
        return SVD(values, lambda v: self._mix(left.mT, v), lambda c: self._mix(left, c))


def Colorize(weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)) -> MixChannels:  # an operator, named as one
    """Sees the grey image `Σ_c weight_c x_c` of a colour image; its restoration is colourisation.

    weights: one a channel; the mean by default, (0.299, 0.587, 0.114) for luma as ITU-R BT.601 has it.
    """
    return MixChannels(torch.tensor([weights], dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class CompressedSensing(Linear):
    """M random rows of a fast orthonormal transform: `y = P C S x`. Any shape, seen as D numbers.

    S flips signs at random, C is the cosine transform, P picks M rows, so that A Aᵀ = 1.

    shape     of one image
    fraction  M/D, in (0, 1]
    seed      of signs and rows

    Raises MeasurementError for a fraction outside (0, 1].

    Reference: Do, Gan, Nguyen, Tran (2012), IEEE Trans. Signal Process. 60(1), structurally random matrices.
    """

    shape: tuple[int, ...]
    fraction: float = 0.25
    seed: int = 0
    _rows: Tensor = field(init=False, repr=False)
    _signs: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise MeasurementError(f"CompressedSensing: fraction is in (0, 1], got {self.fraction!r}")
        size = math.prod(self.shape)
        draws, where = KeyedDraws(self.seed), torch.device("cpu")
        rows = draws.uniform(Purpose.USER, 0, (size,), torch.float64, where).argsort()
        signs = draws.sign(Purpose.USER, 0, (size,), torch.float64, where, part=1)
        object.__setattr__(self, "_rows", rows[: max(1, round(size * self.fraction))].sort().values)
        object.__setattr__(self, "_signs", signs)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != torch.Size(self.shape):
            raise MeasurementError(
                f"CompressedSensing: made for images of shape {tuple(self.shape)}, got {tuple(x.shape[1:])}"
            )
        return dct(x.flatten(1) * self._signs.to(x))[:, self._rows.to(x.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        spread = y.new_zeros((len(y), len(self._signs)))
        spread[:, self._rows.to(y.device)] = y
        return (idct(spread) * self._signs.to(y)).reshape(-1, *self.shape)

    def svd(self, y: Tensor) -> SVD:
        return SVD(torch.ones((), dtype=y.dtype, device=y.device), _itself, _itself)


@dataclass(frozen=True, eq=False)
class MRI(Linear):
    """Single-coil magnetic resonance: the orthonormal two-dimensional Fourier transform of a real image, at the
    frequencies where the mask is 1. `(B, C, H, W) -> (B, 2C, H, W)`: real parts, then imaginary parts, 0 elsewhere.

    mask  `(H, W)`, 0 or 1, in the order of `torch.fft.fft2` (frequency 0 first); `mri_mask` makes one

    A real image's values at k and −k are conjugate, so a mask that holds both has measured the same twice: A Aᵀ has
    eigenvalues 1 and 0 on such pairs, ½ on frequencies without their partner.

    Raises MeasurementError for a mask that is not (H, W) of 0 and 1, or measures nothing.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        mask = torch.as_tensor(self.mask)
        if mask.ndim != 2 or not bool(((mask == 0) | (mask == 1)).all()) or not bool(mask.any()):
            raise MeasurementError("MRI: a mask is (H, W) of 0 and 1, with at least one frequency measured")
        object.__setattr__(self, "mask", mask.bool())

    def _check(self, x: Tensor) -> None:
        if x.shape[-2:] != self.mask.shape or x.ndim != 4:
            raise MeasurementError(
                f"MRI: a mask of shape {tuple(self.mask.shape)} does not fit images of shape {tuple(x.shape[1:])}"
            )

    def keep(self, y: Tensor) -> Tensor:
        self._check(y)
        return torch.where(self.mask.to(y.device), y, torch.zeros_like(y))

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        return self.keep(_as_real(torch.fft.fft2(x, norm="ortho")))

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.ifft2(_as_complex(self.keep(y)), norm="ortho").real

    def svd(self, y: Tensor) -> SVD:
        mask = self.mask.to(y.device)
        both = (mask & _mirrored(mask)).to(y)
        alone = mask.to(y) - both
        values = torch.stack((both + alone * math.sqrt(0.5), torch.zeros_like(both)))[None, :, None]

        def analyse(v: Tensor) -> Tensor:
            """The symmetric part of pairs and what is alone; the antisymmetric part of pairs."""
            v = _as_complex(self.keep(v))
            partner = _mirrored(v).conj()
            return torch.stack((both * 0.5 * (v + partner) + alone * v, both * 0.5 * (v - partner)), 1)

        return SVD(values, analyse, lambda c: _as_real(c.sum(1)))


def _as_real(v: Tensor) -> Tensor:
    return torch.cat((v.real, v.imag), 1)


def _as_complex(y: Tensor) -> Tensor:
    real, imaginary = y.chunk(2, 1)
    return torch.complex(real, imaginary)


def _mirrored(v: Tensor) -> Tensor:
    """The value at −k, for every frequency k."""
    return v.flip((-2, -1)).roll((1, 1), (-2, -1))


def mri_mask(shape: tuple[int, int], acceleration: float = 4.0, centre: float = 0.08, seed: int = 0) -> Tensor:
    """A Cartesian sampling pattern: whole columns of k-space, the lowest frequencies all, the others at random.

    acceleration  total columns over measured columns
    centre        share of the columns around frequency 0 that is always measured
    """
    height, width = shape
    count = max(1, round(width / acceleration))
    frequency = torch.fft.fftfreq(width).abs()
    chance = KeyedDraws(seed).uniform(Purpose.USER, 0, (width,), torch.float64, torch.device("cpu"))
    always = frequency.argsort(stable=True)[: max(1, min(count, round(width * centre)))]
    chance[always] = -1.0
    columns = torch.zeros(width, dtype=torch.bool)
    columns[chance.argsort()[:count]] = True
    return columns.expand(height, width).clone()


__all__ = ["MRI", "Colorize", "CompressedSensing", "Inpaint", "MixChannels", "mri_mask"]
