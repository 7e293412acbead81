"""Small systems from ecology, weather and neurons, with noise.

Dimension 1 of the state `(B, d, *shape)` holds the d variables of the system; all else are independent copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..arguments import check_numbers, check_state
from .contract import Additive, Diagonal


def _along_system(values: tuple[float, ...], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device).reshape(1, -1, *(1,) * (x.ndim - 2))


def _parts(owner: object, x: Tensor, count: int) -> tuple[Tensor, ...]:
    if x.ndim < 2 or x.shape[1] != count:
        raise ValueError(f"{type(owner).__name__}: the state x must be (B, {count}, …), got {tuple(x.shape)}")
    return x.unbind(1)


def _check(owner: object, positive: tuple[str, ...], not_negative: tuple[str, ...]) -> None:
    check_numbers(owner, *positive, above=0.0)
    check_numbers(owner, *not_negative, least=0.0)


@dataclass(frozen=True)
class LotkaVolterra(Diagonal):
    """Prey x and predators y in a noisy world (Itô), state (x, y):

        dx = x (α − β y) dt + σ₁ x dW₁,   dy = y (δ x − γ) dt + σ₂ y dW₂

    V = δx − γ ln x + βy − α ln y is constant without noise; with it, E[V(t)] = V(0) + ½ (γσ₁² + ασ₂²) t.

    Args:
        alpha, beta, delta, gamma: growth, predation, reproduction, death; positive.
        sigma1, sigma2: noise of prey and of predators.

    Raises:
        ValueError: a rate is not positive, or a noise is negative.

    Reference: Arató (2003), Computers and Mathematics with Applications 45, 709–716.
    """

    alpha: float = 1.0
    beta: float = 1.0
    delta: float = 1.0
    gamma: float = 1.0
    sigma1: float = 0.1
    sigma2: float = 0.1

    def __post_init__(self) -> None:
        _check(self, ("alpha", "beta", "delta", "gamma"), ("sigma1", "sigma2"))

    @property
    def equilibrium(self) -> tuple[float, float]:
        """Where the system rests without noise: (γ/δ, α/β)."""
        return self.gamma / self.delta, self.alpha / self.beta

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """(x (α − β y), y (δ x − γ))."""
        prey, predators = _parts(self, x, 2)
        rates = (prey * (self.alpha - self.beta * predators), predators * (self.delta * prey - self.gamma))
        return torch.stack(rates, dim=1)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """(σ₁ x, σ₂ y)."""
        return _along_system((self.sigma1, self.sigma2), x) * x

    def invariant(self, x: Tensor) -> Tensor:
        """V `(B, *shape)`, whose mean grows at the rate `invariant_rate`."""
        check_state("x", x)
        prey, predators = _parts(self, x, 2)
        return (
            self.delta * prey - self.gamma * torch.log(prey) + self.beta * predators - self.alpha * torch.log(predators)
        )

    @property
    def invariant_rate(self) -> float:
        """½ (γσ₁² + ασ₂²)."""
        return 0.5 * (self.gamma * self.sigma1**2 + self.alpha * self.sigma2**2)


@dataclass(frozen=True)
class Lorenz(Additive):
    """Lorenz's convection with additive noise, state (x, y, z):

        dx = s (y − x) dt + g dW₁,   dy = (x (r − z) − y) dt + g dW₂,   dz = (x y − b z) dt + g dW₃

    Volumes shrink at the constant rate s + 1 + b.

    Args:
        s, r, b: Prandtl number, Rayleigh number, aspect; positive.
        g: strength of the noise.

    Raises:
        ValueError: s, r or b is not positive, or g is negative.

    Reference: Lorenz (1963), J. Atmos. Sci. 20(2), equations 25 to 27.
    """

    s: float = 10.0
    r: float = 28.0
    b: float = 8.0 / 3.0
    g: float = 0.5

    def __post_init__(self) -> None:
        _check(self, ("s", "r", "b"), ("g",))

    @property
    def equilibria(self) -> Tensor:
        """Where the system rests without noise: `(1, 3)` for r ≤ 1, else `(3, 3)`; float64."""
        at = math.sqrt(self.b * max(self.r - 1.0, 0.0))
        points = [[0.0, 0.0, 0.0]] + [[sign * at, sign * at, self.r - 1.0] for sign in (1.0, -1.0) if self.r > 1.0]
        return torch.tensor(points, dtype=torch.float64)

    @property
    def divergence(self) -> float:
        """∇·f = −(s + 1 + b)."""
        return -(self.s + 1.0 + self.b)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """(s (y − x), x (r − z) − y, x y − b z)."""
        a, b, c = _parts(self, x, 3)
        return torch.stack((self.s * (b - a), a * (self.r - c) - b, a * b - self.b * c), dim=1)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """The constant g."""
        return torch.full((), self.g, dtype=x.dtype, device=x.device)


@dataclass(frozen=True)
class FitzHughNagumo(Additive):
    """An excitable neuron, state (v, w), voltage and recovery, with noise on each:

        dv = (v − v³/3 − w + I) dt + σ₁ dW₁,   dw = ε (v + a − b w) dt + σ₂ dW₂

    Args:
        a, b, epsilon: of the recovery; b and epsilon positive, epsilon small.
        current: I.
        sigma1, sigma2: noise of voltage and of recovery.

    Raises:
        ValueError: b or epsilon is not positive, or a noise is negative.

    Reference: FitzHugh (1961), Biophysical Journal 1(6), equations 1 and 2.
    """

    a: float = 0.7
    b: float = 0.8
    epsilon: float = 0.08
    current: float = 0.5
    sigma1: float = 0.1
    sigma2: float = 0.0

    def __post_init__(self) -> None:
        _check(self, ("epsilon", "b"), ("sigma1", "sigma2"))
        check_numbers(self, "a", "current")

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """(v − v³/3 − w + I, ε (v + a − b w))."""
        v, w = _parts(self, x, 2)
        return torch.stack((v - v**3 / 3.0 - w + self.current, self.epsilon * (v + self.a - self.b * w)), dim=1)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """(σ₁, σ₂), shape `(1, 2, 1, …, 1)`."""
        return _along_system((self.sigma1, self.sigma2), x)

    @property
    def equilibria(self) -> Tensor:
        """Where the system rests without noise, `(n, 2)`, n from 1 to 3; float64."""
        # v − v³/3 − (v + a)/b + I = 0
        companion = torch.tensor(
            [
                [0.0, 0.0, 3.0 * (self.current - self.a / self.b)],
                [1.0, 0.0, 3.0 * (1.0 - 1.0 / self.b)],
                [0.0, 1.0, 0.0],
            ],
            dtype=torch.float64,
        )
        roots = cast(Tensor, torch.linalg.eigvals(companion))
        v = roots.real[roots.imag.abs() < 1e-9 * (1.0 + roots.abs())]
        return torch.stack((v, (v + self.a) / self.b), dim=1)
