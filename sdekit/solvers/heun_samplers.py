"""Heun's rule as a sampler: in the noise level σ with churn (EDM), and with an error estimate for SDEs (Gotta Go
Fast).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import SDE, Increment, Levy, Noise, Order, Span, Step, advance, apply, diffuse, match
from ..random import Purpose
from .contract import Memoryless
from .exponential import NoiseForm, affine_process


@dataclass(frozen=True)
class EDMHeun:
    """Heun's method on dx̃/dσ = ε, after raising the noise by a factor: the sampler of EDM. Order 2, two calls a step.

        x̂ = x̃₀ + S √(σ̂² − σ₀²) z,  σ̂ = (1 + γ) σ₀,     x̃₁ = x̂ + (σ₁ − σ̂) ½(ε(σ̂, x̂) + ε(σ₁, x̃₁′)),  x̃₁′ by
        Euler

    A step to σ = 0 is Euler's, with one call. For probability_flow(process, score); its own noise is keyed, and
    carries an error estimate for `Adaptive` steps.

    gamma: γ in [0, √2 − 1], the paper's S_churn divided by the number of steps; 0 is the deterministic method.
    sigma_min, sigma_max: noise levels between which γ acts.  noise_scale: S, a little above 1 to make up for lost
    detail.

    Raises:
        ValueError: gamma outside of [0, √2 − 1], or noise_scale not positive.

    Reference: Karras et al. (2022), arXiv 2206.00364, algorithms 1 and 2.
    """

    gamma: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    noise_scale: float = 1.0

    calculus = None
    levy = Levy.W
    error_order = 2.0
    orders = {Noise.NONE: Order(2.0, 2.0)}

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= math.sqrt(2.0) - 1.0 + 1e-12:
            raise ValueError(f"EDMHeun: gamma is S_churn/steps, between 0 and √2 − 1 = 0.414, got {self.gamma!r}")
        if not self.noise_scale > 0.0:
            raise ValueError(f"EDMHeun: noise_scale must be positive, got {self.noise_scale!r}")

    def init(self, sde: Any, t: Tensor, x: Tensor) -> None:
        affine_process(sde, "EDMHeun")

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        process, form, (t0, t1) = sde.process, NoiseForm(), span[:2]
        if self.gamma:
            t0, x = self._churn(process, span, x)
        slope = form.value(sde, t0, x)
        ratio = process.scale(t1) / process.scale(t0)
        rise = match(process.std(t1) - ratio * process.std(t0), x)
        euler = match(ratio, x) * x + rise * slope
        if not bool((process.std(t1) > 0).all()):
            return Step(euler, error=torch.zeros_like(x), mean=euler)
        turn = 0.5 * rise * (form.value(sde, t1, euler) - slope)
        return Step(euler + turn, error=turn, mean=euler + turn)

    def _churn(self, process: Any, span: Span, x: Tensor) -> tuple[Tensor, Tensor]:
        """Time and state after noise has been added, sample by sample where the level lies between the bounds."""
        log_sigma = process.log_sigma(span.t0)
        inside = (log_sigma.exp() >= self.sigma_min) & (log_sigma.exp() <= self.sigma_max)
        gamma = torch.where(inside, self.gamma, torch.zeros_like(log_sigma))
        t = torch.where(inside, process.time(log_sigma + torch.log1p(gamma)), span.t0)
        ratio = process.scale(t) / process.scale(span.t0)
        # ŝ √(σ̂² − σ₀²) = ŝ/s₀ std₀ √(γ (2 + γ))
        spread = self.noise_scale * ratio * process.std(span.t0) * torch.sqrt(gamma * (2.0 + gamma))
        return t, match(ratio, x) * x + match(spread, x) * span.normal(Purpose.CHURN, x)


@dataclass(frozen=True)
class GottaGoFast(Memoryless):
    """Stochastic improved Euler with its distance from Euler–Maruyama as error estimate, on one and the same noise.

        x′ = x + f h + G W,    x″ = x + ½(f + f(t₁, x′)) h + ½(G + G(t₁)) W,    error x″ − x′

    Two calls a step; returns x″. Meant for `Adaptive` steps, which give every sample steps of its own along one
    Brownian tree, so that a rejected step does not redraw its noise. Suggested: `Adaptive(rtol=0.01, atol=0.0078,
    pid=(0, 1.35, 0))` for states between −1 and 1, then `denoise` at the end.

    Reference: Jolicoeur-Martineau et al. (2021), arXiv 2105.14080, algorithm 1.
    """

    calculus = None
    levy = Levy.W
    error_order = 1.5
    orders = {Noise.NONE: Order(2.0, 2.0), Noise.ADDITIVE: Order(1.0, 2.0)}

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        f = sde.drift(span.t0, x)
        euler = advance(x, f, span.h)
        if dw is None:
            turn = 0.5 * span.h * (sde.drift(span.t1, euler) - f)
            return Step(euler + turn, error=turn, mean=euler + turn)
        g0, g1 = sde.diffusion(span.t0, x), sde.diffusion(span.t1, x)
        euler = diffuse(euler, g0, dw.W)
        mean = advance(x, 0.5 * (f + sde.drift(span.t1, euler)), span.h)
        new = mean + 0.5 * (apply(g0, dw.W) + apply(g1, dw.W))
        return Step(new, error=new - euler, mean=mean)
