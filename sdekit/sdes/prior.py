"""The Gaussians that stand for the law of a process at t_max, and how states are drawn from them.

Notation: D numbers in a sample; z standard normal, keyed by (seed, sample).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_state
from ..random import Draws, Purpose, as_draws


class Gaussian(ABC):
    """A law around 0 whose samples are standard normals, scaled."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density `(B,)`."""

    @abstractmethod
    def scaled(self, z: Tensor) -> Tensor:
        """The states that standard normals of their shape become."""

    def sample(
        self,
        shape: tuple[int, ...],
        seed: int | Draws = 0,
        first: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """States of the given shape, sample first; sample i depends on (seed, first + i) only."""
        dtype = torch.get_default_dtype() if dtype is None else dtype
        where = torch.device("cpu" if device is None else device)
        return self.scaled(as_draws(seed, first).normal(Purpose.PRIOR, 0, tuple(shape), dtype, where))


@dataclass(frozen=True)
class IsotropicGaussian(Gaussian):
    """The law N(0, std² I) over states of any shape."""

    std: float

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density `(B,)`: −‖x‖²/(2 std²) − (D/2) ln(2π std²)."""
        check_state("x", x)
        log_normaliser = x.shape[1:].numel() * (math.log(self.std) + 0.5 * math.log(2.0 * math.pi))
        return -0.5 * (x / self.std).square().flatten(1).sum(1) - log_normaliser

    def scaled(self, z: Tensor) -> Tensor:
        return z * self.std


@dataclass(frozen=True)
class PhaseGaussian(Gaussian):
    """The law x ~ N(0, I), v ~ N(0, M I) over states `(B, 2, *shape)` of positions x and velocities v.

    mass: M > 0.
    """

    mass: float

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density `(B,)`: −½ (‖x‖² + ‖v‖²/M) − (D/2) ln(2π √M)."""
        position, velocity = x.unbind(1)
        squares = (position.square() + velocity.square() / self.mass).flatten(1).sum(1)
        return -0.5 * squares - position[0].numel() * (math.log(2.0 * math.pi) + 0.5 * math.log(self.mass))

    def scaled(self, z: Tensor) -> Tensor:
        if z.ndim < 2 or z.shape[1] != 2:
            raise ValueError(
                f"CriticallyDamped: the state is (B, 2, …), data and velocity; got the shape {tuple(z.shape)}"
            )
        return torch.stack((z[:, 0], z[:, 1] * math.sqrt(self.mass)), dim=1)


class FromPrior(ABC):
    """A process with a Gaussian that stands for its law at t_max."""

    @property
    @abstractmethod
    def prior(self) -> Gaussian:
        """The stand-in for the law at t_max."""

    def prior_sample(
        self,
        shape: tuple[int, ...],
        seed: int | Draws = 0,
        first: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """States drawn from the prior, of this shape `(B, …)`; sample i depends on (seed, first + i) only."""
        return self.prior.sample(shape, seed, first, dtype, device)
