"""Critically damped Langevin diffusion: noise enters by a velocity, and reaches the data through it.

    dx = (β/M) v dt,   dv = −β x dt − (Γβ/M) v dt + √(2Γβ) dW,   Γ² = 4M

Notation and shapes
    state   `(B, 2, *shape)`: data x at `[:, 0]`, velocity v at `[:, 1]`
    M, Γ    mass and friction; Γ² = 4M is the friction at which x returns fastest without swinging

Reference: Dockhorn, Vahdat, Kreis (2022), arXiv 2112.07068, equations 4 to 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..arguments import check_state
from ..random import Draws, Purpose, as_draws
from .linear import Coefficient, LinearSDE
from .prior import FromPrior, PhaseGaussian


@dataclass(frozen=True, eq=False)
class CriticallyDamped(LinearSDE, FromPrior):
    """Critically damped Langevin diffusion on states `(B, 2, *shape)`, a matrix linear SDE with exact transitions.

    Args:
        beta: speed of the clock.
        mass: M; the friction is 2√M.
        velocity_std: standard deviation of the velocity at t = 0, as `lift` draws it.
        t_min, t_max: the ends of its time.

    Raises:
        ValueError: beta, mass or velocity_std is not positive, or the times are out of order.
    """

    A: Coefficient = field(init=False, repr=False)
    b: Coefficient = field(init=False, repr=False)
    L: Coefficient = field(init=False, repr=False)
    pieces: int = field(init=False, repr=False, default=1)
    beta: float = 8.0
    mass: float = 0.25
    velocity_std: float = 0.1
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not (self.beta > 0 and self.mass > 0 and self.velocity_std > 0):
            raise ValueError(
                "CriticallyDamped: beta, mass and velocity_std must be positive, "
                f"got {self.beta}, {self.mass}, {self.velocity_std}"
            )
        if not 0.0 <= self.t_min < self.t_max:
            raise ValueError(f"CriticallyDamped: expected 0 ≤ t_min < t_max, got {self.t_min} and {self.t_max}")
        friction = self.friction
        rates = [[0.0, 1.0 / self.mass], [-1.0, -friction / self.mass]]
        noise = [0.0, math.sqrt(2.0 * friction * self.beta)]
        object.__setattr__(self, "A", self.beta * torch.tensor(rates, dtype=torch.float64))
        object.__setattr__(self, "b", 0.0)
        object.__setattr__(self, "L", torch.tensor(noise, dtype=torch.float64))
        super().__post_init__()

    @property
    def friction(self) -> float:
        """Γ = 2√M."""
        return 2.0 * math.sqrt(self.mass)

    @property
    def prior(self) -> PhaseGaussian:
        """The stationary law, the stand-in for the law at t_max."""
        return PhaseGaussian(self.mass)

    def lift(self, data: Tensor, seed: int | Draws = 0, first: int = 0) -> Tensor:
        """Data `(B, *shape)` with velocities drawn for them: the state `(B, 2, *shape)` at t = 0."""
        check_state("data", data)
        z = as_draws(seed, first).normal(Purpose.USER, 0, tuple(data.shape), data.dtype, data.device)
        return torch.stack((data, self.velocity_std * z), dim=1)
