"""Additive noise: linear equations, whose solutions are integrals of the path, and a double well."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...protocols import Dense, Noise
from ...sdes import ItoSDE
from ..path import RecordedPath
from ..problem import Moment, Problem
from .twins import (
    KLOEDEN_PLATEN,
    first_square,
)


def additive_decay(a: float = 0.1, b: float = 0.5) -> Problem:
    """S4: dX = (b/√(1+t) − X/(2(1+t))) dt + ab/√(1+t) dW; X = (x0 + b(t + aW))/√(1+t)."""
    return Problem(
        "S4 additive decay",
        ItoSDE(
            lambda t, x: b / torch.sqrt(1 + t) - x / (2 * (1 + t)),
            lambda t, x: a * b / torch.sqrt(1 + t) * torch.ones_like(x),
            Noise.ADDITIVE,
        ),
        (1.0,),
        0.0,
        1.0,
        lambda path, x0, s: (x0 + b * (s + a * path.w(s))) / math.sqrt(1 + s),
        reference=KLOEDEN_PLATEN,
        moment=Moment(first_square, lambda s: ((1 + b * s) ** 2 + (a * b) ** 2 * s) / (1 + s)),
        autonomous=False,
    )


def ornstein_uhlenbeck(theta: float = 1.5, sigma: float = 0.8) -> Problem:
    """S10: dX = −θX dt + σ dW; X = e^(−θt)(x0 + σ ∫ e^(θr) dW)."""
    variance = sigma**2 / (2 * theta)
    return Problem(
        "S10 Ornstein–Uhlenbeck",
        ItoSDE(lambda t, x: -theta * x, lambda t, x: sigma * torch.ones_like(x), Noise.ADDITIVE),
        (1.0,),
        0.0,
        1.0,
        lambda path, x0, s: math.exp(-theta * s) * (x0 + sigma * path.integral(lambda r: torch.exp(theta * r), s)),
        reference="Uhlenbeck, Ornstein (1930)",
        moment=Moment(first_square, lambda s: math.exp(-2 * theta * s) * (1 - variance) + variance),
    )


def moving_ornstein_uhlenbeck() -> Problem:
    """Linear and moving: dX = −(1 + cos t) X dt + ½(1 + sin 3t) dW;

    X = e^(−t−sin t)(x0 + ∫ ½(1 + sin 3r) e^(r+sin r) dW).
    """

    def weight(r: Tensor) -> Tensor:
        return 0.5 * (1 + torch.sin(3 * r)) * torch.exp(r + torch.sin(r))

    return Problem(
        "Ornstein–Uhlenbeck, moving",
        ItoSDE(
            lambda t, x: -(1 + torch.cos(t)) * x,
            lambda t, x: 0.5 * (1 + torch.sin(3 * t)) * torch.ones_like(x),
            Noise.ADDITIVE,
        ),
        (1.0, -0.5),
        0.0,
        1.0,
        lambda path, x0, s: math.exp(-s - math.sin(s)) * (x0 + path.integral(weight, s)),
        moment=Moment(first_square),
        autonomous=False,
    )


def matrix_ornstein_uhlenbeck() -> Problem:
    """Linear, full matrices: dX = AX dt + S dW with a full A (2 × 2) and S (2 × 3); X = e^(At)(x0 + ∫ e^(−Ar) S dW)."""
    a = torch.tensor([[-1.0, 2.0], [-0.5, -0.4]], dtype=torch.float64)
    s_matrix = torch.tensor([[0.5, 0.1, -0.3], [0.2, -0.4, 0.6]], dtype=torch.float64)

    def exact(path: RecordedPath, x0: Tensor, s: float) -> Tensor:
        noise = path.integral(lambda r: torch.matrix_exp(-a * r[:, None, None]) @ s_matrix, s)
        return (x0 + noise) @ torch.matrix_exp(a * s).T

    sde = ItoSDE(lambda t, x: x @ a.T, lambda t, x: Dense(s_matrix.expand(len(x), 2, 3)), Noise.ADDITIVE)
    moment = Moment(lambda x: x[:, 1].square())
    return Problem("Ornstein–Uhlenbeck, matrix", sde, (1.0, -0.5), 0.0, 1.0, exact, moment=moment)


def double_well() -> Problem:
    """Nonlinear and additive: dX = (X − X³ + ½ sin 4t) dt + ½(1 + ½ cos 2t) dW; a fine solution is the truth."""
    sde = ItoSDE(
        lambda t, x: x - x**3 + 0.5 * torch.sin(4 * t),
        lambda t, x: 0.5 * (1 + 0.5 * torch.cos(2 * t)) * torch.ones_like(x),
        Noise.ADDITIVE,
    )
    return Problem("double well, forced", sde, (0.5,), 0.0, 1.0, None, refine=16, autonomous=False)
