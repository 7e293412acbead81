"""Scalar noise: one Brownian motion drives both components."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...protocols import Dense, Noise
from ..path import RecordedPath
from ..problem import Moment
from .twins import (
    QUARTER_TURN,
    Twins,
    first_square,
    named,
    norm_square,
    spiral,
    twins,
    varying,
    varying_square,
)


def noisy_spiral(a: float = -0.5, c: float = 1.0, b: float = 0.4, d: float = 0.5) -> Twins:
    """A linear system on one motion: dX = (a + cJ)X dt + (b + dJ)X dW;

    X = exp((a + cJ − ½(b + dJ)²)t + (b + dJ)W) x0.
    """
    mix = b * torch.eye(2, dtype=torch.float64) + d * QUARTER_TURN

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w = path.w(s)
        return spiral(x, (a - 0.5 * (b * b - d * d)) * s + b * w, (c - b * d) * s + d * w)

    return twins(
        "spiral",
        Noise.SCALAR,
        lambda t, x: a * x + c * (x @ QUARTER_TURN.T),
        lambda t, x: Dense((x @ mix.T)[..., None]),
        lambda t, x: 0.5 * (x @ (mix @ mix).T),
        (1.0, 0.5),
        exact,
        moment=Moment(norm_square, lambda s: 1.25 * math.exp((2 * a + b * b + d * d) * s)),
    )


def moving_pair(noise: float = 1.0) -> Twins:
    """dX_i = cos(2t) X_i dt + c_i b(t) X_i dW with one W for both, element-wise; b = 0.5 + 0.4 sin 3t, c = ν(1, −½)."""
    c = noise * torch.tensor([1.0, -0.5], dtype=torch.float64)

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        return x * torch.exp(0.5 * math.sin(2 * s) - 0.5 * c**2 * varying_square(s) + c * path.integral(varying, s))

    return twins(
        named("pair on one motion", noise),
        Noise.SCALAR,
        lambda t, x: torch.cos(2 * t) * x,
        lambda t, x: c * varying(t) * x,
        lambda t, x: 0.5 * (c * varying(t)) ** 2 * x,
        (1.0, 0.5),
        exact,
        moment=Moment(first_square, lambda s: math.exp(math.sin(2 * s) + noise**2 * varying_square(s))),
        autonomous=False,
    )


def wave_pair() -> Twins:
    """X_i = atan(p_i W + tan x_i) with one W for both, as a `Dense` column; p = (0.6, −0.4)."""
    p = torch.tensor([0.6, -0.4], dtype=torch.float64)

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -(p**2) * torch.sin(x) * torch.cos(x) ** 3

    return twins(
        "wave pair",
        Noise.SCALAR,
        correction,
        lambda t, x: Dense((p * torch.cos(x) ** 2)[..., None]),
        correction,
        (1.0, 0.4),
        lambda path, x, s: torch.atan(p * path.w(s) + torch.tan(x)),
        moment=Moment(first_square),
    )
