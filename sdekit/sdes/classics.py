"""SDEs of one variable whose laws are known: every component of the state is a process of its own.

Notation and shapes
    x, x0   state `(B, *shape)` at time t and at time 0; coefficients act element-wise
    W       a standard Brownian motion for every component, W(0) = 0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_like, check_numbers, check_state, floating, spreads
from ..protocols import Score, as_time, match
from .contract import Additive, Diagonal
from .process import Time, check_order
from .transition import ElementwiseTransition


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


@dataclass(frozen=True)
class GeometricBrownianMotion(Diagonal):
    """Exponential growth with proportional noise: dx = μ x dt + σ x dW (Itô).

        x(t) = x0 exp((μ − σ²/2) t + σ W(t))

    Args:
        mu: rate of growth of the mean.
        sigma: volatility, positive.

    Raises:
        ValueError: sigma is not positive.

    Reference: Kloeden, Platen (1992), section 4.4, equation 4.6.
    """

    mu: float = 0.05
    sigma: float = 0.2

    def __post_init__(self) -> None:
        check_numbers(self, "mu")
        check_numbers(self, "sigma", above=0.0)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """μ x."""
        return self.mu * x

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """σ x."""
        return self.sigma * x

    def solution(self, x0: Tensor, w: Tensor, t: Time) -> Tensor:
        """The state x(t) on the path that has W(t) = w."""
        check_state("x0", x0)
        check_like("w", w, "x0", x0)
        return x0 * torch.exp(match((self.mu - 0.5 * self.sigma**2) * as_time(t), x0) + self.sigma * w)

    def mean(self, x0: Tensor, t: Time) -> Tensor:
        """E[x(t)] = x0 e^(μt)."""
        return x0 * match(torch.exp(self.mu * as_time(t)), x0)

    def variance(self, x0: Tensor, t: Time) -> Tensor:
        """Var[x(t)] = x0² e^(2μt) (e^(σ²t) − 1)."""
        return self.mean(x0, t).square() * match(torch.expm1(self.sigma**2 * as_time(t)), x0)

    def log_prob(self, x: Tensor, x0: Tensor, t: Time) -> Tensor:
        """Log-density `(B,)` of x(t) = x given x0, of the same sign as x: log-normal."""
        check_state("x", x)
        check_like("x0", x0, "x", x, spread=True)
        variance = match(self.sigma**2 * as_time(t), x)
        log_x = torch.log(x / x0)
        deviation = log_x - match((self.mu - 0.5 * self.sigma**2) * as_time(t), x)
        normal = deviation.square() / variance + torch.log(torch.as_tensor(2.0 * math.pi * variance))
        return _sum(-0.5 * normal - torch.log(x.abs()))

    def score_from(self, x0: Tensor) -> Score:
        """`(t, x) -> ∇ₓ log p(x(t) = x | x0)`."""

        def score(t: Tensor, x: Tensor) -> Tensor:
            deviation = torch.log(x / x0) - match((self.mu - 0.5 * self.sigma**2) * as_time(t), x)
            return -(1.0 + deviation / match(self.sigma**2 * as_time(t), x)) / x

        return score


@dataclass(frozen=True)
class CIR(Diagonal):
    """Cox–Ingersoll–Ross: dx = κ (θ − x) dt + σ √x dW (Itô), never negative.

        x(t) | x0  ~  (1/2c) χ'²(4κθ/σ², 2 c x0 e^(−κt)),   c = 2κ/(σ² (1 − e^(−κt)))

    Solvers may step below zero; there the diffusion is taken as zero. With 2κθ ≥ σ² zero is never reached.

    Args:
        kappa: rate of return.
        theta: mean it returns to.
        sigma: strength of the noise.

    Raises:
        ValueError: a parameter is not positive.

    Reference: Cox, Ingersoll, Ross (1985), Econometrica 53(2), equations 17 to 20.
    """

    kappa: float = 1.0
    theta: float = 1.0
    sigma: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self, "kappa", "theta", "sigma", above=0.0)

    @property
    def stays_positive(self) -> bool:
        """Feller's condition 2κθ ≥ σ²."""
        return 2.0 * self.kappa * self.theta >= self.sigma**2

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """κ (θ − x)."""
        return self.kappa * (self.theta - x)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """σ √x, zero (to rounding) for x ≤ 0."""
        # the smallest positive number in place of 0 keeps derivatives of the root finite
        return self.sigma * x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()

    def mean(self, x0: Tensor, t: Time) -> Tensor:
        """E[x(t)] = θ + (x0 − θ) e^(−κt)."""
        return self.theta + (x0 - self.theta) * match(torch.exp(-self.kappa * as_time(t)), x0)

    def variance(self, x0: Tensor, t: Time) -> Tensor:
        """Var[x(t)] = (σ²/κ) (1 − e^(−κt)) (x0 e^(−κt) + θ (1 − e^(−κt))/2)."""
        decay = torch.exp(-self.kappa * as_time(t))
        gone = -torch.expm1(-self.kappa * as_time(t))
        return match(self.sigma**2 / self.kappa * gone, x0) * (
            x0 * match(decay, x0) + match(0.5 * self.theta * gone, x0)
        )

    def log_prob(self, x: Tensor, x0: Tensor, t: Time) -> Tensor:
        """Log-density `(B,)` of x(t) = x > 0 given x0: a Poisson mixture of gamma laws, in float64."""
        check_state("x", x)
        check_like("x0", x0, "x", x, spread=True)
        return _sum(torch.logsumexp(self._mixture(x, x0, t)[0], dim=0)).to(x.dtype)

    def score_from(self, x0: Tensor) -> Score:
        """`(t, x) -> ∇ₓ log p(x(t) = x | x0)` for x > 0."""

        def score(t: Tensor, x: Tensor) -> Tensor:
            log_joint, shape, rate = self._mixture(x, x0, t)
            mean_shape = (torch.softmax(log_joint, dim=0) * shape).sum(0)
            return ((mean_shape - 1.0) / x - rate).to(x.dtype)

        return score

    def stationary_log_prob(self, x: Tensor) -> Tensor:
        """Log-density `(B,)` of the gamma law with shape 2κθ/σ² and rate 2κ/σ² that x(t) tends to."""
        check_state("x", x)
        rate = 2.0 * self.kappa / self.sigma**2
        shape = rate * self.theta
        return _sum((shape - 1.0) * torch.log(x) - rate * x + shape * math.log(rate) - math.lgamma(shape))

    def _mixture(self, x: Tensor, x0: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Log-density of every gamma law with its Poisson weight `(J, B, *shape)`, the shapes, and the rate c."""
        time = as_time(t)
        c = -2.0 * self.kappa / (self.sigma**2 * torch.expm1(-self.kappa * time))
        x, start = x.double(), x0.double()
        u = c * torch.exp(-self.kappa * time) * start
        v = c * x
        # the terms that count lie around j = √(uv), within some standard deviations (√(uv)/2)^½ of it
        centre = torch.sqrt(u * v).detach()
        half = math.ceil(9.0 * math.sqrt(0.5 * float(centre.nan_to_num().max()))) + 30
        offsets = torch.arange(-half, half + 1, dtype=torch.float64, device=x.device).reshape(-1, *(1,) * x.ndim)
        j = centre.round() + offsets
        shape = j.clamp_min(0.0) + 2.0 * self.kappa * self.theta / self.sigma**2
        log_poisson = torch.xlogy(j.clamp_min(0.0), u) - u - torch.lgamma(j.clamp_min(0.0) + 1.0)
        log_gamma = shape * torch.log(c) + (shape - 1.0) * torch.log(x) - v - torch.lgamma(shape)
        return (log_poisson + log_gamma).masked_fill(j < 0, -math.inf), shape, c


@dataclass(frozen=True)
class BrownianBridge(Additive):
    """Brownian motion that is at `end` at time `duration`: dx = (end − x)/(duration − t) dt + σ dW, 0 ≤ t < duration.

        x(t1) | x(t0)  ~  N(x0 + (end − x0) (t1 − t0)/(T − t0), σ² (t1 − t0)(T − t1)/(T − t0)),   T = duration

    Args:
        end: where it ends, a float or a tensor that broadcasts to x.
        duration: when it ends.
        sigma: strength of the noise.

    Raises:
        ValueError: duration or sigma is not positive.

    Reference: Karatzas, Shreve (1991), section 5.6.B.
    """

    end: float | Tensor = 0.0
    duration: float = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "duration", "sigma", above=0.0)
        if not isinstance(self.end, (int, float)):
            object.__setattr__(self, "end", floating("BrownianBridge: end", self.end))

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """(end − x)/(duration − t)."""
        end = self.end
        if isinstance(end, Tensor):
            if not spreads(end.shape, x.shape):
                raise ValueError(
                    f"BrownianBridge: end of shape {tuple(end.shape)} does not fit a state {tuple(x.shape)}"
                )
            end = end.to(x)
        return (end - x) / match(self.duration - t, x)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """σ."""
        return torch.full((), self.sigma, dtype=x.dtype, device=x.device)

    def transition(self, t0: Time, t1: Time) -> ElementwiseTransition:
        """The law of x(t1) given x(t0), t0 ≤ t1 ≤ duration."""
        check_order(t0, t1)
        start, stop = as_time(t0), as_time(t1)
        left, gone = self.duration - start, (stop - start) / (self.duration - start)
        end = torch.as_tensor(self.end, dtype=torch.float64)
        return ElementwiseTransition(1.0 - gone, self.sigma**2 * (1.0 - gone) * gone * left, offset=end * gone)

    def marginal(self, t: Time) -> ElementwiseTransition:
        """The law of x(t) given x(0)."""
        return self.transition(0.0, t)
