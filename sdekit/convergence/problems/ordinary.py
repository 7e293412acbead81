"""Ordinary differential equations with known solutions, all but two of which depend on time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...protocols import Function
from ...sdes import ODE
from ..problem import Problem
from .twins import (
    QUARTER_TURN,
    Twins,
    spiral,
)


def _ode(
    name: str, drift: Function, start: tuple[float, ...], exact: Callable[[Tensor, float], Tensor], **more: Any
) -> Problem:
    t0, t1 = more.pop("span", (0.0, 1.0))
    return Problem(name, ODE(drift), start, t0, t1, lambda path, x0, s: exact(x0, t0 + s), **more)


def ordinary() -> Twins:
    """ODEs: rotations with constant and with moving speed, the logistic equation, and two more that depend on time."""
    return (
        _ode(
            "moving rotation",
            lambda t, x: -0.3 * x + 4 * (1 + torch.cos(2 * t)) * (x @ QUARTER_TURN.T),
            (1.0, 0.5),
            lambda x0, t: spiral(x0, -0.3 * t, 4 * t + 2 * math.sin(2 * t)),
            autonomous=False,
        ),
        _ode(
            "damped rotation",
            lambda t, x: -0.3 * x + 4 * (x @ QUARTER_TURN.T),
            (1.0, 0.5),
            lambda x0, t: spiral(x0, -0.3 * t, 4 * t),
        ),
        _ode(
            "logistic",
            lambda t, x: 2 * x * (1 - x),
            (0.1, 0.6),
            lambda x0, t: 1 / (1 + (1 / x0 - 1) * math.exp(-2 * t)),
            span=(0.0, 2.0),
        ),
        _ode(
            "forced decay",
            lambda t, x: -x + torch.cos(t),
            (1.0, -2.0),
            lambda x0, t: 0.5 * (math.cos(t) + math.sin(t)) + (x0 - 0.5) * math.exp(-t),
            span=(0.0, 2.0),
            autonomous=False,
        ),
        _ode(
            "quadratic in time",
            lambda t, x: -2 * t * x**2,
            (1.0, 0.5),
            lambda x0, t: 1 / (1 / x0 + t * t),
            autonomous=False,
        ),
    )


def quadrature_over_time() -> Problem:
    """Solve y' = 2y/t + t⁴ sin 2t − t² + 4t³ on [1, 2].

    The error of some methods changes sign with h, so it shows accuracy and is unfit for fitting orders.
    """

    def antiderivative(t: float) -> float:
        return (0.25 - 0.5 * t * t) * math.cos(2 * t) + 0.5 * t * math.sin(2 * t) - t + 2 * t * t

    return _ode(
        "quadrature over t",
        lambda t, x: 2 * x / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3,
        (1.0,),
        lambda x0, t: t * t * (x0 + antiderivative(t) - antiderivative(1.0)),
        span=(1.0, 2.0),
        autonomous=False,
    )
