"""Splitting methods for underdamped Langevin dynamics.

    dx = v dt,   dv = −γ v dt − u ∇U(x) dt + σ dW,   σ = √(2γu)

Notation and shapes
    state   `(B, 2, *shape)`, positions x = `[:, 0]` and velocities v = `[:, 1]`
    F       the force −u ∇U(x), read off the drift at v = 0
    φ₁, φ₂  as in `sdekit.phi`; all coefficients are functions of γh that stay exact as γh → 0

The SDE is any with this drift and the attributes `gamma` and `u`, such as `UnderdampedLangevin`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import Incompatible
from ..phi import phi1, phi2
from ..protocols import SDE, Increment, Levy, Noise, Order, Span, Step, match
from .runge_kutta import stage_time


def _check(solver: object, sde: Any, x: Tensor) -> None:
    name = type(solver).__name__
    if not (hasattr(sde, "gamma") and hasattr(sde, "u")):
        raise Incompatible(
            f"{name} solves dx = v dt, dv = −γ v dt − u ∇U(x) dt + √(2γu) dW only: pass UnderdampedLangevin(gradient, "
            f"gamma, u), or for other SDEs with additive noise use SRA1()."
        )
    if x.ndim < 2 or x.shape[1] != 2:
        raise Incompatible(
            f"{name} needs positions and velocities stacked along dimension 1, (B, 2, *shape); the state has shape "
            f"{tuple(x.shape)}. Start from torch.stack((x, v), dim=1)."
        )


def _force(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    return sde.drift(t, torch.stack((x, torch.zeros_like(x)), dim=1))[:, 1]


def _noise(dw: Increment | None, solver: object) -> Increment:
    """What acts on the velocities."""
    if dw is None:
        raise Incompatible(f"{type(solver).__name__} needs the noise of UnderdampedLangevin; for an ODE use Dopri5()")
    return dw.map(lambda part: part[:, 1])


class _Coefficients:
    """Functions of γh, ready to multiply positions."""

    def __init__(self, sde: Any, span: Span, like: Tensor) -> None:
        h = span.h
        # a step of its own for every sample has one dimension more than the positions
        self.h = h[:, 0] if isinstance(h, Tensor) and h.ndim > 0 else torch.as_tensor(h, dtype=torch.float64)
        self.rate, self.sigma, self._like = float(sde.gamma) * self.h, math.sqrt(2.0 * sde.gamma * sde.u), like

    def decay(self, part: float) -> Any:
        """`e^(−γh part)`."""
        return match(torch.exp(-part * self.rate.to(torch.float64)), self._like)

    def drift(self, part: float) -> Any:
        """How far a velocity moves its position over a part of the step: `(1 − e^(−γh part))/γ`."""
        return match(part * self.h * phi1(-part * self.rate), self._like)

    def push(self, part: float) -> Any:
        """How far a constant acceleration 1/h moves a position over a part of the step."""
        return match(part * part * self.h * phi2(-part * self.rate), self._like)

    def kick(self) -> Any:
        """What a constant acceleration 1/h leaves of itself in the velocity: `(1 − e^(−γh))/(γh)`."""
        return match(phi1(-self.rate), self._like)

    def heat(self) -> Any:
        """Standard deviation of `∫ e^(−γ(h−s)) dW`, by that of W."""
        return match(phi1(-2.0 * self.rate).sqrt(), self._like)


@dataclass(frozen=True)
class BAOAB:
    """Half a kick, half a drift, friction and noise exactly, half a drift, half a kick; one gradient a step.

        v ← v + ½h F(x);  x ← x + ½h v;  v ← e^(−γh) v + σ √φ₁(−2γh) W;  x ← x + ½h v;  v ← v + ½h F(x)

    Strong order 1, weak order 2. Its stationary law of positions is more accurate than that, and exact for quadratic U.

    Raises Incompatible for other SDEs than underdamped Langevin dynamics.

    Reference: Leimkuhler, Matthews (2013), Appl. Math. Res. eXpress 2013(1), §3.
    """

    calculus = None
    levy = Levy.W
    error_order = None
    orders = {Noise.ADDITIVE: Order(1.0, 2.0)}

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Any:
        _check(self, sde, x)
        return _force(sde, t, x[:, 0])

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        noise, (position, velocity) = _noise(dw, self), x.unbind(1)
        c = _Coefficients(sde, span, position)
        half = match(0.5 * c.h, position)
        velocity = velocity + half * state
        position = position + half * velocity
        velocity = c.decay(1.0) * velocity + c.sigma * c.heat() * noise.W
        position = position + half * velocity
        force = _force(sde, span.t1, position)
        return Step(torch.stack((position, velocity + half * force), dim=1), state=force)


_LEFT, _RIGHT = (3.0 - math.sqrt(3.0)) / 6.0, (3.0 + math.sqrt(3.0)) / 6.0  # Gauss–Legendre on [0, 1]


@dataclass(frozen=True)
class QUICSORT:
    """A third-order splitting with two gradients a step, from the shape (W, H, K) of the path.

    The path is replaced by a line of the same W, H and K between two jumps, and the ODE along that line is integrated
    with friction exact and the force by Gauss's two points. With V = v + σ(H + 6K) and C = σ(W − 12K), over λh

        x(λ) = x + (1 − e^(−λγh))/γ V + λ² h φ₂(−λγh) C + ∫ (1 − e^(−γ(λh − s)))/γ F ds

    Strong and weak order 3 for potentials with enough bounded derivatives.

    Raises Incompatible for other SDEs than underdamped Langevin dynamics.

    Reference: Scott, O'Kane, Jelinčič, Foster (2025), "Underdamped Langevin MCMC with third order convergence"; Foster,
    Lyons, Oberhauser (2021), "The shifted ODE method for underdamped Langevin MCMC", for the line between jumps.
    """

    calculus = None
    levy = Levy.K
    error_order = None
    orders = {Noise.ADDITIVE: Order(3.0, 3.0)}

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Any:
        _check(self, sde, x)

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        noise, (x0, v0) = _noise(dw, self), x.unbind(1)
        assert noise.H is not None
        assert noise.K is not None
        c = _Coefficients(sde, span, x0)
        h = match(c.h, x0)
        v = v0 + c.sigma * (noise.H + 6.0 * noise.K)
        slope = c.sigma * (noise.W - 12.0 * noise.K)
        left = x0 + c.drift(_LEFT) * v + c.push(_LEFT) * slope
        first = _force(sde, stage_time(span, _LEFT), left) * h
        right = x0 + c.drift(_RIGHT) * v + c.push(_RIGHT) * slope + c.drift(1 / 3) * first
        second = _force(sde, stage_time(span, _RIGHT), right) * h
        # a force at one of Gauss's points acts over the rest of the step, which is the other point's part
        moved, turned = (k(_RIGHT) * first + k(_LEFT) * second for k in (c.drift, c.decay))
        position = x0 + c.drift(1.0) * v + c.push(1.0) * slope + 0.5 * moved
        velocity = c.decay(1.0) * v + c.kick() * slope + 0.5 * turned
        return Step(torch.stack((position, velocity - c.sigma * (noise.H - 6.0 * noise.K)), dim=1))
