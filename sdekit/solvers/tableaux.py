"""Coefficients of explicit Runge–Kutta methods: numbers only, checked against the order conditions in the tests.

Notation: `k_i = f(t + c_i h, x + h Σ_j a_ij k_j)`, `x' = x + h Σ b_i k_i`, error estimate `h Σ e_i k_i`.
"""

from __future__ import annotations

from dataclasses import dataclass

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method.

    a: rows of the strictly lower triangle, the first row empty.  b, c: weights and nodes.  e: weights of the error
    estimate (b minus the embedded b).  first_same_as_last: the last stage is f at the new point.
    """

    a: tuple[Row, ...]
    b: Row
    c: Row
    order: int
    e: Row | None = None
    embedded_order: int | None = None
    first_same_as_last: bool = False


EULER = Tableau(a=((),), b=(1.0,), c=(0.0,), order=1)

HEUN = Tableau(
    a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), order=2, e=(-1 / 2, 1 / 2), embedded_order=1
)

MIDPOINT = Tableau(a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2), order=2, e=(-1.0, 1.0), embedded_order=1)

# Kutta (1901)
RK4 = Tableau(
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), c=(0.0, 1 / 2, 1 / 2, 1.0), order=4
)

# Bogacki, Shampine (1989), Appl. Math. Lett. 2(4)
BOSH3 = Tableau(
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    order=3,
    e=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    embedded_order=2,
    first_same_as_last=True,
)

# Dormand, Prince (1980), J. Comput. Appl. Math. 6(1), Table 2
DOPRI5 = Tableau(
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    order=5,
    e=(
        35 / 384 - 5179 / 57600,
        0.0,
        500 / 1113 - 7571 / 16695,
        125 / 192 - 393 / 640,
        -2187 / 6784 + 92097 / 339200,
        11 / 84 - 187 / 2100,
        -1 / 40,
    ),
    embedded_order=4,
    first_same_as_last=True,
)
