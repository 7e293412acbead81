"""Diagonal noise: component i has a Brownian motion of its own, and its size depends on that component."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...protocols import Noise
from ..problem import Moment
from .twins import (
    KLOEDEN_PLATEN,
    Twins,
    first_square,
    named,
    twins,
    varying,
    varying_square,
)


def geometric(a: float = 0.5, b: float = 1.0, x0: float = 1.0) -> Twins:
    """S1: dX = aX dt + bX dW; X = x0 exp((a − b²/2)t + bW)."""
    return twins(
        f"S1 geometric ({a:g}, {b:g})",
        Noise.DIAGONAL,
        lambda t, x: a * x,
        lambda t, x: b * x,
        lambda t, x: 0.5 * b * b * x,
        (x0,),
        lambda path, x, s: x * torch.exp((a - 0.5 * b * b) * s + b * path.w(s)),
        reference=KLOEDEN_PLATEN,
        moment=Moment(first_square, lambda s: x0**2 * math.exp((2 * a + b * b) * s)),
    )


def wave(p: float = 1.0) -> Twins:
    """S2: dX = −p² sin X cos³X dt + p cos²X dW; X = atan(pW + tan x0)."""
    return twins(
        "S2 wave",
        Noise.DIAGONAL,
        lambda t, x: -p * p * torch.sin(x) * torch.cos(x) ** 3,
        lambda t, x: p * torch.cos(x) ** 2,
        lambda t, x: -p * p * torch.sin(x) * torch.cos(x) ** 3,
        (1.0,),
        lambda path, x, s: torch.atan(p * path.w(s) + torch.tan(x)),
        reference=KLOEDEN_PLATEN,
        moment=Moment(first_square),
    )


def cubic() -> Twins:
    """S3: dX = −X(1−X²)/4 dt + (1−X²)/2 dW; X = ((1+x0)e^W + x0 − 1)/((1+x0)e^W + 1 − x0)."""

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -0.25 * x * (1 - x**2)

    return twins(
        "S3 cubic",
        Noise.DIAGONAL,
        correction,
        lambda t, x: 0.5 * (1 - x**2),
        correction,
        (0.5,),
        lambda path, x, s: torch.tanh(0.5 * path.w(s) + torch.atanh(x)),
        reference=KLOEDEN_PLATEN,
        moment=Moment(first_square),
    )


def stiff_quadratic(alpha: float = 1.0, beta: float = 0.5, t1: float = 1.0) -> Twins:
    """S5: dX = −(α+β²X)(1−X²) dt + β(1−X²) dW; X = ((1+x0)E + x0 − 1)/((1+x0)E + 1 − x0), E = exp(−2αt + 2βW)."""
    return twins(
        "S5 quadratic",
        Noise.DIAGONAL,
        lambda t, x: -(alpha + beta**2 * x) * (1 - x**2),
        lambda t, x: beta * (1 - x**2),
        lambda t, x: -(beta**2) * x * (1 - x**2),
        (0.5,),
        lambda path, x, s: torch.tanh(beta * path.w(s) - alpha * s + torch.atanh(x)),
        t1,
        reference=KLOEDEN_PLATEN,
    )


def cube_root() -> Twins:
    """S6: dX = (X^⅓/3 + 6X^⅔) dt + X^⅔ dW; X = (2t + x0^⅓ + W/3)³. Not Lipschitz at 0."""

    def root(x: Tensor) -> Tensor:
        return torch.sign(x) * x.abs() ** (1 / 3)

    return twins(
        "S6 cube root",
        Noise.DIAGONAL,
        lambda t, x: root(x) / 3 + 6 * root(x) ** 2,
        lambda t, x: root(x) ** 2,
        lambda t, x: root(x) / 3,
        (1.0,),
        lambda path, x, s: (2 * s + root(x) + path.w(s) / 3) ** 3,
        reference=KLOEDEN_PLATEN,
    )


def moving_geometric(noise: float = 1.0) -> Twins:
    """S1 with moving coefficients: dX = cos(2t) X dt + νb(t) X dW, b = 0.5 + 0.4 sin 3t;

    X = x0 exp(½ sin 2t − ½ν²∫b² + ν∫ b dW).
    """
    square = noise**2
    return twins(
        named("geometric, moving", noise),
        Noise.DIAGONAL,
        lambda t, x: torch.cos(2 * t) * x,
        lambda t, x: noise * varying(t) * x,
        lambda t, x: 0.5 * square * varying(t) ** 2 * x,
        (1.0, 0.5),
        lambda path, x, s: (
            x * torch.exp(0.5 * math.sin(2 * s) - 0.5 * square * varying_square(s) + noise * path.integral(varying, s))
        ),
        moment=Moment(first_square, lambda s: math.exp(math.sin(2 * s) + square * varying_square(s))),
        autonomous=False,
    )


def moving_wave() -> Twins:
    """X = atan(tan x0 + sin t + ∫ b dW): the wave problem with `cos²X (cos t dt + b(t) ∘ dW)`, b = 0.5 + 0.4 sin 3t."""

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -(varying(t) ** 2) * torch.sin(x) * torch.cos(x) ** 3

    return twins(
        "wave, moving",
        Noise.DIAGONAL,
        lambda t, x: torch.cos(x) ** 2 * torch.cos(t) + correction(t, x),
        lambda t, x: torch.cos(x) ** 2 * varying(t),
        correction,
        (0.5, -0.3),
        lambda path, x, s: torch.atan(torch.tan(x) + math.sin(s) + path.integral(varying, s)),
        moment=Moment(first_square),
        autonomous=False,
    )
