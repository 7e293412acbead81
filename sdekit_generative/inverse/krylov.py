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
    basis, sides = [rhs / expand(_nonzero(size), rhs)], []
    triangle = _Triangle(size.double())
    done = size == 0
    for j in range(steps):
        k, side = product(basis[j])
        sides.append(side)
        new, column = k, []
        for v in basis:  # modified Gram–Schmidt
            column.append(_dot(v, new))
            new = new - expand(column[-1], v) * v
        length = _dot(new, new).sqrt()
        # a sample whose space is exhausted has its solution; its further directions are 0
        done = done | (length <= 10.0 * torch.finfo(rhs.dtype).eps * _dot(k, k).sqrt())
        column.append(torch.where(done, 0.0, length))
        basis.append(torch.where(expand(done, new), 0.0, new / expand(_nonzero(length), new)))
        left = triangle.add([c.double() for c in column])
        done = done | (left <= tolerance * size)
        if bool(done.all()):
            break
    weights = [w.to(rhs.dtype) for w in triangle.solve()]
    u, carried = torch.zeros_like(rhs), torch.zeros_like(sides[0])
    for w, v, side in zip(weights, basis[:-1], sides, strict=True):
        u, carried = u + expand(w, v) * v, carried + expand(w, side) * side
    return u, carried


class _Triangle:
    """Least squares `‖size e₁ − H w‖` for a Hessenberg matrix that grows by columns: Givens rotations make it triangular.

    All numbers are `(B,)`.
    """

    def __init__(self, size: Tensor) -> None:
        self.rows, self.target, self.turns = [], [size], []

    def add(self, column: list[Tensor]) -> Tensor:
        """One more column; the norm of what remains."""
        for i, (cosine, sine) in enumerate(self.turns):
            column[i], column[i + 1] = (
                cosine * column[i] + sine * column[i + 1],
                cosine * column[i + 1] - sine * column[i],
            )
        below, above = column[-1], column[-2]
        radius = torch.hypot(above, below)
        cosine = torch.where(radius > 0, above / _nonzero(radius), 1.0)
        sine = torch.where(radius > 0, below / _nonzero(radius), 0.0)
        self.turns.append((cosine, sine))
        self.rows.append([*column[:-2], radius])
        last = self.target[-1]
        self.target[-1:] = [cosine * last, -sine * last]
        return self.target[-1].abs()

    def solve(self) -> list[Tensor]:
        """The weights w; 0 where the matrix is singular, as it is for directions that are 0."""
        count = len(self.rows)
        weights = [torch.zeros_like(self.target[0])] * count
        for i in reversed(range(count)):
            rest = self.target[i] - sum(self.rows[j][i] * weights[j] for j in range(i + 1, count))
            pivot = self.rows[i][i]
            weights[i] = torch.where(pivot > 0, rest / _nonzero(pivot), 0.0)
        return weights
