"""Linear operators on the plane: fewer pixels, blur, and tomography.

Notation as in `operator`; images are `(B, C, H, W)` and every channel is treated alike.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .operator import SVD, Linear, MeasurementError


class Separable(Linear):
    """`y = R x Cᵀ`, one matrix for the rows and one for the columns: `(B, C, H, W) -> (B, C, H', W')`.

    Singular values are the products of those of R and C.
    """

    @abstractmethod
    def axis(self, size: int) -> Tensor:
        """The matrix `(size', size)`, float64, for an axis of that many pixels."""

    @abstractmethod
    def size_before(self, size: int) -> int:
        """How many pixels an axis had that now has `size`."""

    def _factors(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.axis(height).to(like), self.axis(width).to(like)

    def forward(self, x: Tensor) -> Tensor:
        _check_plane(self, x)
        rows, columns = self._factors(x.shape[-2], x.shape[-1], x)
        return rows @ x @ columns.mT

    def adjoint(self, y: Tensor) -> Tensor:
        rows, columns = self._factors(self.size_before(y.shape[-2]), self.size_before(y.shape[-1]), y)
        return rows.mT @ y @ columns

    def svd(self, y: Tensor) -> SVD:
        (u, s), (v, t) = (_left(self.axis(self.size_before(n))) for n in y.shape[-2:])
        u, v = u.to(y), v.to(y)
        return SVD(torch.outer(s, t).to(y), lambda a: u.mT @ a @ v, lambda c: u @ c @ v.mT)


def _left(matrix: Tensor) -> tuple[Tensor, Tensor]:
    squares, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    return vectors, squares.clamp_min(0.0).sqrt()


def _check_plane(owner: object, x: Tensor) -> None:
    if x.ndim != 4:
        raise MeasurementError(f"{type(owner).__name__}: takes images (B, C, H, W), got shape {tuple(x.shape)}")


_KERNELS = ("average", "bicubic")


@dataclass(frozen=True)
class Downsample(Separable):
    """Fewer pixels: `(B, C, H, W) -> (B, C, H/factor, W/factor)`; its restoration is super-resolution.

    factor  2 or more, dividing H and W; factor² times fewer pixels
    kernel  "average" of the factor × factor pixels, or "bicubic": Keys' kernel (a = −½) stretched by the factor, which
            is what libraries call bicubic with antialiasing, mirrored at the edges

    Raises MeasurementError for a factor below 2 or another kernel.

    Reference: Keys (1981), IEEE Trans. ASSP 29(6), equation 15.
    """

    factor: int = 2
    kernel: str = "average"

    def __post_init__(self) -> None:
        if self.kernel not in _KERNELS:
            raise MeasurementError(f"Downsample: kernel is 'average' or 'bicubic', got {self.kernel!r}")
        if isinstance(self.factor, bool) or not isinstance(self.factor, int) or self.factor < 2:
            raise MeasurementError(f"Downsample: factor is a whole number of 2 or more, got {self.factor!r}")

    def size_before(self, size: int) -> int:
        return size * self.factor

    def axis(self, size: int) -> Tensor:
        f = self.factor
        if size % f:
            raise MeasurementError(
                f"Downsample: {f} does not divide {size} pixels; crop the image, or take another factor"
            )
        if self.kernel == "average":
            return torch.kron(
                torch.eye(size // f, dtype=torch.float64), torch.full((1, f), 1.0 / f, dtype=torch.float64)
            )
        centre = (torch.arange(size // f, dtype=torch.float64)[:, None] + 0.5) * f
        taps = torch.arange(-2 * f, size + 2 * f)
        weight = _keys((taps + 0.5 - centre) / f)
        return _mirror(weight / weight.sum(1, keepdim=True), taps, size)


def _keys(u: Tensor) -> Tensor:
    u = u.abs()
    near = 1.5 * u**3 - 2.5 * u**2 + 1.0
    far = -0.5 * u**3 + 2.5 * u**2 - 4.0 * u + 2.0
    return torch.where(u <= 1.0, near, torch.where(u < 2.0, far, torch.zeros_like(u)))


def _mirror(weight: Tensor, taps: Tensor, size: int) -> Tensor:
    """A matrix whose taps outside [0, size) fall back into it, mirrored at the edges."""
    place = taps % (2 * size)
    place = torch.where(place >= size, 2 * size - 1 - place, place)
    return torch.zeros((len(weight), size), dtype=weight.dtype).index_add_(1, place, weight)


@dataclass(frozen=True)
class GaussianBlur(Separable):
    """Blur by a Gaussian of standard deviation `std` pixels, mirrored at the edges.

    Raises MeasurementError unless std is positive.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.std, (int, float)) and 0.0 < self.std < math.inf):
            raise MeasurementError(f"GaussianBlur: std is a positive number of pixels, got {self.std!r}")

    def size_before(self, size: int) -> int:
        return size

    def axis(self, size: int) -> Tensor:
        reach = math.ceil(4.0 * self.std)
        taps = torch.arange(-reach, size + reach)
        weight = torch.exp(-0.5 * ((taps - torch.arange(size)[:, None]).double() / self.std).square())
        weight = torch.where((taps - torch.arange(size)[:, None]).abs() <= reach, weight, 0.0)
        return _mirror(weight / weight.sum(1, keepdim=True), taps, size)


@dataclass(frozen=True)
class MotionBlur(Linear):
    """Blur along a straight line of `length` pixels at `angle` degrees from the horizontal; the image wraps around.

    The kernel is the line's length inside every pixel, found at 16 points a pixel.

    Raises MeasurementError unless length is positive and angle finite.
    """

    length: float = 5.0
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.length < math.inf or not abs(self.angle) < math.inf:
            raise MeasurementError(
                f"MotionBlur: expected a positive length, got {self.length!r} at {self.angle!r} degrees"
            )

    def _spectrum(self, like: Tensor) -> Tensor:
        """The Fourier transform `(H, W)` of the kernel, centred on pixel (0, 0)."""
        height, width = like.shape[-2:]
        count = max(1, math.ceil(16 * self.length))
        along = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * self.length
        turn = math.radians(self.angle)
        row = (-along * math.sin(turn)).round().long() % height
        column = (along * math.cos(turn)).round().long() % width
        kernel = torch.zeros(height * width, dtype=torch.float64)
        kernel.index_add_(0, row * width + column, torch.full((count,), 1.0 / count, dtype=torch.float64))
        kernel = kernel.reshape(height, width).to(like.device)
        return torch.fft.fft2(kernel).to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        _check_plane(self, x)
        return torch.fft.ifft2(torch.fft.fft2(x) * self._spectrum(x)).real

    def adjoint(self, y: Tensor) -> Tensor:
        _check_plane(self, y)
        return torch.fft.ifft2(torch.fft.fft2(y) * self._spectrum(y).conj()).real

    def svd(self, y: Tensor) -> SVD:
        return SVD(
            self._spectrum(y).abs(),
            lambda v: torch.fft.fft2(v, norm="ortho"),
            lambda c: torch.fft.ifft2(c, norm="ortho").real,
        )


@dataclass(frozen=True)
class CT(Linear):
    """Sparse-view tomography: parallel projections at `angles` directions, even over 180°.

    `(B, C, N, N) -> (B, C, angles, detectors)`, with ⌈√2 N⌉ detectors of one pixel's width. Every pixel falls on the two
    detectors nearest to its shadow, in linear proportion; values are divided by √N to be of the size of an image.

    Raises MeasurementError unless size and angles are 1 or more.

    Reference: Radon (1917); Peters (1981), IEEE Trans. Nucl. Sci. 28(4) (pixel-driven projection).
    """

    size: int
    angles: int = 8

    def __post_init__(self) -> None:
        if self.size < 1 or self.angles < 1:
            raise MeasurementError(f"CT: expected a size and a number of angles, got {self.size!r} and {self.angles!r}")

    @property
    def detectors(self) -> int:
        """How many there are at every angle."""
        return math.ceil(math.sqrt(2.0) * self.size) + 1

    def _shadows(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Places `(2, angles, N²)` among all detectors of all angles, and weights of the same shape."""
        turn = torch.arange(self.angles, dtype=torch.float64)[:, None] * (math.pi / self.angles)
        line = torch.arange(self.size, dtype=torch.float64) - 0.5 * (self.size - 1)
        y, x = (v.reshape(-1) for v in torch.meshgrid(line, line, indexing="ij"))
        at = x * turn.cos() + y * turn.sin() + 0.5 * (self.detectors - 1)
        low = at.floor()
        part = at - low
        place = low.long() + torch.arange(self.angles)[:, None] * self.detectors
        weight = torch.stack((1.0 - part, part)) / math.sqrt(self.size)
        place = torch.stack((place, (place + 1).clamp_max(self.angles * self.detectors - 1)))
        return place.to(like.device), weight.to(like)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[-2:] != (self.size, self.size):
            raise MeasurementError(
                f"CT: made for images of {self.size} × {self.size} pixels, got shape {tuple(x.shape[1:])}"
            )
        place, weight = self._shadows(x)
        cast = weight * x.flatten(2)[:, :, None, None, :]
        total = x.new_zeros((*x.shape[:2], self.angles * self.detectors))
        total.index_add_(2, place.reshape(-1), cast.flatten(2))
        return total.reshape(*x.shape[:2], self.angles, self.detectors)

    def adjoint(self, y: Tensor) -> Tensor:
        place, weight = self._shadows(y)
        seen = y.flatten(2)[:, :, place.reshape(-1)].reshape(*y.shape[:2], *place.shape)
        return (seen * weight).sum((2, 3)).reshape(*y.shape[:2], self.size, self.size)
