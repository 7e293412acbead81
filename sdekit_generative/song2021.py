"""The conventions of Song et al.'s code: what its networks are told, and what their outputs stand for.

    VE, continuous            c = ln σ(t)                   score = F
    VE, discrete (SMLD)       c = round((1 − t)(N − 1))     score = F           0 is the largest noise
    VP and sub-VP, continuous c = 999 t                     score = −F/std(t)
    VP, discrete (DDPM)       c = (N − 1) t, not rounded    score = −F/√(1 − ᾱ_k), k = ⌊(N − 1) t⌋

with ᾱ_k = Π_{j ≤ k} (1 − β_j), β_j evenly spaced from β_min/N to β_max/N. The 999 holds for any N: it makes continuous
networks see the time steps of DDPM.

Reference: Song et al. (2021), appendices C, E and G; Ho, Jain, Abbeel (2020), §2 (ᾱ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.errors import Incompatible
from sdekit.protocols import match
from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.sdes.process import DiffusionProcess

from .parametrisation import Network, told

_LAST_STEP = 999.0  # of DDPM
_ROUNDING = 1e-7  # of times in float32, and a little more


@dataclass(frozen=True)
class Song2021:
    """What networks of Song et al. (2021) are told and predict, by the process they are used with: VE, VP or sub-VP.

    continuous  whether the network was trained on continuous times; if not, on `steps` discrete ones
    steps       N
    compat      "song2021" takes σ, std and ᾱ in float32, as the original code does, where std of VP is off by 0.6 %
                at t = 1e-5; None takes them as they are

    Raises ValueError for another `compat`, or fewer than 2 steps; Incompatible for another process, or discrete sub-VP.
    """

    continuous: bool = True
    steps: int = 1000
    compat: str | None = None

    def __post_init__(self) -> None:
        if self.compat not in (None, "song2021"):
            raise ValueError(f"compat: expected None or 'song2021', got {self.compat!r}")
        if self.steps < 2:
            raise ValueError(f"steps: expected 2 or more, got {self.steps}")

    def noise(self, network: Network, process: DiffusionProcess, t: Tensor, x: Tensor) -> Tensor:
        if isinstance(process, VE):
            return match(-process.std(t), x) * network(x, self._level(process, t, x))
        if not isinstance(process, (VP, SubVP)) or (isinstance(process, SubVP) and not self.continuous):
            kind = "continuous" if self.continuous else "discrete"
            raise Incompatible(
                f"Song2021 knows no {kind} networks of {type(process).__name__}; "
                "take VE, VP or SubVP, the last with continuous=True, or another parametrisation"
            )
        if self.continuous:
            factor, position = self._correction(process, t), _LAST_STEP * t
        else:
            position = (self.steps - 1) * t
            factor = process.std(t) / self._table(process, t)
        out = network(x, told(position, x))
        return out if factor is None else match(factor, x) * out

    def _level(self, process: VE, t: Tensor, x: Tensor) -> Tensor:
        if not self.continuous:
            return told(((1.0 - t) * (self.steps - 1)).round(), x)
        if self.compat is None:
            return told(process.log_sigma(t), x)
        return told(published(process, t)[1].log(), x)

    def _correction(self, process: VP | SubVP, t: Tensor) -> Tensor | None:
        """The standard deviation over what float32 makes of it."""
        if self.compat is None:
            return None
        return process.std(t) / published(process, t)[1]

    def _table(self, process: VP | SubVP, t: Tensor) -> Tensor:
        """√(1 − ᾱ_k), float64, of the shape of the times."""
        ends, k = (process.beta_min / self.steps, process.beta_max / self.steps), step_number(t, self.steps).long()
        if self.compat is not None:
            kept = (1.0 - torch.linspace(*ends, self.steps, device=t.device)).cumprod(0)
            return (1.0 - kept).sqrt()[k].to(torch.float64)
        betas = torch.linspace(*ends, self.steps, dtype=torch.float64, device=t.device)
        return (-torch.expm1(torch.log1p(-betas).cumsum(0))).sqrt()[k]


def step_number(t: Tensor, steps: int) -> Tensor:
    """`k = ⌊(N − 1) t⌋`, the number of the step at t. Times k/(N − 1) are those of step k however they were rounded."""
    return ((t + _ROUNDING) * (steps - 1)).floor()


def published(process: DiffusionProcess, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(s, std, g) at times, float32, by the operations of the published code: without expm1, digits are lost near t = 0.

    Raises ValueError for processes other than VE, VP and sub-VP.
    """
    t = t.to(torch.float32)
    if isinstance(process, VE):
        std = process.sigma_min * (process.sigma_max / process.sigma_min) ** t
        return torch.ones_like(t), std, std * math.sqrt(2.0 * math.log(process.sigma_max / process.sigma_min))
    if not isinstance(process, (VP, SubVP)):
        raise ValueError(f'compat="song2021" is for VP, SubVP and VE, not for {type(process).__name__}')
    slope = process.beta_max - process.beta_min
    log_scale = -0.25 * t**2 * slope - 0.5 * t * process.beta_min
    variance, beta = 1.0 - torch.exp(2.0 * log_scale), process.beta_min + t * slope
    if isinstance(process, VP):
        return torch.exp(log_scale), torch.sqrt(variance), torch.sqrt(beta)
    discount = 1.0 - torch.exp(-2.0 * process.beta_min * t - slope * t**2)
    return torch.exp(log_scale), variance, torch.sqrt(beta * discount)
