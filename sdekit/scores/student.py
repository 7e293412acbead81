"""Quantiles of Student's t law, for intervals around means of few numbers.

With θ = atan(t/√ν), the probability A = P(|T| ≤ t) is a finite sum:

    ν even   A = sin θ [1 + (1/2) cos²θ + (1·3)/(2·4) cos⁴θ + … up to cos^(ν−2) θ]
    ν odd    A = (2/π) (θ + sin θ [cos θ + (2/3) cos³θ + … up to cos^(ν−2) θ])

Notation: ν degrees of freedom, a positive integer.

Reference: Abramowitz, Stegun (1964), equations 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from functools import lru_cache

_MOST = 10_000  # degrees of freedom; more of them change the quantile by less than 1e-3 of itself
_BISECTIONS = 80


def student_probability(t: float, degrees: int) -> float:
    """P(|T| ≤ t) for t ≥ 0."""
    angle = math.atan2(t, math.sqrt(degrees))
    cosine, total = math.cos(angle), 0.0
    odd = degrees % 2
    term = cosine if odd else 1.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    if odd:
        return (2.0 / math.pi) * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


@lru_cache(maxsize=1024)
def student_quantile(probability: float, degrees: int) -> float:
    """The t with P(|T| ≤ t) = probability, in (0, 1), for `degrees` ≥ 1 degrees of freedom.

    Raises ValueError outside of these ranges.
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(f"probability: expected a number between 0 and 1, such as 0.95, got {probability!r}")
    if degrees < 1:
        raise ValueError(f"degrees of freedom: expected 1 or more, got {degrees!r}")
    nu = min(degrees, _MOST)
    low, high = 0.0, 0.5 * math.pi
    for _ in range(_BISECTIONS):  # in the angle, which is bounded
        middle = 0.5 * (low + high)
        if student_probability(math.tan(middle) * math.sqrt(nu), nu) < probability:
            low = middle
        else:
            high = middle
    return math.tan(0.5 * (low + high)) * math.sqrt(nu)
