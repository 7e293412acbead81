"""What the problems are made of: one equation read in both calculi, rotations, and a coefficient that depends on time.

Notation: J the quarter turn [[0, −1], [1, 0]]; b(t) = 0.5 + 0.4 sin 3t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...protocols import Diffusion, Function, Noise
from ...sdes import ItoSDE, StratonovichSDE
from ..problem import Exact, Problem

Twins = tuple[Problem, ...]

KLOEDEN_PLATEN = "Kloeden, Platen (1992), §4.4"
ROESSLER = "Rößler (2010), SIAM J. Numer. Anal. 48(3), §7"


def twins(
    name: str,
    noise: Noise,
    drift: Function,
    diffusion: Callable[[Tensor, Tensor], Diffusion],
    correction: Function,
    start: tuple[Any, ...],
    exact: Exact | None,
    t1: float = 1.0,
    **more: Any,
) -> Twins:
    """The Itô problem and the Stratonovich problem with the same solution; correction: `½ Σ_k (∂g_k) g_k`."""

    def stratonovich(t: Tensor, x: Tensor) -> Tensor:
        return drift(t, x) - correction(t, x)

    ito, other = ItoSDE(drift, diffusion, noise), StratonovichSDE(stratonovich, diffusion, noise)
    return (
        Problem(name, ito, start, 0.0, t1, exact, **more),
        Problem(f"{name} (Stratonovich)", other, start, 0.0, t1, exact, **more),
    )


def named(name: str, noise: float) -> str:
    """The name, with the size of the noise where that is not 1."""
    return name if noise == 1.0 else f"{name}, noise {noise:g}"


def first_square(x: Tensor) -> Tensor:
    """The square of the first component, `(B,)`."""
    return x[:, 0].square()


def norm_square(x: Tensor) -> Tensor:
    """The squared norm of states `(B, D)`."""
    return x.square().sum(-1)


QUARTER_TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def spiral(x: Tensor, growth: Tensor | float, angle: Tensor | float) -> Tensor:
    """`exp(growth + angle J) x` for x `(B, 2)`, growth and angle scalar or `(B, 1)`."""
    growth, angle = torch.as_tensor(growth, dtype=x.dtype), torch.as_tensor(angle, dtype=x.dtype)
    return torch.exp(growth) * (torch.cos(angle) * x + torch.sin(angle) * (x @ QUARTER_TURN.T))


def varying(t: Tensor) -> Tensor:
    """The coefficient b(t)."""
    return 0.5 + 0.4 * torch.sin(3 * t)


def varying_square(s: float) -> float:
    """∫₀ˢ b²."""
    return 0.33 * s + 0.4 * (1 - math.cos(3 * s)) / 3 - 0.08 * math.sin(6 * s) / 6
