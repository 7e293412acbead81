"""Weightings: how much each noise level counts, as densities in c = ln σ.

Notation: w(c) multiplies ‖ε̂ − z‖²/D, the squared error of the noise a number; SNR = 1/σ².

Reference: Kingma, Gao (2023), "Understanding diffusion objectives as the ELBO with simple data augmentation", table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdekit.protocols import Affine, as_time


def rate(process: Affine, t: Tensor) -> Tensor:
    """The rate dc/dt at times `(B,)`: g²/(2 std²), or by differentiation where the process does not give g."""
    t, diffusion = as_time(t), getattr(process, "diffusion", None)
    if diffusion is not None:
        return diffusion(t, t).square() / (2.0 * process.std(t).square())
    return torch.func.jvp(process.log_sigma, (t,), (torch.ones_like(t),))[1]


def ends(process: Affine) -> tuple[float, float]:
    """The values of c at t_min and at t_max."""
    return float(process.log_sigma(process.t_min)), float(process.log_sigma(process.t_max))


class Weighting(Protocol):
    """w(c), at times `(B,)`; float64 `(B,)`."""

    def __call__(self, process: Affine, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LikelihoodWeighting:
    """w = 1: the bound on the likelihood. In times, g² ‖score error‖² dt/2.

    Reference: Song, Durkan et al. (2021), equation 7.
    """

    def __call__(self, process: Affine, t: Tensor) -> Tensor:
        return torch.ones_like(as_time(t))


@dataclass(frozen=True)
class NoiseWeighting:
    """w = dt/dc: every time counts the same, std² ‖score error‖² dt.

    Reference: Song et al. (2021), equation 7 with λ = std².
    """

    def __call__(self, process: Affine, t: Tensor) -> Tensor:
        return 1.0 / rate(process, t)


@dataclass(frozen=True)
class PerceptualWeighting:
    """`w = N(c; mean, std²) (1 + σ²/data_std²)`: the middle noise levels, where what the eye sees is decided.

    Reference: Karras et al. (2022), table 1 (there, of the denoiser's error; here the same in terms of ε̂).
    """

    mean: float = -1.2
    std: float = 1.2
    data_std: float = 0.5

    def __call__(self, process: Affine, t: Tensor) -> Tensor:
        c = process.log_sigma(as_time(t))
        bell = torch.exp(-0.5 * ((c - self.mean) / self.std) ** 2) / (self.std * math.sqrt(2.0 * math.pi))
        return bell * (1.0 + torch.exp(2.0 * c) / self.data_std**2)


@dataclass(frozen=True)
class MinSNRWeighting:
    """w = min(1, γ/SNR) dt/dc: as `NoiseWeighting`, but no level counts for more than γ in terms of the clean image.

    Raises ValueError unless gamma > 0.

    Reference: Hang et al. (2023), "Efficient diffusion training via min-SNR weighting strategy", equation 9 for ε̂.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0.0:
            raise ValueError(f"gamma: expected a number above 0, got {self.gamma}")

    def __call__(self, process: Affine, t: Tensor) -> Tensor:
        return (self.gamma * torch.exp(2.0 * process.log_sigma(as_time(t)))).clamp_max(1.0) / rate(process, t)
