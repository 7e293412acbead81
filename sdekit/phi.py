"""The φ functions of exponential integrators, exact near zero where their formulas cancel.

    φ₁(z) = (eᶻ − 1)/z = ∫₀¹ e^(z(1−s)) ds,     φ₂(z) = (eᶻ − 1 − z)/z² = ∫₀¹ s e^(z(1−s)) ds

Both are positive on the real line, φ₁(0) = 1 and φ₂(0) = ½. Numbers and tensors come back as float64 tensors.

Reference: Hochbruck, Ostermann (2010), Acta Numerica 19, equation 2.11.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NEAR, _TERMS = 0.5, 14  # the first term left out is 0.5¹⁴/16! ≈ 3e-18


def _tensor(z: Tensor | float) -> Tensor:
    return torch.as_tensor(z, dtype=torch.float64)


def phi1(z: Tensor | float) -> Tensor:
    """`(eᶻ − 1)/z`."""
    z = _tensor(z)
    safe = torch.where(z == 0, 1.0, z)
    return torch.where(z == 0, 1.0 + 0.5 * z, torch.expm1(safe) / safe)


def phi2(z: Tensor | float) -> Tensor:
    """`(eᶻ − 1 − z)/z²`."""
    z = _tensor(z)
    near = z.abs() < _NEAR
    small, large = torch.where(near, z, 0.0), torch.where(near, 1.0, z)
    series = torch.zeros_like(small)
    for k in reversed(range(_TERMS)):
        series = series * small + 1.0 / math.factorial(k + 2)
    return torch.where(near, series, (torch.expm1(large) - large) / large.square())
