"""Forward processes beyond those of sdekit's diffusion family: the Ornstein–Uhlenbeck process as noise for images.

Notation: dx = −θ x dt + σ dW, from clean data at t = 0.

    s = e^(−θt),   std² = σ² (1 − e^(−2θt))/(2θ)

Reference: Uhlenbeck, Ornstein (1930); Song et al. (2021), §3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.protocols import Affine
from sdekit.sdes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sdekit.sdes.process import DiffusionProcess, check_times


@dataclass(frozen=True)
class MeanReverting(DiffusionProcess):
    """The Ornstein–Uhlenbeck process around 0 as a diffusion process: whatever takes a VP takes it.

    theta, strength  θ, the rate of return, and σ, the strength of the noise; σ = √(2θ) ends in N(0, 1)
    t_min, t_max     the ends of its time; e^(−θ t_max) of the image is left at the end

    Raises ValueError unless theta and strength are above 0 and 0 ≤ t_min < t_max.
    """

    theta: float = 1.0
    strength: float = math.sqrt(2.0)
    t_min: float = 1e-4
    t_max: float = 6.0

    def __post_init__(self) -> None:
        if not (self.theta > 0.0 and self.strength > 0.0):
            raise ValueError(
                f"MeanReverting: expected theta and strength above 0, got {self.theta} and {self.strength}"
            )
        check_times(self)

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return -self.theta * t

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(torch.expm1(2.0 * self.theta * t) * (self.strength**2 / (2.0 * self.theta)))

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        return torch.log1p(torch.exp(2.0 * log_sigma) * (2.0 * self.theta / self.strength**2)) / (2.0 * self.theta)

    def std_formula(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-2.0 * self.theta * t) * (self.strength**2 / (2.0 * self.theta)))

    def drift_formula(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -self.theta)

    def variance_formula(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.strength**2)


def as_process(sde: Affine | OrnsteinUhlenbeck, t_min: float = 1e-4, t_max: float | None = None) -> Affine:
    """The forward process that an SDE is: an Affine one is taken as it is, an `OrnsteinUhlenbeck` becomes one.

    t_max: where an Ornstein–Uhlenbeck process ends; by default 6/θ, where 0.25 % of the image is left.
    Raises ValueError for an Ornstein–Uhlenbeck process that is not scalar, or that does not return to 0.
    """
    if not isinstance(sde, OrnsteinUhlenbeck):
        return sde
    values = [torch.as_tensor(value, dtype=torch.float64) for value in (sde.theta, sde.mu, sde.sigma)]
    if any(value.numel() != 1 for value in values):
        raise ValueError("a forward process needs scalar theta, mu and sigma, so that one noise level holds for all")
    theta, mu, noise = (float(value) for value in values)
    if mu != 0.0:
        raise ValueError(f"a forward process returns to 0; shift the images by mu = {mu} first (see DataRange)")
    return MeanReverting(theta, noise, t_min, 6.0 / theta if t_max is None else t_max)
