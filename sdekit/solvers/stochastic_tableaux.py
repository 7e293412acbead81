"""Coefficients of stochastic Runge–Kutta methods of strong order 1.5; the tests check them by the order conditions.

Notation: with J = W/2 + H = (1/|h|) ∫ W dr, and stages written from the state x at t0,

    additive noise       X_i = x + h Σ_j a_ij f_j + g(t0) (p_i W + q_i H) + g(t1) (r_i W + s_i H)
                         x'  = x + h Σ_i b_i f_i + g(t0) (W/2 + H) + g(t1) (W/2 − H)

    diagonal or scalar   X_i = x + h Σ_j A_ij f_j + J Σ_j B_ij g_j               f_i = f(t0 + c_i h, X_i)
                         Y_i = x + h Σ_j a_ij f_j + √|h| Σ_j b_ij g_j            g_i = g(t0 + d_i h, Y_i)
                         x'  = x + h Σ_i α_i f_i
                                 + Σ_i (β1_i W + β2_i (W² − |h|)/(2√|h|) + β3_i J + β4_i (W³ − 3|h|W)/(6|h|)) g_i
"""

from __future__ import annotations

from dataclasses import dataclass

from .tableaux import Row

Pair = tuple[float, float]


@dataclass(frozen=True)
class AdditiveTableau:
    """A method for additive noise. start: (p, q) and end: (r, s) of each stage.  order: that of the drift alone."""

    a: tuple[Row, ...]
    b: Row
    c: Row
    start: tuple[Pair, ...]
    end: tuple[Pair, ...]
    order: int


@dataclass(frozen=True)
class DiagonalTableau:
    """A method for diagonal and scalar noise.

    drift: rows A.  drift_noise: rows B.  noise_drift: rows a.  noise: rows b.  order: that of the drift alone.
    """

    alpha: Row
    drift: tuple[Row, ...]
    drift_noise: tuple[Row, ...]
    c: Row
    beta1: Row
    beta2: Row
    beta3: Row
    beta4: Row
    noise_drift: tuple[Row, ...]
    noise: tuple[Row, ...]
    d: Row
    order: int


# Rößler (2010), Table 6.2; 3/2 J g(t1) in the second stage
SRA1 = AdditiveTableau(
    a=((), (3 / 4,)),
    b=(1 / 3, 2 / 3),
    c=(0.0, 3 / 4),
    start=((0.0, 0.0), (0.0, 0.0)),
    end=((0.0, 0.0), (3 / 4, 3 / 2)),
    order=2,
)

# Rößler (2010), Table 6.3; J (g(t1) + g(t0)/2) in the third stage
SRA3 = AdditiveTableau(
    a=((), (1.0,), (1 / 4, 1 / 4)),
    b=(1 / 6, 1 / 6, 2 / 3),
    c=(0.0, 1.0, 1 / 2),
    start=((0.0, 0.0), (0.0, 0.0), (1 / 4, 1 / 2)),
    end=((0.0, 0.0), (0.0, 0.0), (1 / 2, 1.0)),
    order=3,
)

# Foster, dos Reis, Strange (2024), SIAM J. Numer. Anal. 62(6): the stages see H, and with it the size of the excursion
SHARK = AdditiveTableau(
    a=((), (5 / 6,)),
    b=(2 / 5, 3 / 5),
    c=(0.0, 5 / 6),
    start=((0.0, 1.0), (5 / 6, 1.0)),
    end=((0.0, 0.0), (0.0, 0.0)),
    order=2,
)

# Rößler (2010), §6.1, SRI1W1
SRIW1 = DiagonalTableau(
    alpha=(1 / 3, 2 / 3),
    drift=((), (3 / 4,)),
    drift_noise=((), (3 / 2,)),
    c=(0.0, 3 / 4),
    beta1=(-1.0, 4 / 3, 2 / 3, 0.0),
    beta2=(-1.0, 4 / 3, -1 / 3, 0.0),
    beta3=(2.0, -4 / 3, -2 / 3, 0.0),
    beta4=(-2.0, 5 / 3, -2 / 3, 1.0),
    noise_drift=((), (1 / 4,), (1.0,), (1 / 4,)),
    noise=((), (1 / 2,), (-1.0, 0.0), (-5.0, 3.0, 1 / 2)),
    d=(0.0, 1 / 4, 1.0, 1 / 4),
    order=2,
)

# Rößler (2010), §6.1, SRI2W1
SRIW2 = DiagonalTableau(
    alpha=(1 / 6, 1 / 6, 2 / 3),
    drift=((), (1.0,), (1 / 4, 1 / 4)),
    drift_noise=((), (0.0,), (1.0, 1 / 2)),
    c=(0.0, 1.0, 1 / 2),
    beta1=(-1.0, 4 / 3, 2 / 3, 0.0),
    beta2=(1.0, -4 / 3, 1 / 3, 0.0),
    beta3=(2.0, -4 / 3, -2 / 3, 0.0),
    beta4=(-2.0, 5 / 3, -2 / 3, 1.0),
    noise_drift=((), (1 / 4,), (1.0,), (1 / 4,)),
    noise=((), (-1 / 2,), (1.0, 0.0), (2.0, -1.0, 1 / 2)),
    d=(0.0, 1 / 4, 1.0, 1 / 4),
    order=3,
)
