"""Test problems whose solutions are known along the path, for every class of noise and both calculi.

S1 … S10 are strong problems, W1 … W3 weak ones, the rest fills the gaps: in every class of noise at least one equation
depends on time. `problems(noise, calculus)` lists them; `reflected` turns each into one that runs backward.

Notation: W(t) the path, J the quarter turn [[0, −1], [1, 0]], `∫ b dW` with a deterministic b taken from the recorded
path. A Stratonovich problem has the same solution as its Itô twin: its drift is `f − ½ Σ_k (∂g_k) g_k`.

Reference: Kloeden, Platen (1992), §4.4; Rößler (2010), SIAM J. Numer. Anal. 48(3), §7; Debrabant, Rößler (2009), Appl.
Numer. Math. 59, §5.
"""

from __future__ import annotations

from ...protocols import Calculus, Noise
from ..problem import Problem
from .additive import (
    additive_decay,
    double_well,
    matrix_ornstein_uhlenbeck,
    moving_ornstein_uhlenbeck,
    ornstein_uhlenbeck,
)
from .commutative import commuting_linear, moving_spiral, spiral_of_two, wave_of_two
from .diagonal import cube_root, cubic, geometric, moving_geometric, moving_wave, stiff_quadratic, wave
from .general import crossing_waves, exponential_area, levy_area
from .ordinary import ordinary, quadrature_over_time
from .scalar import moving_pair, noisy_spiral, wave_pair
from .twins import Twins
from .weak import asinh_walk, growing, mixing


def _both(*twins: Twins) -> dict[Calculus, Twins]:
    return {c: tuple(p for pair in twins for p in pair if p.calculus is c) for c in Calculus}


def _same(*problems: Problem) -> dict[Calculus, Twins]:
    return dict.fromkeys(Calculus, problems)


STRONG: dict[Noise, dict[Calculus, Twins]] = {
    Noise.NONE: _same(*ordinary()),
    Noise.ADDITIVE: _same(
        moving_ornstein_uhlenbeck(), matrix_ornstein_uhlenbeck(), ornstein_uhlenbeck(), additive_decay(), double_well()
    ),
    Noise.DIAGONAL: _both(moving_wave(), geometric(0.5, 0.5), moving_geometric(), wave(0.5), cubic()),
    Noise.SCALAR: _both(moving_pair(), noisy_spiral(), wave_pair()),
    Noise.COMMUTATIVE: _both(moving_spiral(), wave_of_two(), commuting_linear()),
    Noise.GENERAL: _both(exponential_area(), levy_area(), crossing_waves()),
}
"""Problems for strong orders, by class of noise and calculus; the first of each depends on time."""

WEAK: dict[Noise, dict[Calculus, Twins]] = {
    Noise.ADDITIVE: _same(moving_ornstein_uhlenbeck(), matrix_ornstein_uhlenbeck(), ornstein_uhlenbeck()),
    Noise.DIAGONAL: _both(moving_geometric(0.4), growing(), asinh_walk()),
    Noise.SCALAR: _both(moving_pair(0.4), noisy_spiral()),
    Noise.COMMUTATIVE: _both(moving_spiral(0.4), spiral_of_two()),
    Noise.GENERAL: _both(mixing(moving=True), mixing(), levy_area()),
}
"""Problems with a test function whose expectation is known, by class of noise and calculus."""

UNLISTED: Twins = (*stiff_quadratic(), *cube_root(), quadrature_over_time())
"""Problems that are known and not fit for fitting orders: stiff, not Lipschitz, with an error that changes sign."""


def problems(noise: Noise, calculus: Calculus, weak: bool = False) -> Twins:
    """The listed strong (or weak) problems with this noise, read in this calculus.

    Raises ValueError where none is listed.
    """
    table = WEAK if weak else STRONG
    if noise not in table:
        kind = "weak" if weak else "strong"
        raise ValueError(f"no {kind} problems for {noise.name} noise; there are {[n.name for n in table]}")
    return table[noise][calculus]
