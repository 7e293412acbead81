"""General noise: solutions that hold the Lévy area of two Brownian motions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...protocols import Dense, Noise
from ..path import RecordedPath
from ..problem import Moment
from .twins import (
    ROESSLER,
    Twins,
    twins,
)


def _zero(t: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def crossing_waves(alpha: float = 0.5) -> Twins:
    """S8: no drift, d = 2, m = 4, columns sin x₁·u, cos x₁·u, sin x₂·v, cos x₂·v.

    Here u = (cos α, sin α) and v = (−sin α, cos α).
    The corrections of the columns cancel in pairs, so both calculi read alike. A fine solution stands for the exact.
    """
    u = torch.tensor([math.cos(alpha), math.sin(alpha)], dtype=torch.float64)
    v = torch.tensor([-math.sin(alpha), math.cos(alpha)], dtype=torch.float64)

    def diffusion(t: Tensor, x: Tensor) -> Dense:
        x1, x2 = x[:, :1], x[:, 1:]
        return Dense(torch.stack((torch.sin(x1) * u, torch.cos(x1) * u, torch.sin(x2) * v, torch.cos(x2) * v), dim=-1))

    return twins(
        "S8 crossing waves, four motions",
        Noise.GENERAL,
        _zero,
        diffusion,
        _zero,
        (2.0, 2.0),
        None,
        0.5,
        reference=ROESSLER,
        refine=32,
        reads_alike=True,
    )


def levy_area() -> Twins:
    """S9: dX₁ = dW₁, dX₂ = X₁ dW₂; X₂ = x₂ + x₁W₂ + ½W₁W₂ + A₁₂, from (0, 0): E X₂² = t²/2."""

    def diffusion(t: Tensor, x: Tensor) -> Dense:
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        return Dense(torch.stack((torch.stack((one, zero), -1), torch.stack((zero, x[:, 0]), -1)), dim=1))

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w = path.w(s)
        second = x[:, 1] + x[:, 0] * w[:, 1] + 0.5 * w[:, 0] * w[:, 1] + path.area(s)[:, 0, 1]
        return torch.stack((x[:, 0] + w[:, 0], second), dim=-1)

    return twins(
        "S9 Lévy area",
        Noise.GENERAL,
        _zero,
        diffusion,
        _zero,
        (0.0, 0.0),
        exact,
        refine=16,
        moment=Moment(lambda x: x[:, 1].square(), lambda s: 0.5 * s * s),
        reads_alike=True,
    )


def exponential_area() -> Twins:
    """dX₁ = cos t dt + dW₁, dX₂ = X₁X₂ ∘ dW₂; X₁ = x₁ + sin t + W₁, X₂ = x₂ exp(x₁W₂ + ∫ sin r dW₂ + ½W₁W₂ + A₁₂).

    Its columns do not commute, it depends on time, is nonlinear, and its solution is exact.
    """

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack((torch.cos(t).expand(len(x)), 0.5 * x[:, 1] * x[:, 0] ** 2), dim=-1)

    def diffusion(t: Tensor, x: Tensor) -> Dense:
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        return Dense(torch.stack((torch.stack((one, zero), -1), torch.stack((zero, x[:, 0] * x[:, 1]), -1)), dim=1))

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack((torch.zeros_like(x[:, 0]), 0.5 * x[:, 1] * x[:, 0] ** 2), dim=-1)

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w1, w2 = path.w(s).unbind(-1)
        iterated = x[:, 0] * w2 + path.integral(torch.sin, s)[:, 1] + 0.5 * w1 * w2 + path.area(s)[:, 0, 1]
        return torch.stack((x[:, 0] + math.sin(s) + w1, x[:, 1] * torch.exp(iterated)), dim=-1)

    return twins(
        "exponential of a Lévy area",
        Noise.GENERAL,
        drift,
        diffusion,
        correction,
        (0.0, 1.0),
        exact,
        0.5,
        refine=16,
        moment=Moment(lambda x: torch.tanh(x[:, 1] - 1.0)),
        autonomous=False,
    )
