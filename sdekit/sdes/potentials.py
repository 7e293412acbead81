"""Motion in a potential: SDEs whose stationary law is known up to a constant.

Notation and shapes
    U       potential energy, `x -> (B,)`;  ∇U of the shape of x
    x, v    position and velocity; where both make up the state, they are stacked along dimension 1: `(B, 2, *shape)`
    T       temperature

Reference: Pavliotis (2014), Stochastic Processes and Applications, chapters 4 and 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..arguments import check_numbers, check_state
from .contract import Additive

Potential = Callable[[Tensor], Tensor]


def gradient_of(potential: Potential) -> Potential:
    """`x -> ∇U(x)` by automatic differentiation, for U `(B, *shape) -> (B,)`."""
    return torch.func.grad(lambda x: potential(x).sum())


def _check_functions(owner: object, **functions: object) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{type(owner).__name__}: {name} must be a function of x, got {function!r}")


@dataclass(frozen=True)
class OverdampedLangevin(Additive):
    """Gradient descent with heat: dx = −∇U(x) dt + √(2T) dW, which samples exp(−U/T).

    Args:
        potential: `x -> U`, shape `(B,)`; None if only the gradient is known.
        gradient: `x -> ∇U`, of the shape of x; None to find it by automatic differentiation.
        temperature: T, positive.

    Raises:
        TypeError: potential or gradient is not a function.
        ValueError: both are missing, or the temperature is not positive.
    """

    potential: Potential | None = None
    gradient: Potential | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_functions(self, potential=self.potential, gradient=self.gradient)
        if self.potential is None and self.gradient is None:
            raise ValueError("OverdampedLangevin: give potential=U or gradient=∇U, as functions of x")
        check_numbers(self, "temperature", above=0.0)

    @cached_property
    def potential_gradient(self) -> Potential:
        """`x -> ∇U`."""
        return self.gradient if self.gradient is not None else gradient_of(_given(self, self.potential))

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """−∇U(x)."""
        return -self.potential_gradient(x)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """√(2T)."""
        return torch.full((), math.sqrt(2.0 * self.temperature), dtype=x.dtype, device=x.device)

    def log_density(self, x: Tensor) -> Tensor:
        """−U(x)/T `(B,)`: the logarithm of the stationary density but for a constant."""
        check_state("x", x)
        return -_given(self, self.potential)(x) / self.temperature


@dataclass(frozen=True)
class UnderdampedLangevin(Additive):
    """Position and velocity in a potential: dx = v dt, dv = −γ v dt − u ∇U(x) dt + √(2γu) dW.

    The state is `(B, 2, *shape)`, positions `[:, 0]` and velocities `[:, 1]`. The stationary law is
    exp(−U(x)) N(v; 0, u I).

    Args:
        gradient: `x -> ∇U`, of the shape of x; None to find it by automatic differentiation.
        gamma: friction.
        u: inverse mass (in units where the temperature is 1): the variance of a velocity.
        potential: `x -> U`, shape `(B,)`; None if only the gradient is known.

    Raises:
        TypeError: potential or gradient is not a function.
        ValueError: both are missing, or gamma or u is not positive.

    Reference: Foster, Reis, Strange (2024), arXiv 2101.03446, equation 1.1.
    """

    gradient: Potential | None = None
    gamma: float = 1.0
    u: float = 1.0
    potential: Potential | None = None

    def __post_init__(self) -> None:
        _check_functions(self, potential=self.potential, gradient=self.gradient)
        if self.potential is None and self.gradient is None:
            raise ValueError("UnderdampedLangevin: give potential=U or gradient=∇U, as functions of x")
        check_numbers(self, "gamma", "u", above=0.0)

    @cached_property
    def potential_gradient(self) -> Potential:
        """`x -> ∇U`."""
        return self.gradient if self.gradient is not None else gradient_of(_given(self, self.potential))

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """(v, −γ v − u ∇U(x))."""
        position, velocity = x.unbind(1)
        return torch.stack((velocity, -self.gamma * velocity - self.u * self.potential_gradient(position)), dim=1)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """(0, √(2γu)), shape `(1, 2, 1, …, 1)`."""
        g = torch.tensor([0.0, math.sqrt(2.0 * self.gamma * self.u)], dtype=x.dtype, device=x.device)
        return g.reshape(1, 2, *(1,) * (x.ndim - 2))

    def log_density(self, x: Tensor) -> Tensor:
        """−U(x) − ‖v‖²/(2u) `(B,)`: the logarithm of the stationary density but for a constant."""
        position, velocity = x.unbind(1)
        return -_given(self, self.potential)(position) - velocity.square().flatten(1).sum(1) / (2.0 * self.u)


def _given(owner: object, potential: Potential | None) -> Potential:
    if potential is None:
        raise ValueError(f"{type(owner).__name__} was made without a potential: give potential=U to know its density")
    return potential


@dataclass(frozen=True)
class DoubleWell(Additive):
    """Two wells at ±width: dx = −U'(x) dt + √(2T) dW with U(x) = height ((x/width)² − 1)², every component alone.

    Args:
        height: of the barrier between the wells.
        width: distance of each well from the barrier.
        temperature: T.

    Raises:
        ValueError: a parameter is not positive.
    """

    height: float = 1.0
    width: float = 1.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self, "height", "width", "temperature", above=0.0)

    def potential(self, x: Tensor) -> Tensor:
        """U, summed over components: `(B,)`."""
        return self._energy(x).flatten(1).sum(1)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """−U'(x)."""
        return (-4.0 * self.height / self.width**2) * x * ((x / self.width).square() - 1.0)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """√(2T)."""
        return torch.full((), math.sqrt(2.0 * self.temperature), dtype=x.dtype, device=x.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density `(B,)` of the stationary law exp(−U/T)/Z."""
        check_state("x", x)
        return -self.potential(x) / self.temperature - x[0].numel() * self._log_normaliser

    def variance(self) -> float:
        """The stationary variance of a component, whose mean is 0."""
        grid, weight = self._stationary
        return float((weight * grid.square()).sum())

    def _energy(self, x: Tensor) -> Tensor:
        return self.height * ((x / self.width).square() - 1.0).square()

    @cached_property
    def _log_normaliser(self) -> float:
        grid = self._grid
        return float(torch.logsumexp(-self._energy(grid) / self.temperature, 0) + torch.log(grid[1] - grid[0]))

    @property
    def _stationary(self) -> tuple[Tensor, Tensor]:
        grid = self._grid
        return grid, torch.softmax(-self._energy(grid) / self.temperature, 0)

    @property
    def _grid(self) -> Tensor:
        # the trapezium rule converges faster than any power here; at its ends the density is below e^(−745)
        reach = self.width * math.sqrt(1.0 + math.sqrt(750.0 * self.temperature / self.height))
        return torch.linspace(-reach, reach, 4001, dtype=torch.float64)
