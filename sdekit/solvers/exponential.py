"""The probability flow of an affine process, and its SDEs, with the linear part solved exactly.

For x(t) = s (x(0) + σ z), x̃ = x/s and λ = −ln σ, every member of the family that `reverse` makes with churn c, η =
c², reads

    dx̃ = (1 + η)(D − x̃) dλ + √(2η) σ dW_λ,      D(t, x) = E[x(0) | x(t) = x] = (x + std² ∇log p_t)/s

so all affine processes are one process in (x̃, σ). A `Form` says what is held as a polynomial along the step while the
rest is integrated exactly. With τ the form's clock, v = (τ − τ₀)/(τ₁ − τ₀) and Y the quantity held,

    x₁ = carry x₀ + gain ∫₀¹ κ(v) Y(v) dv + spread z

Coefficients are float64 and written with s and std = s σ, which stay finite where s reaches 0.

Notation and shapes
    h        λ₁ − λ₀: positive towards the data, infinite where σ₁ = 0
    η        squared churn; 0 for the probability flow
    weights  of known values Y_j at clock times τ_j, `∫ κ ℓ_j dv` with the Lagrange polynomials ℓ_j; shape of the times

Reference: Lu et al. (2022), arXiv 2211.01095, appendix A; Gonzalez et al. (2023), arXiv 2305.14267; Karras et al.
(2022), arXiv 2206.00364, equation 7 and appendix B.6 (the preconditioned quantity F).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..arguments import check_state
from ..errors import Incompatible
from ..protocols import Affine, Increment, Score, Span, broadcast, match, time_beside
from ..random import Purpose

# 24 Gauss–Legendre points integrate κ times a polynomial to rounding for every h that a sampler takes (up to 30)
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(24)
_POINTS, _POINT_WEIGHTS = torch.from_numpy(0.5 * (_NODES + 1.0)), torch.from_numpy(0.5 * _NODE_WEIGHTS)


def points(like: Tensor) -> Tensor:
    """Quadrature points in [0, 1]."""
    return _POINTS.to(like.device)


def point_weights(like: Tensor) -> Tensor:
    """Their weights, which sum to 1."""
    return _POINT_WEIGHTS.to(like.device)


def denoise(process: Affine, score: Score, t: Tensor | float, x: Tensor) -> Tensor:
    """`D = (x + std² ∇log p_t(x)) / s`, the mean of the clean data given x(t) = x; one call of the score.

    t: float, 0-d or `(B, 1, …, 1)`. Returns a tensor like x. As the last step of sampling it takes x(t_min) to the
    data.

    Raises TypeError or ValueError for an x that is no batch of states.

    Reference: Robbins (1956); Efron (2011), J. Am. Stat. Assoc. 106, equation 1.4 (Tweedie's formula).
    """
    check_state("x", x, valued=False)
    time = time_beside(t, x)
    value = score(time.to(x.dtype) if time.ndim else time, x)
    return match(1.0 / process.scale(time), x) * (x + match(process.std(time).square(), x) * value)


def affine_process(sde: Any, name: str) -> Any:
    """The affine process behind a `reverse(…)` or `probability_flow(…)`; raises Incompatible where there is none."""
    process = getattr(sde, "process", None)
    if hasattr(process, "log_sigma") and hasattr(sde, "score"):
        return process
    raise Incompatible(
        f"{name} integrates the affine part of a diffusion process exactly: it needs probability_flow(process, score) "
        "or reverse(process, score) of VP(), VE(), EDM(), AffineProcess(…). For others use EulerMaruyama() or Heun()."
    )


def check_eta(owner: object, eta: float | None) -> None:
    """Raise ValueError unless eta is None, or finite and not negative."""
    if eta is not None and not 0.0 <= eta < float("inf"):
        raise ValueError(f"{type(owner).__name__}: eta must be 0 or more, or None to follow the SDE, got {eta!r}")


def eta_of(eta: float | None, sde: Any) -> float:
    """The amount of noise η: as given, else the squared churn of the SDE."""
    return float(getattr(sde, "churn", 0.0)) ** 2 if eta is None else eta


def unit_noise(span: Span, x: Tensor, dw: Increment | None) -> Tensor:
    """Standard normals of the step: the Brownian path's, or keyed draws where the SDE has no noise of its own."""
    if dw is None:
        return span.normal(Purpose.CHURN, x)
    h = span.h
    return dw.W / (h.abs().sqrt() if isinstance(h, Tensor) else abs(h) ** 0.5)


class Leg(NamedTuple):
    """One step: `x₁ = carry x₀ + gain Σ w_j Y_j + spread z`; kernel `(…, Q)` is κ at the quadrature points times their
    weights, total is ∫ κ, which the weights sum to.
    """

    clock0: Tensor
    clock1: Tensor
    carry: Tensor
    gain: Tensor
    total: Tensor
    kernel: Tensor
    spread: Tensor

    @property
    def singular(self) -> bool:
        """Whether the clock runs to infinity, where no polynomial can follow: such a step holds Y constant."""
        return not bool(torch.isfinite(self.clock1).all())

    def weights(self, clocks: Sequence[Tensor]) -> list[Tensor]:
        """Weights of values known at these clock times, the first of which takes what the others leave of `total`."""
        if len(clocks) == 1:
            return [self.total]
        nodes = torch.stack(broadcast(*clocks), -1)
        nodes = (nodes - self.clock0.unsqueeze(-1)) / (self.clock1 - self.clock0).unsqueeze(-1)
        weights: list[Tensor] = []
        for j in range(1, len(clocks)):
            others = torch.cat((nodes[..., :j], nodes[..., j + 1 :]), -1).unsqueeze(-1)
            basis = ((points(others) - others) / (nodes[..., j, None, None] - others)).prod(-2)
            weights.append((self.kernel * basis).sum(-1))
        return [self.total - sum(weights), *weights]


class Form(Protocol):
    """What is held as a polynomial along a step."""

    def clock(self, process: Affine, t: Tensor) -> Tensor: ...
    def value(self, sde: Any, t: Tensor, x: Tensor) -> Tensor: ...
    def leg(self, process: Affine, t0: Tensor, t1: Tensor, eta: float) -> Leg: ...


@dataclass(frozen=True)
class DataForm:
    """Holds the denoised data D, a polynomial in λ: the form of DPM-Solver++."""

    def clock(self, process: Affine, t: Tensor) -> Tensor:
        return -process.log_sigma(t)

    def value(self, sde: Any, t: Tensor, x: Tensor) -> Tensor:
        return denoise(sde.process, sde.score, t, x)

    def leg(self, process: Affine, t0: Tensor, t1: Tensor, eta: float = 0.0) -> Leg:
        clock0, clock1 = self.clock(process, t0), self.clock(process, t1)
        h = clock1 - clock0
        a = (1.0 + eta) * h
        carry, std1 = process.std(t1) / process.std(t0), process.std(t1)
        spread = torch.zeros_like(std1)
        if eta:
            carry, spread = carry * torch.exp(-eta * h), std1 * torch.sqrt(-torch.expm1(-2.0 * eta * h))
        kernel = point_weights(a) * a.unsqueeze(-1) * torch.exp(-a.unsqueeze(-1) * (1.0 - points(a)))
        return Leg(clock0, clock1, carry, process.scale(t1), -torch.expm1(-a), kernel, spread)


@dataclass(frozen=True)
class NoiseForm:
    """Holds the noise ε = −std ∇log p_t, a polynomial in λ: the form of DPM-Solver, DEIS and SEEDS."""

    def clock(self, process: Affine, t: Tensor) -> Tensor:
        return -process.log_sigma(t)

    def value(self, sde: Any, t: Tensor, x: Tensor) -> Tensor:
        return match(-sde.process.std(t), x) * sde.score(t, x)

    def leg(self, process: Affine, t0: Tensor, t1: Tensor, eta: float = 0.0) -> Leg:
        clock0, clock1 = self.clock(process, t0), self.clock(process, t1)
        h, ratio = clock1 - clock0, process.scale(t1) / process.scale(t0)
        gain = (1.0 + eta) * ratio * process.std(t0)
        kernel = -point_weights(h) * h.unsqueeze(-1) * torch.exp(-h.unsqueeze(-1) * points(h))
        spread = ratio * process.std(t0) * torch.sqrt(-eta * torch.expm1(-2.0 * h)) if eta else torch.zeros_like(h)
        return Leg(clock0, clock1, ratio, gain, torch.expm1(-h), kernel, spread)


@dataclass(frozen=True)
class VelocityForm:
    """Holds Karras's F, a polynomial in the angle φ = atan(σ/c): what is left of D when data of std c are accounted
    for.

        D = c²/(c² + σ²) x̃ + c σ/√(c² + σ²) F,       d(x̃/R) = −F dφ,   R² = c² + σ²

    F = 0 for data N(0, c²), for which every step is then exact, noise included. The angle is finite for all σ from 0
    to ∞, so that steps to and from either keep their order. c → 0 holds D, c → ∞ holds ε.
    """

    sigma_data: float = 0.5

    def clock(self, process: Affine, t: Tensor) -> Tensor:
        return -torch.atan2(process.std(t), self.sigma_data * process.scale(t))

    def value(self, sde: Any, t: Tensor, x: Tensor) -> Tensor:
        c, s, std = self.sigma_data, sde.process.scale(t), sde.process.std(t)
        radius = torch.hypot(c * s, std)
        return match(std * radius / (c * s), x) * sde.score(t, x) + match(std / (c * s * radius), x) * x

    def leg(self, process: Affine, t0: Tensor, t1: Tensor, eta: float = 0.0) -> Leg:
        c = self.sigma_data
        clock0, clock1 = self.clock(process, t0), self.clock(process, t1)
        radius0, radius1 = (torch.hypot(c * process.scale(t), process.std(t)) for t in (t0, t1))
        carry, length = radius1 / radius0, clock1 - clock0
        total, spread = length, torch.zeros_like(length)
        kernel = point_weights(length) * length.unsqueeze(-1)
        if eta:
            # (R₁/R)^η along the step, R = c / cos φ
            shrink = torch.cos(clock0) / torch.cos(clock1)
            angles = clock0.unsqueeze(-1) + length.unsqueeze(-1) * points(length)
            kernel = kernel * (1.0 + eta) * (torch.cos(angles) / torch.cos(clock1).unsqueeze(-1)) ** eta
            total, carry = kernel.sum(-1), carry * shrink**eta
            spread = radius1 * torch.sqrt(-torch.expm1(2.0 * eta * torch.log(shrink)))
        return Leg(clock0, clock1, carry, radius1, total, kernel, spread)
