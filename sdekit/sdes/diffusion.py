"""The diffusion processes in use, each by its formulas; see `process` for what is derived from them.

Notation
    t        time, from t_min (data) to t_max (noise)
    s, σ     x(t) = s(t) (x(0) + σ(t) z), std = s σ
    β, B     VP and sub-VP: β(t) = β_min + (β_max − β_min) t, B(t) = ∫₀ᵗ β

Choice of t_min: the smaller, the closer the last state is to the data, and the stiffer and costlier the last steps.
The defaults are those of sampling; for likelihoods of VP and sub-VP take t_min = 1e-5, where std is 1e-3 and 1e-6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_numbers
from .process import DiffusionProcess, Time, check_times


class ConstantScale(DiffusionProcess):
    """s = 1: no drift, and a discretisation that is exact: variances of steps add up to σ²."""

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def std_formula(self, t: Tensor) -> Tensor:
        return torch.exp(self.log_sigma_formula(t))

    def drift_formula(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(x)

    def discretize(self, upper: Time, lower: Time) -> tuple[Tensor, Tensor]:
        """Multiplier 1, G² = σ(upper)² − σ(lower)². Reference: Song et al. (2021), equation 8 and appendix E."""
        high, low = self.sigma(upper), self.sigma(lower)
        return torch.ones_like(high), ((high - low) * (high + low)).sqrt()


@dataclass(frozen=True)
class VE(ConstantScale):
    """Variance exploding: s = 1, σ = σ_min (σ_max/σ_min)ᵗ, g = σ √(2 ln(σ_max/σ_min)).

    At t = 0 the state still has noise σ_min: x(0) as in `transition(0, t)` is not clean data.

    Args:
        sigma_min, sigma_max: noise levels at t = 0 and t = 1; σ_max should exceed the largest distance in the data.
        t_min, t_max: the ends of its time.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max and 0 ≤ t_min < t_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 9 and appendix C.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "sigma_min", "sigma_max")
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"VE: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")
        check_times(self)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + t * self._log_ratio

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        return (log_sigma - math.log(self.sigma_min)) / self._log_ratio

    def variance_formula(self, t: Tensor) -> Tensor:
        return torch.exp(t * (2.0 * self._log_ratio)) * (2.0 * self._log_ratio * self.sigma_min**2)


@dataclass(frozen=True)
class EDM(ConstantScale):
    """Karras's process: s = 1, σ = t, g = √(2t). Time is the noise level itself.

    Args:
        sigma_min, sigma_max: t_min and t_max.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.

    Reference: Karras et al. (2022), arXiv 2206.00364, table 1.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_numbers(self, "sigma_min", "sigma_max")
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"EDM: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def t_min(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]  # only ever read
        return self.sigma_min

    @property
    def t_max(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]  # only ever read
        return self.sigma_max

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return torch.log(t)

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        return torch.exp(log_sigma)

    def std_formula(self, t: Tensor) -> Tensor:
        return t

    def variance_formula(self, t: Tensor) -> Tensor:
        return 2.0 * t


@dataclass(frozen=True)
class _LinearBeta(DiffusionProcess):
    """What VP and sub-VP share: s = e^(−B/2) with a linear β; both end in N(0, I)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "beta_min", "beta_max")
        if not (0.0 <= self.beta_min <= self.beta_max and self.beta_max > 0.0):
            raise ValueError(
                f"{type(self).__name__}: expected 0 ≤ beta_min ≤ beta_max and beta_max > 0, "
                f"got {self.beta_min} and {self.beta_max}"
            )
        check_times(self)

    def beta(self, t: Tensor) -> Tensor:
        """β(t)."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t)."""
        return t * (self.beta_min + (0.5 * (self.beta_max - self.beta_min)) * t)

    def _time_of(self, integral: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2.0 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2.0 * slope * integral))

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta_integral(t)

    def drift_formula(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    def prior_std(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance preserving: s = e^(−B/2), σ = √(e^B − 1), g = √β.

    Args:
        beta_min, beta_max: β at t = 0 and t = 1.
        t_min, t_max: the ends of its time.

    Raises:
        ValueError: unless 0 ≤ beta_min ≤ beta_max, beta_max > 0 and 0 ≤ t_min < t_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 11 and appendix C.
    """

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(torch.expm1(self.beta_integral(t)))

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        return self._time_of(torch.log1p(torch.exp(2.0 * log_sigma)))

    def std_formula(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.beta_integral(t)))

    def variance_formula(self, t: Tensor) -> Tensor:
        return self.beta(t)

    def discretize(self, upper: Time, lower: Time) -> tuple[Tensor, Tensor]:
        """Multiplier √(1 − β_k), G = √β_k with β_k = β(upper) |h|. Reference: Song et al. (2021), equation 10.

        Raises:
            ValueError: β_k reaches 1, where the step would keep nothing of x. (On a CUDA device this is not looked at.)
        """
        beta_k = torch.as_tensor(self.beta(torch.as_tensor(upper, dtype=torch.float64)) * abs(upper - lower))
        looked_at = beta_k.device.type == "cpu" and not torch.compiler.is_compiling()
        if looked_at and bool((beta_k >= 1.0).any()):
            raise ValueError(
                f"VP: a discrete step needs β(t) h < 1, got {float(beta_k.max()):.3g}. Take more steps than "
                f"{self.beta_max * (self.t_max - self.t_min):.0f}, or a sampler that is exact in the linear part."
            )
        return (1.0 - beta_k).sqrt(), beta_k.sqrt()


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-variance preserving: s = e^(−B/2), σ = 2 sinh(B/2), std = 1 − e^(−B), g = √(β (1 − e^(−2B))).

    Args:
        beta_min, beta_max: β at t = 0 and t = 1.
        t_min, t_max: the ends of its time.

    Raises:
        ValueError: unless 0 ≤ beta_min ≤ beta_max, beta_max > 0 and 0 ≤ t_min < t_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 12 and appendix C.
    """

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        integral = self.beta_integral(t)
        return 0.5 * integral + torch.log(-torch.expm1(-integral))

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        return self._time_of(2.0 * torch.asinh(0.5 * torch.exp(log_sigma)))

    def std_formula(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.beta_integral(t))

    def variance_formula(self, t: Tensor) -> Tensor:
        return -self.beta(t) * torch.expm1(-2.0 * self.beta_integral(t))


@dataclass(frozen=True)
class RectifiedFlow(DiffusionProcess):
    """Straight paths from data to noise: s = 1 − t, σ = t/(1 − t), std = t, g² = 2t/(1 − t).

    At t = 1 the drift −x/(1 − t) and g are infinite, so t_max stops below; s, std and x itself stay finite there.

    Args:
        t_min, t_max: the ends of its time, with t_max < 1. The default leaves 1/1000 of the data in the state at t_max.

    Raises:
        ValueError: unless 0 ≤ t_min < t_max < 1.

    Reference: Liu, Gong, Liu (2023), arXiv 2209.03003; Lipman et al. (2023), arXiv 2210.02747, equation 20, where time
    runs the other way.
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    def __post_init__(self) -> None:
        check_times(self)
        _check_below_one(self)

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return torch.logit(t)

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        return torch.sigmoid(log_sigma)

    def std_formula(self, t: Tensor) -> Tensor:
        return t

    def drift_formula(self, t: Tensor) -> Tensor:
        return -1.0 / (1.0 - t)

    def variance_formula(self, t: Tensor) -> Tensor:
        return 2.0 * t / (1.0 - t)


@dataclass(frozen=True)
class Cosine(DiffusionProcess):
    """Variance preserving on the circle: s = cos(πt/2), σ = tan(πt/2), std = sin(πt/2), g² = π tan(πt/2).

    At t = 1 the drift −(π/2) tan(πt/2) x and g are infinite, so t_max stops below.

    Args:
        t_min, t_max: the ends of its time, with t_max < 1.

    Raises:
        ValueError: unless 0 ≤ t_min < t_max < 1.

    Reference: Nichol, Dhariwal (2021), arXiv 2102.09672, equation 17, without its offset.
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    def __post_init__(self) -> None:
        check_times(self)
        _check_below_one(self)

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return torch.log(torch.cos((0.5 * math.pi) * t))

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return torch.log(torch.tan((0.5 * math.pi) * t))

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        return (2.0 / math.pi) * torch.atan(torch.exp(log_sigma))

    def std_formula(self, t: Tensor) -> Tensor:
        return torch.sin((0.5 * math.pi) * t)

    def drift_formula(self, t: Tensor) -> Tensor:
        return (-0.5 * math.pi) * torch.tan((0.5 * math.pi) * t)

    def variance_formula(self, t: Tensor) -> Tensor:
        return math.pi * torch.tan((0.5 * math.pi) * t)


def _check_below_one(process: RectifiedFlow | Cosine) -> None:
    if process.t_max >= 1.0:
        raise ValueError(
            f"{type(process).__name__}: the drift is infinite at t = 1; expected t_max < 1, such as 0.999, "
            f"got {process.t_max}"
        )
