"""Linear systems too large for a matrix, solved by products with it: no sample's result depends on its batch.

`product(p)` returns K p, and beside it L p for some other linear map L that is computed on the way; what is returned is
u with K u ≈ rhs, and L u, which costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdekit.protocols import expand

Product = Callable[[Tensor], tuple[Tensor, Tensor]]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def conjugate_gradients(product: Product, rhs: Tensor, steps: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """For a symmetric positive K. A sample stops when its residual has shrunk by `tolerance`, or after `steps` steps.

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
        length = torch.where(active, square / _nonzero(_dot(direction, k)), 0.0)
        u = u + expand(length, u) * direction
        residual = residual - expand(length, u) * k
        gained = expand(length, side) * side
        carried = gained if carried is None else carried + gained
        new = torch.where(active, _dot(residual, residual), 0.0)  # a sample that has stopped stays stopped
        direction = residual + expand(new / _nonzero(square), u) * direction
        square = new
    assert carried is not None
    return u, carried


def _nonzero(v: Tensor) -> Tensor:
    return torch.where(v > 0, v, torch.ones_like(v))


def gmres(product: Product, rhs: Tensor, steps: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """For any K: the u of least residual in the space of rhs, K rhs, …, K^(steps−1) rhs, so that the residual never grows.

    Fewer steps are taken where every sample's residual has shrunk by `tolerance`.

    Reference: Saad, Schultz (1986), SIAM J. Sci. Stat. Comput. 7(3).
    """
    size = _dot(rhs, rhs).sqrt()
    tiny = torch.finfo(rhs.dtype).eps
    basis, sides, images = [rhs / expand(_nonzero(size), rhs)], [], []
    done = size == 0
    weights = torch.zeros((len(rhs), 1), dtype=torch.float64, device=rhs.device)
    for j in range(steps):
        k, side = product(basis[j])
        sides.append(side)
        new, column = k, []
        for v in basis:  # modified Gram–Schmidt
            column.append(_dot(v, new))
            new = new - expand(column[-1], v) * v
        length = _dot(new, new).sqrt()
        # a sample whose space is exhausted has its solution; its further directions are 0
        exhausted = done | (length <= tiny * 10 * _dot(k, k).sqrt())
        column.append(torch.where(exhausted, 0.0, length))
        basis.append(torch.where(expand(exhausted, new), 0.0, new / expand(_nonzero(length), new)))
        images.append(torch.stack(column, 1).double())
        weights, left = _least_squares(images, size.double())
        done = exhausted | (left <= tolerance * size)
        if bool(done.all()):
            break
    u, carried = (
        sum(expand(weights[:, j].to(v.dtype), v) * v for j, v in enumerate(vs)) for vs in (basis[: len(sides)], sides)
    )
    assert isinstance(u, Tensor)
    assert isinstance(carried, Tensor)
    return u, carried


def _least_squares(columns: list[Tensor], size: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `(B, k)` of least ‖size e₁ − H w‖, H the columns of growing length, and that norm `(B,)`."""
    count = len(columns)
    matrix = size.new_zeros((len(size), count + 1, count))
    for j, column in enumerate(columns):
        matrix[:, : j + 2, j] = column
    target = size.new_zeros((len(size), count + 1))
    target[:, 0] = size
    # directions that are 0 make a singular matrix, whose pseudo-inverse leaves them out
    weights = (torch.linalg.pinv(matrix, rtol=1e-10) @ target.unsqueeze(-1)).squeeze(-1)
    return weights, (target - (matrix @ weights.unsqueeze(-1)).squeeze(-1)).norm(dim=1)
