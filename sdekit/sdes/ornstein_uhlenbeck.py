"""The Ornstein–Uhlenbeck process: linear, with a Gaussian law at every time and a stationary one.

    dx = θ (μ − x) dt + σ dW

Notation and shapes as in `linear`: θ, μ, σ element-wise (floats, or tensors that broadcast to x), or θ `(D, D)`, μ a
float or `(D,)`, σ a float, `(D,)` or `(D, m)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from ..arguments import floating
from ..protocols import as_time
from .linear import Coefficient, LinearSDE, Value
from .moments import lasting_moments
from .transition import ElementwiseTransition, MatrixTransition, Transition


@dataclass(frozen=True, eq=False)
class OrnsteinUhlenbeck(LinearSDE):
    """Mean-reverting linear SDE: dx = θ (μ − x) dt + σ dW, element-wise or with matrices.

        x(t) | x(0)  ~  N(μ + e^(−θt) (x(0) − μ), σ² (1 − e^(−2θt))/(2θ))

    Args:
        theta: rate of return, float or tensor that broadcasts to the state, or matrix `(D, D)`.
        mu: the mean it returns to.
        sigma: strength of the noise; a float, a tensor, or in the matrix case also `(D, m)`.

    Raises:
        ValueError: matrices whose sizes do not fit together.

    Reference: Uhlenbeck, Ornstein (1930), Phys. Rev. 36.
    """

    A: Coefficient = field(init=False, repr=False)
    b: Coefficient = field(init=False, repr=False)
    L: Coefficient = field(init=False, repr=False)
    pieces: int = field(init=False, repr=False, default=1)
    theta: Value = 1.0
    mu: Value = 0.0
    sigma: Value = 1.0

    def __post_init__(self) -> None:
        for name in ("theta", "mu", "sigma"):
            value = getattr(self, name)
            if not isinstance(value, (int, float, Tensor)):
                raise TypeError(f"OrnsteinUhlenbeck: {name} must be a number or a tensor, got {value!r}")
            if isinstance(value, Tensor):
                object.__setattr__(self, name, floating(f"OrnsteinUhlenbeck: {name}", value))
        object.__setattr__(self, "A", -self.theta)
        object.__setattr__(self, "b", _pull(self.theta, self.mu))
        object.__setattr__(self, "L", self.sigma)
        super().__post_init__()

    def stationary(self) -> Transition:
        """The law that x(t) tends to: N(μ, C) with θ C + C θᵀ = σ σᵀ (element-wise C = σ²/(2θ)).

        A transition with multiplier zero: its mean and samples have the shape of the state given to them.

        Raises:
            ValueError: some eigenvalue of θ has no positive real part, so there is no such law.
        """
        if self.size is None:
            theta, mu, sigma = (torch.as_tensor(v, dtype=torch.float64) for v in (self.theta, self.mu, self.sigma))
            _check_stable(theta)
            return ElementwiseTransition(torch.zeros_like(theta), sigma.square() / (2.0 * theta), offset=mu)
        coefficients = self._coefficients(as_time(0.0))
        _check_stable(cast(Tensor, torch.linalg.eigvals(-coefficients.drift)).real)
        moments = lasting_moments(coefficients)
        mu = torch.as_tensor(self.mu, dtype=torch.float64).expand(self.size)
        return MatrixTransition(torch.zeros_like(moments.multiplier), moments.covariance, mu)


def _pull(theta: Value, mu: Value) -> Value:
    """θ μ."""
    try:
        if isinstance(theta, Tensor) and theta.ndim == 2:
            mu = torch.as_tensor(mu, dtype=theta.dtype, device=theta.device)
            return theta @ mu if mu.ndim == 1 else theta.sum(1) * mu
        return theta * mu
    except RuntimeError as error:
        shapes = " and ".join(str(tuple(torch.as_tensor(v).shape)) for v in (theta, mu))
        raise ValueError(f"OrnsteinUhlenbeck: theta and mu of shapes {shapes} do not fit together") from error


def _check_stable(rates: Tensor) -> None:
    if not bool((rates > 0).all()):
        raise ValueError(
            "OrnsteinUhlenbeck: a stationary law needs every eigenvalue of theta to have a positive real part, "
            f"got {rates.tolist()}"
        )
