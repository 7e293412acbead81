"""SDEs made from plain functions.

An SDE is `dx = f(t, x) dt + G(t, x) dW` (Itô) or `dx = f(t, x) dt + G(t, x) ∘ dW` (Stratonovich).

Notation and shapes
    t       time, 0-d or `(B, 1, …, 1)`, so that `t * x` is always right
    x       state `(B, *shape)`
    f       `drift(t, x)`, of the shape of x
    G       `diffusion(t, x)`: a tensor that broadcasts to x (element-wise noise), or `Dense(matrix)` with matrix
            `(B, *shape, m)` for m Brownian motions

Any callable will do: a function, a lambda, a `torch.nn.Module` with parameters to be learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import Calculus, DiffusionFunction, Direction, Function, Noise
from .contract import ForwardIto

_MEANINGS = {
    Noise.ADDITIVE: "G(t) does not depend on x",
    Noise.DIAGONAL: "G is element-wise, component i a function of x_i only",
    Noise.SCALAR: "one Brownian motion drives all components",
    Noise.COMMUTATIVE: "the columns of G commute",
    Noise.GENERAL: "anything else",
}


def _check_function(owner: object, name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(
            f"{type(owner).__name__}: {name} must be a function of (t, x), got {value!r}. "
            f"For a constant write `{name}=lambda t, x: {value!r} * torch.ones_like(x)`."
        )


def _check_noise(owner: object, noise: object) -> None:
    choices = "; ".join(f"Noise.{n.name}: {meaning}" for n, meaning in _MEANINGS.items())
    if not isinstance(noise, Noise):
        raise TypeError(f"{type(owner).__name__}: noise must be a member of sdekit.Noise, got {noise!r}. {choices}.")
    if noise is Noise.NONE:
        raise ValueError(f"{type(owner).__name__} with Noise.NONE is an ODE: write ODE(drift).")


def _check_direction(owner: object, direction: object) -> None:
    if not isinstance(direction, Direction):
        raise TypeError(
            f"{type(owner).__name__}: direction must be Direction.FORWARD or Direction.BACKWARD, got {direction!r}."
        )


@dataclass(frozen=True)
class _FunctionSDE:
    drift: Function
    diffusion: DiffusionFunction
    noise: Noise
    direction: Direction = Direction.FORWARD

    def __post_init__(self) -> None:
        _check_function(self, "drift", self.drift)
        _check_function(self, "diffusion", self.diffusion)
        _check_noise(self, self.noise)
        _check_direction(self, self.direction)


@dataclass(frozen=True)
class ItoSDE(_FunctionSDE):
    """An Itô SDE from two functions: dx = f(t, x) dt + G(t, x) dW.

    Args:
        drift: `(t, x) -> f`, of the shape of x.
        diffusion: `(t, x) -> G`: a tensor that broadcasts to x, or `Dense(matrix)` with matrix `(B, *shape, m)`.
        noise: what G depends on; solvers are chosen by it, and `check_noise` measures it.
        direction: the direction of time in which the law runs; BACKWARD is what `reverse` makes.

    Raises:
        TypeError: drift or diffusion is not callable, or noise or direction is not of its enumeration.
        ValueError: noise is Noise.NONE, which is an ODE.
    """

    @property
    def calculus(self) -> Calculus:
        return Calculus.ITO


@dataclass(frozen=True)
class StratonovichSDE(_FunctionSDE):
    """A Stratonovich SDE from two functions: dx = f(t, x) dt + G(t, x) ∘ dW.

    Arguments and errors are those of `ItoSDE`. `to_ito` gives the Itô SDE with the same solutions.
    """

    @property
    def calculus(self) -> Calculus:
        return Calculus.STRATONOVICH


@dataclass(frozen=True)
class ODE(ForwardIto):
    """An ordinary differential equation dx/dt = f(t, x). It may be solved in both directions of time.

    Args:
        drift: `(t, x) -> f`, of the shape of x.

    Raises:
        TypeError: drift is not callable.
    """

    drift: Function

    def __post_init__(self) -> None:
        _check_function(self, "drift", self.drift)

    @property
    def noise(self) -> Noise:
        return Noise.NONE

    def diffusion(self, t: Any, x: Tensor) -> Tensor:
        """Zero, for code that asks every SDE for its diffusion."""
        return torch.zeros((), dtype=x.dtype, device=x.device)
