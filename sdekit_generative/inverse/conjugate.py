"""Conjugate gradients, sample by sample: no sample's result depends on the batch it is in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdekit.protocols import expand


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def conjugate_gradients(
    product: Callable[[Tensor], tuple[Tensor, Tensor]], rhs: Tensor, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """u with `K u ≈ rhs` for a symmetric positive K, and `L u`, where product(p) returns (K p, L p).

    L is some linear map that is computed on the way to K: its value at u then costs nothing. A sample stops when its
    residual has shrunk by `tolerance`, after `steps` steps, or where K turns out not to be positive.

    Reference: Hestenes, Stiefel (1952), J. Res. Natl. Bur. Stand. 49(6).
    """
    u, residual, direction = torch.zeros_like(rhs), rhs, rhs
    square = _dot(rhs, rhs)
    goal = tolerance**2 * square
    carried = None
    for _ in range(steps):
        active = square > goal
        if carried is not None and not bool(active.any()):
            break
        k, side = product(direction)
        curvature = _dot(direction, k)
        active = active & (curvature > 0)
        length = torch.where(active, square / torch.where(active, curvature, 1.0), 0.0)
        u = u + expand(length, u) * direction
        residual = residual - expand(length, u) * k
        gained = expand(length, side) * side
        carried = gained if carried is None else carried + gained
        new = _dot(residual, residual)
        turn = torch.where(active, new / torch.where(active, square, 1.0), 0.0)
        # a sample that has stopped stays stopped
        square = torch.where(active, new, 0.0)
        direction = residual + expand(turn, u) * direction
    assert carried is not None
    return u, carried
