"""Continuous denoising score matching, with the weighting and the density of times as small objects of their own.

Notation: x₀ an image, z standard normal, x = s x₀ + std z, ε̂ the model's estimate of z; c = ln σ. Every objective
here is

    J = ∫ w(c) E ‖ε̂ − z‖² / D  dc        D numbers an image; the integral runs over the process's noise levels

estimated without bias by drawing c from any density q and weighing by w/q. The weighting decides what is learned, the
density only how noisy the gradient is. With w = 1, J is (up to constants) the bound on −log p(x₀)/D in nats: such a
model has the best likelihood, whatever the process.

Reference: Song, Durkan, Murray, Ermon (2021), "Maximum likelihood training of score-based diffusion models", theorem 1;
Kingma, Salimans, Poole, Ho (2021), "Variational diffusion models", equations 15 to 18 and appendix I.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sdekit.protocols import expand, match
from sdekit.sdes.process import DiffusionProcess

from .model import ScoreModel


def rate(process: DiffusionProcess, t: Tensor) -> Tensor:
    """dc/dt = g²/(2 std²) at times `(B,)`."""
    return process.diffusion(t, t).square() / (2.0 * process.std(t).square())


def ends(process: DiffusionProcess) -> tuple[float, float]:
    """C at t_min and at t_max."""
    return float(process.log_sigma(process.t_min)), float(process.log_sigma(process.t_max))


# --- weightings -------------------------------------------------------------------------------------------------------


class Weighting(Protocol):
    """w(c), at times `(B,)`; float64 `(B,)`."""

    def __call__(self, process: DiffusionProcess, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LikelihoodWeighting:
    """w = 1: the bound on the likelihood. In times, g² ‖score error‖² dt/2.

    Reference: Song, Durkan et al. (2021), equation 7.
    """

    def __call__(self, process: DiffusionProcess, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class NoiseWeighting:
    """w = dt/dc: every time counts the same, std² ‖score error‖² dt.

    Reference: Song et al. (2021), equation 7 with λ = std².
    """

    def __call__(self, process: DiffusionProcess, t: Tensor) -> Tensor:
        return 1.0 / rate(process, t)


@dataclass(frozen=True)
class PerceptualWeighting:
    """`w = N(c; mean, std²) (1 + σ²/data_std²)`: the middle noise levels, where what the eye sees is decided.

    Reference: Karras et al. (2022), table 1 (there, of the denoiser's error; here the same in terms of ε̂).
    """

    mean: float = -1.2
    std: float = 1.2
    data_std: float = 0.5

    def __call__(self, process: DiffusionProcess, t: Tensor) -> Tensor:
        c = process.log_sigma(t)
        bell = torch.exp(-0.5 * ((c - self.mean) / self.std) ** 2) / (self.std * math.sqrt(2.0 * math.pi))
        return bell * (1.0 + torch.exp(2.0 * c) / self.data_std**2)


# --- densities of times -----------------------------------------------------------------------------------------------


class Times(Protocol):
    """A density of times: maps uniforms to them, and knows its density q in terms of c."""

    def sample(self, process: DiffusionProcess, u: Tensor) -> tuple[Tensor, Tensor]:
        """(t, q): float64 times of uniforms u `(B,)` in [0, 1), and the density of c there."""
        ...


@dataclass(frozen=True)
class UniformTime:
    """t uniform between t_min and t_max."""

    def sample(self, process: DiffusionProcess, u: Tensor) -> tuple[Tensor, Tensor]:
        length = process.t_max - process.t_min
        t = process.t_min + length * u
        return t, 1.0 / (length * rate(process, t))


@dataclass(frozen=True)
class UniformNoiseLevel:
    """c = ln σ uniform: the importance sampling of times for `LikelihoodWeighting`.

    Reference: Song, Durkan et al. (2021), §3.3 (there by bisection; the processes here have the inverse).
    """

    def sample(self, process: DiffusionProcess, u: Tensor) -> tuple[Tensor, Tensor]:
        low, high = ends(process)
        return process.time(low + (high - low) * u), torch.full_like(u, 1.0 / (high - low))


@dataclass(frozen=True)
class FocusedNoiseLevel:
    """c mostly from a bell, the rest uniform, so that no level goes without and no weight is large.

        q = (1 − floor) Logistic(c; centre, width), cut to the process's levels, + floor / (c_max − c_min)

    centre, width: in units of c. The levels at which the images' structure is decided deserve most samples; far below
    them the noise cannot be told from the images, far above it is all there is.
    floor: share of uniform samples, in (0, 1].
    """

    centre: float = -1.5
    width: float = 1.0
    floor: float = 0.25

    def __post_init__(self) -> None:
        if not (self.width > 0.0 and 0.0 < self.floor <= 1.0):
            raise ValueError(f"expected width > 0 and 0 < floor ≤ 1, got {self.width} and {self.floor}")

    def sample(self, process: DiffusionProcess, u: Tensor) -> tuple[Tensor, Tensor]:
        low, high = ends(process)
        below, above = (
            torch.sigmoid(torch.tensor((end - self.centre) / self.width, dtype=u.dtype)) for end in (low, high)
        )
        # one uniform chooses the part and then the place in it: stratified samples stay stratified in both
        flat = u < self.floor
        v = torch.where(flat, u / self.floor, (u - self.floor) / max(1.0 - self.floor, 1e-12)).clamp(0.0, 1.0)
        bell = self.centre + self.width * torch.logit(below + (above - below) * v)
        c = torch.where(flat, low + (high - low) * v, bell).clamp(low, high)
        place = torch.sigmoid((c - self.centre) / self.width)
        q = place * (1.0 - place) / (self.width * (above - below))
        return process.time(c), (1.0 - self.floor) * q + self.floor / (high - low)


# --- the objective ----------------------------------------------------------------------------------------------------


def stratified(n: int, u: Tensor, first: int = 0, total: int | None = None) -> Tensor:
    """N uniforms, evenly spread and shifted together by one uniform u: `(first + i + u)/total`, float64 `(n,)`.

    Reference: Kingma et al. (2021), appendix I.1.
    """
    return (torch.arange(first, first + n, dtype=torch.float64, device=u.device) + u.to(torch.float64)) / (total or n)


@dataclass(frozen=True)
class DenoisingLoss:
    """`w(c)/q(c) ‖ε̂(t, s x₀ + std z) − z‖² / D`, one value a sample.

    Reference: Vincent (2011); Song et al. (2021), equation 7.
    """

    weighting: Weighting = field(default_factory=LikelihoodWeighting)
    times: Times = field(default_factory=UniformNoiseLevel)

    def __call__(self, model: ScoreModel, x0: Tensor, u: Tensor, z: Tensor) -> Tensor:
        """`(B,)`; x0 in the model's range and z standard normal `(B, C, H, W)`, u uniforms `(B,)`."""
        t, q = self.times.sample(model.process, u.to(torch.float64))
        importance = self.weighting(model.process, t) / q
        t = expand(t, x0)
        x = match(model.process.scale(t), x0) * x0 + match(model.process.std(t), x0) * z
        return importance.to(x0.dtype) * (model.noise(t, x) - z).square().flatten(1).mean(1)
