"""Commutative noise: two Brownian motions act on both components, in either order alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...protocols import Dense, Noise
from ..path import RecordedPath
from ..problem import Moment
from .twins import (
    QUARTER_TURN,
    ROESSLER,
    Twins,
    first_square,
    named,
    norm_square,
    spiral,
    twins,
    varying,
    varying_square,
)


def commuting_linear() -> Twins:
    """S7: dX = AX dt + Σ_k BX dW_k, d = 4, m = 10; X = expm((A − 5B²)t + B ΣW_k) x0."""
    eye, ones = torch.eye(4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)
    a, b = ones / 20 - (31 / 20) * eye, ones / 100 + (19 / 100) * eye

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        total = path.w(s).sum(-1)[:, None, None]
        return (torch.matrix_exp((a - 5 * b @ b) * s + b * total) @ x[..., None])[..., 0]

    return twins(
        "S7 commuting, ten motions",
        Noise.COMMUTATIVE,
        lambda t, x: x @ a.T,
        lambda t, x: Dense((x @ b.T)[..., None].expand(len(x), 4, 10)),
        lambda t, x: 5 * (x @ (b @ b).T),
        (1.0, 1.0, 1.0, 1.0),
        exact,
        reference=ROESSLER,
        moment=Moment(lambda x: x.sum(-1).square(), lambda s: 16 * math.exp((-2.7 + 10 * 0.23**2) * s)),
    )


def moving_spiral(noise: float = 1.0) -> Twins:
    """Linear, moving, commuting: dX = cos(2t) X dt + νb(t) X dW₁ + νc(t) J X dW₂, c = 0.6 cos t;

    X = exp(½ sin 2t − ½ν²∫b² + ½ν²∫c² + ν∫b dW₁ + νJ∫c dW₂) x0.
    """
    square = noise**2

    def c(t: Tensor) -> Tensor:
        return 0.6 * torch.cos(t)

    def c_squared(s: float) -> float:
        return 0.18 * (s + 0.5 * math.sin(2 * s))

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        growth = 0.5 * math.sin(2 * s) - 0.5 * square * (varying_square(s) - c_squared(s))
        return spiral(x, growth + noise * path.integral(varying, s)[:, :1], noise * path.integral(c, s)[:, 1:])

    return twins(
        named("spiral, moving, two motions", noise),
        Noise.COMMUTATIVE,
        lambda t, x: torch.cos(2 * t) * x,
        lambda t, x: Dense(noise * torch.stack((varying(t) * x, c(t) * (x @ QUARTER_TURN.T)), dim=-1)),
        lambda t, x: 0.5 * square * (varying(t) ** 2 - c(t) ** 2) * x,
        (1.0, 0.5),
        exact,
        moment=Moment(
            norm_square, lambda s: 1.25 * math.exp(math.sin(2 * s) + square * (varying_square(s) + c_squared(s)))
        ),
        autonomous=False,
    )


def spiral_of_two(a: float = -0.5, c: float = 1.0, b: float = 0.3, d: float = 0.4) -> Twins:
    """Linear, commuting: dX = (a + cJ)X dt + bX dW₁ + dJX dW₂; X = exp((a + cJ − ½b² + ½d²)t + bW₁ + dJW₂) x0."""

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w = path.w(s)
        return spiral(x, (a - 0.5 * (b * b - d * d)) * s + b * w[:, :1], c * s + d * w[:, 1:])

    return twins(
        "spiral, two motions",
        Noise.COMMUTATIVE,
        lambda t, x: a * x + c * (x @ QUARTER_TURN.T),
        lambda t, x: Dense(torch.stack((b * x, d * (x @ QUARTER_TURN.T)), dim=-1)),
        lambda t, x: 0.5 * (b * b - d * d) * x,
        (1.0, 0.5),
        exact,
        moment=Moment(norm_square, lambda s: 1.25 * math.exp((2 * a + b * b + d * d) * s)),
    )


def wave_of_two() -> Twins:
    """X = atan(p·W + tan x0) with two motions: columns p_k cos²X, which commute."""
    p = torch.tensor([0.8, -0.5], dtype=torch.float64)
    size = float((p**2).sum())

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -size * torch.sin(x) * torch.cos(x) ** 3

    return twins(
        "wave of two motions",
        Noise.COMMUTATIVE,
        correction,
        lambda t, x: Dense(torch.cos(x)[..., None] ** 2 * p),
        correction,
        (1.0,),
        lambda path, x, s: torch.atan((path.w(s) @ p)[:, None] + torch.tan(x)),
        moment=Moment(first_square),
    )
