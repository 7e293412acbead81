"""The noise levels of SMLD and DDPM, N of them, as processes: level k = 0 … N − 1 lies at t = (k + 1)/N, clean data at 0.

Between the levels σ is interpolated, so that a continuous score serves them too, and at them all is as in the discrete
models: `FixedSteps(N)` from t = 1 to 0 with `ReverseDiffusion`, `Ancestral` or Langevin correctors are the samplers of
Song, Ermon (2019) and Ho, Jain, Abbeel (2020), where the last step denoises. With n < N steps they take every N/n-th
level, and the steps between those exactly.

Notation: t, s, σ, β, B as in `diffusion`; β_k, σ_k the tables.

Reference: Song et al. (2021), arXiv 2011.13456, equations 1 to 4 and appendix B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..arguments import check_integer, check_numbers
from .diffusion import ConstantScale
from .process import DiffusionProcess, Time


@dataclass(frozen=True)
class _Levels(DiffusionProcess):
    """A process of N levels, the lowest at t = 1/N."""

    levels: int = 1000

    @property
    def t_min(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]  # only ever read
        return 1.0 / self.levels

    @property
    def t_max(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]  # only ever read
        return 1.0


@dataclass(frozen=True)
class SMLD(_Levels, ConstantScale):  # pyright: ignore[reportIncompatibleVariableOverride]  # as above
    """Score matching with Langevin dynamics: s = 1, `σ_k = σ_min (σ_max/σ_min)^(k/(N − 1))`, below σ_0 linear in t.

    Args:
        levels: N.
        sigma_min, sigma_max: σ_0 and σ_{N−1}.

    Raises:
        ValueError: unless levels ≥ 2 and 0 < sigma_min < sigma_max.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_integer("SMLD: levels", self.levels, 2)
        check_numbers(self, "sigma_min", "sigma_max")
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"SMLD: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def _log_step(self) -> float:
        return math.log(self.sigma_max / self.sigma_min) / (self.levels - 1)

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        level = t * self.levels
        # level − 1 inside, ln(level) below the first level, where it is negative
        return math.log(self.sigma_min) + torch.where(
            level >= 1.0, (level - 1.0) * self._log_step, torch.log(level.clamp(max=1.0))
        )

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        above = log_sigma - math.log(self.sigma_min)
        return torch.where(above >= 0.0, 1.0 + above / self._log_step, torch.exp(above.clamp(max=0.0))) / self.levels

    def variance_formula(self, t: Tensor) -> Tensor:
        inside = t * self.levels > 1.0
        rate = torch.where(inside, self._log_step * self.levels * torch.ones_like(t), 1.0 / t)
        return 2.0 * torch.exp(2.0 * self.log_sigma_formula(t)) * rate


@dataclass(frozen=True)
class DDPM(_Levels):
    """Denoising diffusion: `β_k` equally spaced from β_min/N to β_max/N, `s_k² = Π_{j ≤ k} (1 − β_j)`, s² + std² = 1.

    A VP process whose β(t) is constant, −N ln(1 − β_k), between level k − 1 and level k.

    Args:
        levels: N.
        beta_min, beta_max: N times the first and the last β_k.

    Raises:
        ValueError: unless levels ≥ 2 and 0 < beta_min ≤ beta_max < levels.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_integer("DDPM: levels", self.levels, 2)
        check_numbers(self, "beta_min", "beta_max")
        if not 0.0 < self.beta_min <= self.beta_max < self.levels:
            raise ValueError(
                f"DDPM: expected 0 < beta_min ≤ beta_max < levels, so that β_k < 1; got {self.beta_min}, "
                f"{self.beta_max} and {self.levels}"
            )

    @cached_property
    def betas(self) -> Tensor:
        """The table β_0 … β_{N−1}, float64."""
        return torch.linspace(self.beta_min, self.beta_max, self.levels, dtype=torch.float64) / self.levels

    @cached_property
    def _integrals(self) -> Tensor:
        """B at t = 0 and at all levels."""
        steps = -torch.log1p(-self.betas)
        return torch.cat((steps.new_zeros(1), steps.cumsum(0)))

    def _piece(self, t: Tensor) -> Tensor:
        """The level that t is on the way to from below."""
        # a node that rounding has put a little too high belongs to the piece below it
        return (torch.ceil(t * self.levels - 1e-6) - 1.0).nan_to_num().clamp(0, self.levels - 1).to(torch.int64)

    def beta(self, t: Tensor) -> Tensor:
        """β(t)."""
        return -self.levels * torch.log1p(-self.betas.to(t.device)[self._piece(t)])

    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t), linear between the levels."""
        k = self._piece(t)
        return self._integrals.to(t.device)[k] + self.beta(t) * (t * self.levels - k) / self.levels

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta_integral(t)

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(torch.expm1(self.beta_integral(t)))

    def std_formula(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.beta_integral(t)))

    def drift_formula(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    def variance_formula(self, t: Tensor) -> Tensor:
        return self.beta(t)

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        integral = torch.log1p(torch.exp(2.0 * log_sigma)).contiguous()
        nodes = self._integrals.to(integral.device)
        k = (torch.searchsorted(nodes, integral) - 1).clamp(0, self.levels - 1)
        return (k + (integral - nodes[k]) / (nodes[k + 1] - nodes[k])) / self.levels

    def discretize(self, upper: Time, lower: Time) -> tuple[Tensor, Tensor]:
        """Multiplier √(1 − β), G = √β, with 1 − β the product of all 1 − β_k in between: exact."""
        high, low = (self.beta_integral(torch.as_tensor(t, dtype=torch.float64)) for t in (upper, lower))
        return torch.exp(-0.5 * (high - low)), torch.sqrt(-torch.expm1(low - high))

    def prior_std(self) -> float:
        """1."""
        return 1.0
