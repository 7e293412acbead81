"""Moments of a linear SDE over a span of time: the propagator, and the Gaussian it leaves.

    dx = (A(t) x + b(t)) dt + L(t) dW,  Q = L Lᵀ
    x(t1) | x(t0) = x  ~  N(M x + m, C)

For constant coefficients the exponential of one block matrix holds all three (Van Loan):

    exp(h [[A, Q, b], [0, −Aᵀ, 0], [0, 0, 0]]) = [[M, C M⁻ᵀ, m], [0, M⁻ᵀ, 0], [0, 0, 1]]

M⁻ᵀ grows where A decays, which would drown C over long spans; so spans are cut to ‖A‖ h ≤ ½ and composed.
For A(t), b(t), L(t) the exponent is the Magnus series of sixth order on every piece.

Shapes: A, Q, M, C `(…, D, D)`; b, m `(…, D)`; float64.

Reference: Van Loan (1978), IEEE Trans. Automat. Control 23(3); Blanes, Casas, Oteo, Ros (2009), Physics Reports 470,
section 5.3 (the sixth-order commutator form).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple, cast

import torch
from torch import Tensor


class Moments(NamedTuple):
    """M, C and m of x(t1) | x(t0) = x ~ N(M x + m, C)."""

    multiplier: Tensor
    covariance: Tensor
    offset: Tensor


class Coefficients(NamedTuple):
    """A, Q = L Lᵀ and b at one time."""

    drift: Tensor
    noise: Tensor
    offset: Tensor


def compose(first: Moments, then: Moments) -> Moments:
    """The moments over two spans that follow one another."""
    return Moments(
        then.multiplier @ first.multiplier,
        then.multiplier @ first.covariance @ then.multiplier.mT + then.covariance,
        (then.multiplier @ first.offset.unsqueeze(-1)).squeeze(-1) + then.offset,
    )


def constant_moments(c: Coefficients, h: Tensor) -> Moments:
    """The moments over a span h ≥ 0 of shape `(…)` with constant coefficients."""
    doublings = _doublings(c.drift, h)
    piece = _exponential(_generator(c) * (h / 2.0**doublings)[..., None, None])
    for _ in range(doublings):
        piece = compose(piece, piece)
    return piece


def varying_moments(at: Callable[[Tensor], Coefficients], t0: Tensor, t1: Tensor, pieces: int) -> Moments:
    """The moments from t0 to t1, of shape `(…)`, for coefficients that are functions of time.

    The error falls as pieces⁻⁶ for smooth coefficients.
    """
    h = t1 - t0
    pieces = max(pieces, 2 ** _doublings(at(t0).drift, h), 2 ** _doublings(at(t1).drift, h))

    def piece(i: int) -> Moments:
        generators = [_generator(at(t0 + h * ((i + node) / pieces))) for node in _NODES]
        return _exponential(_magnus(generators, (h / pieces)[..., None, None]))

    return reduce(compose, (piece(i) for i in range(pieces)))


def lasting_moments(c: Coefficients) -> Moments:
    """The moments over an endless span, for a drift whose eigenvalues all have negative real parts."""
    norm = float(_column_sums(c.drift).max())
    moments = constant_moments(c, torch.tensor(1.0 / norm, dtype=torch.float64))
    # every doubling squares the propagator; 2⁶⁰ time constants of the fastest mode are an eternity for the slowest
    for _ in range(60):
        if float(moments.multiplier.abs().max()) == 0.0:
            break
        moments = compose(moments, moments)
    return moments


def _column_sums(matrix: Tensor) -> Tensor:
    """The matrix norm that belongs to the 1-norm of vectors, `(…)`."""
    return matrix.abs().sum(-2).amax(-1)


def _doublings(drift: Tensor, h: Tensor) -> int:
    reach = float((_column_sums(drift.detach()) * h.detach().abs()).max())
    return math.ceil(math.log2(2.0 * reach)) if reach > 0.5 else 0


def _generator(c: Coefficients) -> Tensor:
    size = c.drift.shape[-1]
    batch = cast(torch.Size, torch.broadcast_shapes(c.drift.shape[:-2], c.noise.shape[:-2], c.offset.shape[:-1]))
    top = torch.cat(
        [m.expand(*batch, *m.shape[-2:]) for m in (c.drift, c.noise, c.offset.unsqueeze(-1))], dim=-1
    )  # (…, D, 2D + 1)
    middle = torch.nn.functional.pad(-c.drift.mT.expand(*batch, size, size), (size, 1))
    return torch.cat([top, middle, torch.zeros_like(top[..., :1, :])], dim=-2)


_TERMS = 16  # the first term left out is (½)¹⁷/17! ≈ 2e-20 of the whole


def _exponential(exponent: Tensor) -> Moments:
    # The Taylor series: torch.linalg.matrix_exp errs by up to 1e-10 (relative) for norms near 0.03, and scales by the
    # norm of Q and b too, in which the result is linear.
    size = exponent.shape[-1] // 2
    term = e = torch.eye(exponent.shape[-1], dtype=exponent.dtype, device=exponent.device)
    for k in range(1, _TERMS + 1):
        term = term @ exponent / k
        e = e + term
    multiplier = e[..., :size, :size]
    covariance = e[..., :size, size : 2 * size] @ multiplier.mT
    return Moments(multiplier, 0.5 * (covariance + covariance.mT), e[..., :size, -1])


_NODES = (0.5 - math.sqrt(15.0) / 10.0, 0.5, 0.5 + math.sqrt(15.0) / 10.0)  # Gauss–Legendre on [0, 1]


def _commutator(a: Tensor, b: Tensor) -> Tensor:
    return a @ b - b @ a


def _magnus(z: list[Tensor], h: Tensor) -> Tensor:
    first = h * z[1]
    second = h * (math.sqrt(15.0) / 3.0) * (z[2] - z[0])
    third = h * (10.0 / 3.0) * (z[2] - 2.0 * z[1] + z[0])
    inner = _commutator(first, second)
    outer = _commutator(first, 2.0 * third + inner) / -60.0
    return first + third / 12.0 + _commutator(-20.0 * first - third + inner, second + outer) / 240.0
