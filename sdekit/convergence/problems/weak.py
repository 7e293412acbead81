"""Problems with a test function whose expectation is known, beside those of the other files that have one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...protocols import Dense, Noise
from ..path import RecordedPath
from ..problem import Moment
from .twins import (
    Twins,
    first_square,
    twins,
    varying,
    varying_square,
)


def asinh_walk() -> Twins:
    """W1: dX = (X/2 + √(X²+1)) dt + √(X²+1) dW, X = sinh(t + W);

    E φ = t³ − 3t² + 2t for φ = z³ − 6z² + 8z, z = asinh X.
    """

    def of(x: Tensor) -> Tensor:
        z = torch.asinh(x[:, 0])
        return z**3 - 6 * z**2 + 8 * z

    return twins(
        "W1 asinh",
        Noise.DIAGONAL,
        lambda t, x: 0.5 * x + torch.sqrt(x * x + 1),
        lambda t, x: torch.sqrt(x * x + 1),
        lambda t, x: 0.5 * x,
        (0.0,),
        lambda path, x, s: torch.sinh(torch.asinh(x) + s + path.w(s)),
        reference="Debrabant, Rößler (2009), §5",
        moment=Moment(of, lambda s: s**3 - 3 * s**2 + 2 * s),
    )


def growing() -> Twins:
    """W2: dX = 1.5X dt + 0.1X ∘ dW, and its Itô twin with drift 1.505X; E X = x0 e^(1.505t)."""
    return twins(
        "W2 growth",
        Noise.DIAGONAL,
        lambda t, x: 1.505 * x,
        lambda t, x: 0.1 * x,
        lambda t, x: 0.005 * x,
        (0.1,),
        lambda path, x, s: x * torch.exp(1.5 * s + 0.1 * path.w(s)),
        moment=Moment(lambda x: x[:, 0], lambda s: 0.1 * math.exp(1.505 * s)),
    )


def mixing(moving: bool = False) -> Twins:
    """W3: dX = m AX dt + n(G₁X dW₁ + G₂X dW₂), non-commuting, m = n = 1; E X₁² = e^(−t).

    moving: m = 1 + cos 2t and n = 1 + 0.8 sin 3t instead. X₁ alone is a geometric motion and serves as control.
    """
    root2 = math.sqrt(2.0)
    a = torch.tensor([[-273 / 512, 0.0], [-1 / 160, 785 / 512 - root2 / 8]], dtype=torch.float64)
    g1 = torch.tensor([[1 / 4, 0.0], [(1 - 2 * root2) / 4, 0.0]], dtype=torch.float64)
    g2 = torch.tensor([[1 / 16, 0.0], [1 / 10, 1 / 16]], dtype=torch.float64)
    half = 0.5 * (g1 @ g1 + g2 @ g2)
    size = 1 / 16 + 1 / 256

    def m(t: Tensor) -> Tensor:
        return 1 + torch.cos(2 * t) if moving else torch.ones_like(t)

    def n(t: Tensor) -> Tensor:
        return 2 * varying(t) if moving else torch.ones_like(t)

    def clocks(s: float) -> tuple[float, float]:
        """∫m and ∫n²."""
        return (s + 0.5 * math.sin(2 * s), 4 * varying_square(s)) if moving else (s, s)

    def mean(s: float) -> float:
        drift, noise = clocks(s)
        return math.exp(-273 / 256 * drift + size * noise)

    def control(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        (drift, noise), w = clocks(s), path.integral(n, s)
        power = -273 / 512 * drift - 0.5 * size * noise + w[:, 0] / 4 + w[:, 1] / 16
        return (x[:, 0] * torch.exp(power)).square()

    return twins(
        "W3 mixing, moving" if moving else "W3 mixing",
        Noise.GENERAL,
        lambda t, x: m(t) * (x @ a.T),
        lambda t, x: Dense(n(t) * torch.stack((x @ g1.T, x @ g2.T), dim=-1)),
        lambda t, x: n(t) ** 2 * (x @ half.T),
        (1.0, 0.1 if moving else 1.0),
        None,
        1.0,
        reference="Debrabant, Rößler (2009), §5",
        moment=Moment(first_square, mean, control),
        autonomous=not moving,
    )
