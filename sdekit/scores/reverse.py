"""The law of an SDE run against its direction, and the family between that and its probability-flow ODE.

For `dx = f dt + G dW` with marginals p_t, every member of

    dx = [ f − ½(1 + λ²) ( G Gᵀ ∇ log p_t + ∇·(G Gᵀ) ) ] dt + λ G dW̄          (time running backwards)

has marginals p_t too. λ ("churn") = 1 is Anderson's reversal, λ = 0 the probability flow. Where the SDE itself runs
backward the bracket has a plus, so that reversing twice gives back the first SDE.

This reverses the law. Running a path backwards on its own noise is another thing, and needs no score.

Notation: f, G, t, x as in `sdekit.protocols`; s = ∇ₓ log p_t the score; λ = churn; S the entries of a sample.

Reference: Anderson (1982), Stochastic Process. Appl. 12(3); Song et al. (2021), equations 6 and 13 and appendix D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_has, check_number
from ..protocols import SDE, Calculus, Dense, Diffusion, Direction, Noise, Score
from ..sdes.convert import to_ito

_NUMBERS_AT_ONCE = 1 << 22  # derivatives of G held at a time


@dataclass(frozen=True)
class ReverseSDE:
    """An SDE with the marginals of `process`, running against its direction; made by `reverse` and `probability_flow`.

    process: the SDE whose law is reversed.  score: `(t, x) -> ∇ log p_t(x)`.  churn: λ ≥ 0 of the module's formula.
    """

    process: SDE
    score: Score
    churn: float = 1.0

    @property
    def noise(self) -> Noise:
        return Noise.NONE if self.churn == 0 else self.process.noise

    @property
    def calculus(self) -> Calculus:
        return Calculus.ITO

    @property
    def direction(self) -> Direction:
        return Direction(-self.process.direction)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """`f − ½(1 + λ²)(G Gᵀ s + ∇·(G Gᵀ))`."""
        return self.assemble(t, x, self.score(t, x))

    def assemble(self, t: Tensor, x: Tensor, score: Tensor) -> Tensor:
        """The drift, given the score's value at (t, x)."""
        spread = covariance_product(self.process, t, x, score)
        if self.process.noise is not Noise.ADDITIVE:
            spread = spread + covariance_divergence(self.process, t, x)
        weight = 0.5 * (1.0 + self.churn**2) * int(self.process.direction)
        return self.process.drift(t, x) - spread * weight

    def diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        """`λ G`."""
        g = self.process.diffusion(t, x)
        return g if self.churn == 1.0 else g * self.churn


def reverse(sde: SDE, score: Score, churn: float = 1.0) -> ReverseSDE:
    """The SDE that runs against `sde` in time and has the same marginals p_t.

    score: `(t, x) -> ∇ₓ log p_t(x)`, shaped like x.  churn: 1 for Anderson's reversal, more or less noise for other
    members of the family; 0 is `probability_flow`. A Stratonovich SDE is converted to Itô first. State-dependent noise
    needs a diffusion that `torch.func` can differentiate; Dense noise costs S forward derivatives of G a call.

    Raises TypeError if the score is not callable, ValueError for a negative or infinite churn or an SDE without noise.
    """
    if not callable(score):
        raise TypeError(f"score: expected a function (t, x) -> tensor shaped like x, got {score!r}")
    check_number("churn", churn, least=0.0)
    check_has("sde", sde, ("drift", "diffusion", "noise", "calculus", "direction"), "an SDE such as VP()")
    if sde.noise is Noise.NONE:
        raise ValueError("an ODE has no law to reverse: solve it from t1 to t0 instead")
    return ReverseSDE(to_ito(sde), score, float(churn))


def probability_flow(sde: SDE, score: Score) -> ReverseSDE:
    """The ODE `dx/dt = f − ½ G Gᵀ s − ½ ∇·(G Gᵀ)`, whose solutions carry p_t along; it may be solved either way."""
    return reverse(sde, score, churn=0.0)


def covariance_product(sde: SDE, t: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """`G Gᵀ v`, of the shape of x."""
    g = sde.diffusion(t, x)
    if not isinstance(g, Dense) and sde.noise is not Noise.SCALAR:
        return g * g * v
    matrix = _columns(g, x)
    return (matrix @ (matrix.mT @ v.reshape(len(x), -1, 1))).reshape(x.shape)


def covariance_divergence(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    """`(∇·(G Gᵀ))_i = Σ_j ∂_j (G Gᵀ)_ij`, of the shape of x, by forward differentiation.

    DIAGONAL noise: 2 g g′, one derivative. Other element-wise noise: 2 g_i ∂_i g_i. Else, with columns k,
    Σ_jk (∂_j G_ik) G_jk + G_ik ∂_j G_jk. The last two take one derivative of G for every entry of x.
    """
    if sde.noise is Noise.ADDITIVE:
        return torch.zeros_like(x)
    form = sde.diffusion(t, x)
    elementwise = not isinstance(form, Dense) and sde.noise is not Noise.SCALAR

    def diagonal(y: Tensor) -> Tensor:
        g = sde.diffusion(t, y)
        return _diagonal(g, y) if isinstance(g, Dense) else g.expand_as(y)

    if sde.noise is Noise.DIAGONAL:
        g, slope = _with_slope(diagonal, x, torch.ones_like(x))
        return 2.0 * g * slope

    def own(unit: Tensor) -> Tensor:
        """2 g ∂_j g in entry j."""
        g, slope = _with_slope(diagonal, x, unit.expand_as(x))
        return 2.0 * g * slope * unit

    def along(unit: Tensor) -> Tensor:
        """The terms of entry j."""
        g, slope = _with_slope(lambda y: _columns(sde.diffusion(t, y), y), x, unit.expand_as(x))
        one = unit.reshape(1, -1, 1)
        total = slope @ (g.mT @ one) + g @ (slope.mT @ one)
        return total.reshape(x.shape)

    size = x[0].numel()
    units = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
    held = x.numel() if elementwise else _columns(form, x).numel()
    chunk = max(1, _NUMBERS_AT_ONCE // max(1, held))
    return torch.func.vmap(own if elementwise else along, chunk_size=chunk)(units).sum(0)


def _with_slope(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A function at x and its derivative along v."""
    found = torch.func.jvp(function, (x,), (v,))
    return found[0], found[1]


def _columns(g: Diffusion, x: Tensor) -> Tensor:
    """G as a matrix `(B, S, m)`; an element-wise g is one column."""
    matrix = g.matrix if isinstance(g, Dense) else g.expand_as(x).unsqueeze(-1)
    count = matrix.shape[-1]
    return matrix.expand(*x.shape, count).reshape(len(x), -1, count)


def _diagonal(g: Dense, x: Tensor) -> Tensor:
    """The diagonal of a matrix `(B, *shape, S)`, shaped like x."""
    return torch.diagonal(_columns(g, x), dim1=1, dim2=2).reshape(x.shape)
