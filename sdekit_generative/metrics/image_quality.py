"""How near an image is to the true one: PSNR and SSIM of images in [0, 1], one figure an image.

    PSNR = −10 log₁₀ mean (x − y)²
    SSIM = mean over windows of  (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))

The windows are Gaussian of standard deviation 1.5 pixels, 11 pixels wide or as wide as the image allows, and lie wholly
inside it; C₁ = 0.01², C₂ = 0.03². Channels are averaged.

Reference: Wang, Bovik, Sheikh, Simoncelli (2004), IEEE Trans. Image Process. 13(4), equation 13.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.arguments import floating

_WIDTH, _SPREAD = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def _checked(images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    images, truth = floating("images", images), floating("truth", truth)
    if images.ndim != 4 or images.shape != truth.shape:
        raise ValueError(
            f"expected images and truth of one shape (N, C, H, W), got {tuple(images.shape)} and {tuple(truth.shape)}"
        )
    return images.double(), truth.double()


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio `(N,)` in dB of images in [0, 1]; infinite where they are equal.

    Raises ValueError for images that differ in shape or are none.
    """
    x, y = _checked(images, truth)
    return -10.0 * torch.log10((x - y).square().flatten(1).mean(1))


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity `(N,)` of images in [0, 1]; 1 where they are equal.

    Raises ValueError for images that differ in shape or are none.
    """
    x, y = _checked(images, truth)
    smallest = min(x.shape[-2:])
    width = min(_WIDTH, smallest - 1 + smallest % 2)
    place = torch.arange(width, dtype=torch.float64, device=x.device) - (width - 1) / 2
    window = torch.exp(-0.5 * (place / _SPREAD).square())
    window = window / window.sum()

    def local(v: Tensor) -> Tensor:
        """The mean of v in every window."""
        return torch.einsum("nchwij,i,j->nchw", v.unfold(2, width, 1).unfold(3, width, 1), window, window)

    mean_x, mean_y = local(x), local(y)
    variance_x, variance_y = local(x * x) - mean_x.square(), local(y * y) - mean_y.square()
    shared = local(x * y) - mean_x * mean_y
    top = (2.0 * mean_x * mean_y + _C1) * (2.0 * shared + _C2)
    bottom = (mean_x.square() + mean_y.square() + _C1) * (variance_x + variance_y + _C2)
    return (top / bottom).flatten(1).mean(1)
