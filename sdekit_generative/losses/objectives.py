"""The objectives of well-known papers, by name, made of the parts of this folder."""

from __future__ import annotations

from .denoising import DenoisingLoss
from .times import DiscreteTime, LogNormalNoiseLevel, UniformTime
from .weighting import MinSNRWeighting, NoiseWeighting, PerceptualWeighting


def smld(levels: int = 1000) -> DenoisingLoss:
    """Denoising at discrete levels, λ = std²: with VE, the objective of SMLD. Reference: Song, Ermon (2019), eq. 6."""
    return DenoisingLoss(NoiseWeighting(), DiscreteTime(levels))


def ddpm(levels: int = 1000) -> DenoisingLoss:
    """As `smld`; with VP it is the objective of DDPM. Reference: Ho, Jain, Abbeel (2020), equation 14."""
    return smld(levels)


def edm(mean: float = -1.2, std: float = 1.2, data_std: float = 0.5) -> DenoisingLoss:
    """ln σ normal, the denoiser's error weighed by (σ² + d²)/(σ d)². Reference: Karras et al. (2022), table 1."""
    return DenoisingLoss(PerceptualWeighting(mean, std, data_std), LogNormalNoiseLevel(mean, std))


def min_snr(gamma: float = 5.0) -> DenoisingLoss:
    """Uniform times, weights min(1, γ σ²). Reference: Hang et al. (2023), equation 9."""
    return DenoisingLoss(MinSNRWeighting(gamma), UniformTime())
