"""Reference values for Brownian quantities, computed from their definitions on a path and not from their algebra."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdekit.protocols import Increment, Span, as_time


def span(a: float | Tensor, b: float | Tensor, index: int | Tensor = 0) -> Span:
    """A step from a to b; `(B, 1)` times stay per sample."""
    ta, tb = as_time(a), as_time(b)
    return Span(ta, tb, tb - ta if ta.ndim or tb.ndim else float(tb - ta), index)


def integrated(steps: Tensor, h: float) -> Increment:
    """(W, H, K, A) of the piecewise linear path with increments `steps` `(n, B, m)`, exact by Simpson's rule."""
    n = len(steps)
    ends = torch.cat((torch.zeros_like(steps[:1]), steps.cumsum(0)))
    middles = 0.5 * (ends[:-1] + ends[1:])
    r = torch.linspace(0, h, n + 1, dtype=torch.float64)[:, None, None]
    s = 0.5 * (r[:-1] + r[1:])
    b, c = ends - r / h * ends[-1], middles - s / h * ends[-1]

    def simpson(f_end: Tensor, f_mid: Tensor) -> Tensor:
        return ((f_end[:-1] + 4 * f_mid + f_end[1:]) / 6).sum(0) * (h / n)

    H = simpson(b, c) / h
    K = simpson(b * (h / 2 - r), c * (h / 2 - s)) / h**2
    half = 0.5 * torch.einsum("nbj,nbk->bjk", middles, steps)
    return Increment(ends[-1], H, K, half - half.transpose(1, 2))


def covariance(intervals: list[tuple[float, float]], count: int) -> np.ndarray:
    """Exact covariance of the first `count` of (W, H, K) over all intervals, by quadrature of their weight functions.

    W = ∫ dW, H = ∫ (t − r)/h dW − W/2 and K alike are Itô integrals of polynomials, so that a covariance is the
    integral of a product over the overlap.
    """
    nodes, weights = np.polynomial.legendre.leggauss(4)

    def functional(a: float, b: float, k: int, r: np.ndarray) -> np.ndarray:
        u, h = r - 0.5 * (a + b), b - a
        return (np.ones_like(u), -u / h, (u * u - h * h / 12) / (2 * h * h))[k]

    names = [(a, b, k) for a, b in intervals for k in range(count)]
    out = np.zeros((len(names), len(names)))
    for i, (a, b, k) in enumerate(names):
        for j, (c, d, m) in enumerate(names):
            low, high = max(a, c), min(b, d)
            if low < high:
                r = 0.5 * (low + high) + 0.5 * (high - low) * nodes
                out[i, j] = 0.5 * (high - low) * (weights * functional(a, b, k, r) * functional(c, d, m, r)).sum()
    return out


def deviation(samples: Tensor, exact: np.ndarray) -> float:
    """Largest distance of the sample second moments of `(n, variables)` from the exact ones, in standard errors."""
    n = samples.shape[0]
    found = (samples.T @ samples / n).numpy()
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / n)
    return float((np.abs(found - exact) / error).max())
