"""Samplers that carry nothing from step to step: DDIM, DPM-Solver and SEEDS. See `exponential` for the notation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import Incompatible
from ..protocols import Increment, Levy, Noise, Order, Span, Step, match
from ..random import Purpose
from .exponential import Leg, NoiseForm, affine_process, check_eta, denoise, eta_of, unit_noise


@dataclass(frozen=True)
class DDIM:
    """DDIM: `x̃₁ = D + √(σ₁² − v)/σ₀ (x̃₀ − D) + √v z`, v = η² σ₁² (1 − σ₁²/σ₀²): one call a step, order 1.

    eta: η of the paper's equation 16, from 0 (deterministic) to 1 (ancestral sampling); None takes the SDE's churn: 0
    for probability_flow, 1 for reverse. With a number the amount of noise is that, on either.

    Raises:
        ValueError: eta is not between 0 and 1.  Incompatible: the SDE's churn is above 1, or it has no affine process.

    Reference: Song, Meng, Ermon (2021), arXiv 2010.02502, equations 12 and 16.
    """

    eta: float | None = None

    calculus = None
    levy = Levy.W
    error_order = None
    orders = {Noise.NONE: Order(1.0, 1.0), Noise.ADDITIVE: Order(1.0, 1.0)}

    def __post_init__(self) -> None:
        if self.eta is not None and not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"DDIM: eta is between 0 and 1, or None to follow the SDE, got {self.eta!r}")

    def _eta(self, sde: Any) -> float:
        return float(sde.churn) if self.eta is None else self.eta

    def init(self, sde: Any, t: Tensor, x: Tensor) -> None:
        affine_process(sde, "DDIM")
        if self._eta(sde) > 1.0:
            raise Incompatible(f"DDIM has noise up to eta = 1, and this SDE has churn {sde.churn}; use DPMSolverPP(1)")

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        process, eta, (t0, t1) = sde.process, self._eta(sde), span[:2]
        data = denoise(process, sde.score, t0, x)
        fresh = -torch.expm1(2.0 * (process.log_sigma(t1) - process.log_sigma(t0)))
        log_keep = process.log_sigma(t1) - process.log_sigma(t0) + 0.5 * torch.log1p(-(eta**2) * fresh)
        mean = match(process.scale(t1) / process.scale(t0) * torch.exp(log_keep), x) * x
        mean = mean - match(process.scale(t1) * torch.expm1(log_keep), x) * data
        if not eta:
            return Step(mean, mean=mean)
        return Step(mean + match(eta * process.std(t1) * fresh.sqrt(), x) * unit_noise(span, x, dw), mean=mean)


def _between(process: Any, t0: Tensor, t1: Tensor, fraction: float) -> Tensor:
    """The time at this fraction of the way in λ."""
    return process.time(torch.lerp(process.log_sigma(t0), process.log_sigma(t1), fraction))


def _move(leg: Leg, x: Tensor, value: Tensor) -> Tensor:
    """`carry x + gain ∫κ Y` with Y constant."""
    return match(leg.carry, x) * x + match(leg.gain * leg.total, x) * value


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver-1, -2 and -3: exponential Runge–Kutta steps on the noise ε, with `order` calls of the score a step.

    order 2: the midpoint in λ.  order 3: stages at 1/3 and 2/3 of the way in λ. Orders 2 and 3 carry the embedded
    solution of one order less, so that with `Adaptive` steps they are DPM-Solver-12 and -23. A step to σ = 0 is of
    order 1.

    Raises:
        ValueError: order is not 1, 2 or 3.

    Reference: Lu et al. (2022), arXiv 2206.00927, algorithms 1, 2 and appendix C (adaptive step size).
    """

    order: int = 3

    calculus = None
    levy = Levy.W

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"DPMSolver: order is 1, 2 or 3, got {self.order!r}; DEIS(order=4) goes higher")

    @property
    def orders(self) -> dict[Noise, Order]:
        return {Noise.NONE: Order(float(self.order), float(self.order))}

    @property
    def error_order(self) -> float | None:
        return None if self.order == 1 else float(self.order)

    def init(self, sde: Any, t: Tensor, x: Tensor) -> None:
        affine_process(sde, "DPMSolver")

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        form, process, (t0, t1) = NoiseForm(), sde.process, span[:2]
        noise = form.value(sde, t0, x)
        leg = form.leg(process, t0, t1)
        simple = _move(leg, x, noise)
        if self.order == 1 or leg.singular:
            return Step(simple, error=torch.zeros_like(x), mean=simple)
        first = 1.0 / self.order
        t = _between(process, t0, t1, first)
        bend = form.value(sde, t, _move(form.leg(process, t0, t), x, noise)) - noise
        midpoint = simple + match(leg.gain * leg.total / (2.0 * first), x) * bend
        if self.order == 2:
            return Step(midpoint, error=midpoint - simple, mean=midpoint)
        slope_at = form.clock(process, t)
        t = _between(process, t0, t1, 2.0 / 3.0)
        stage = form.leg(process, t0, t)
        y = _move(stage, x, noise) + match(stage.gain * stage.weights([stage.clock0, slope_at])[1], x) * bend
        bend = form.value(sde, t, y) - noise
        new = simple + match(leg.gain * leg.weights([leg.clock0, form.clock(process, t)])[1], x) * bend
        return Step(new, error=new - midpoint, mean=new)


@dataclass(frozen=True)
class SEEDS:
    """SEEDS-1 and -2: stochastic exponential Runge–Kutta steps on the noise ε, for reverse(process, score).

    order 1: `x̃₁ = x̃₀ − (1 + η)(σ₀ − σ₁) ε + √(η (σ₀² − σ₁²)) z`, one call a step.
    order 2: ε taken at the midpoint in λ, reached with its own share of the noise; two calls a step, weak order 2.

    eta: η, None to take it from the SDE (1 for reverse).

    Raises:
        ValueError: order is not 1 or 2, or eta is negative.

    Reference: Gonzalez et al. (2023), arXiv 2305.14267, algorithms 1 and 2 (there η = 1).
    """

    order: int = 2
    eta: float | None = None

    calculus = None
    levy = Levy.H
    error_order = None

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"SEEDS: order is 1 or 2, got {self.order!r}")
        check_eta(self, self.eta)

    @property
    def orders(self) -> dict[Noise, Order]:
        return {Noise.NONE: Order(float(self.order), float(self.order)), Noise.ADDITIVE: Order(1.0, float(self.order))}

    def init(self, sde: Any, t: Tensor, x: Tensor) -> None:
        affine_process(sde, "SEEDS")

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        form, process, eta, (t0, t1) = NoiseForm(), sde.process, eta_of(self.eta, sde), span[:2]
        noise = form.value(sde, t0, x)
        leg = form.leg(process, t0, t1, eta)
        if self.order == 1 or leg.singular:
            mean = _move(leg, x, noise)
            return Step(mean + match(leg.spread, x) * unit_noise(span, x, dw) if eta else mean, mean=mean)
        middle = _between(process, t0, t1, 0.5)
        there = form.leg(process, t0, middle, eta)
        y = _move(there, x, noise)
        if not eta:
            mean = _move(leg, x, form.value(sde, middle, y))
            return Step(mean, mean=mean)
        z0, z1 = _two_normals(span, x, dw)
        kick = match(there.spread, x) * z0
        onward = form.leg(process, middle, t1, eta)
        mean = _move(leg, x, form.value(sde, middle, y + kick))
        return Step(mean + match(onward.carry, x) * kick + match(onward.spread, x) * z1, mean=mean)


def _two_normals(span: Span, x: Tensor, dw: Increment | None) -> tuple[Tensor, Tensor]:
    """Independent normals of the two halves of a step; with a path, those of W and H turned by 45°, which come closest
    to the halves' own increments.
    """
    z = unit_noise(span, x, dw)
    if dw is None:
        w = span.normal(Purpose.CHURN, x, part=1)
    else:
        assert dw.H is not None
        h = span.h
        w = dw.H * (12.0**0.5 / (h.abs().sqrt() if isinstance(h, Tensor) else abs(h) ** 0.5))
    return (z + w) * 0.5**0.5, (z - w) * 0.5**0.5
