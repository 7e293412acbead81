"""The law of an SDE run backwards in time, and the family between it and its probability-flow ODE.

For `dx = f dt + G dW` with marginals p_t, every member of

    dx = [ f − ½(1 + λ²) ( G Gᵀ ∇ log p_t + ∇·(G Gᵀ) ) ] dt + λ G dW̄          (time running backwards)

has the same marginals p_t. λ ("churn") = 1 is Anderson's reversal, λ = 0 the probability flow.

This reverses the law. Running a path backwards on its own noise is another thing, and needs no score.

Notation: f, G, t, x as in `sdekit.protocols`; s = ∇ₓ log p_t the score; λ = churn.

Reference: Anderson (1982), Stochastic Process. Appl. 12(3); Song et al. (2021), equations 6 and 13 and appendix D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Dense, Diffusion, Direction, Noise, Score, apply
from ..sdes.convert import to_ito


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
        g = self.process.diffusion(t, x)
        spread = g * g * score if isinstance(g, Tensor) and self.process.noise is not Noise.SCALAR else outer(g, score)
        if self.process.noise is not Noise.ADDITIVE:
            spread = spread + covariance_divergence(self.process, t, x)
        return self.process.drift(t, x) - spread * (0.5 * (1.0 + self.churn**2))

    def diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        """`λ G`."""
        g = self.process.diffusion(t, x)
        return g if self.churn == 1.0 else g * self.churn


def reverse(sde: SDE, score: Score, churn: float = 1.0) -> ReverseSDE:
    """The SDE that runs against `sde` in time and has the same marginals p_t.

    score: `(t, x) -> ∇ₓ log p_t(x)`, shaped like x.  churn: 1 for Anderson's reversal, more or less noise for other
    members of the family; 0 is `probability_flow`. A Stratonovich SDE is converted to Itô first.

    Raises TypeError if the score is not callable, ValueError for a negative churn or an SDE without noise.
    """
    if not callable(score):
        raise TypeError(f"score: expected a function (t, x) -> tensor shaped like x, got {score!r}")
    if not churn >= 0:
        raise ValueError(f"churn must be 0 or more, got {churn!r}")
    if sde.noise is Noise.NONE:
        raise ValueError("an ODE has no law to reverse: solve it from t1 to t0 instead")
    return ReverseSDE(to_ito(sde), score, float(churn))


def probability_flow(sde: SDE, score: Score) -> ReverseSDE:
    """The ODE `dx/dt = f − ½ G Gᵀ s − ½ ∇·(G Gᵀ)`, whose solutions carry p_t along; it may be solved either way."""
    return reverse(sde, score, churn=0.0)


def outer(g: Diffusion, v: Tensor) -> Tensor:
    """`G Gᵀ v` for a dense G, or an element-wise G that one Brownian motion drives."""
    if isinstance(g, Dense):
        lead = tuple(range(1, v.ndim))
        matrix = g.matrix.expand(*v.shape, g.matrix.shape[-1])
        return apply(g, (matrix * v.unsqueeze(-1)).sum(lead))
    inner = (g * v).flatten(1).sum(1).reshape(-1, *(1,) * (v.ndim - 1))
    return g * inner


def covariance_divergence(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    """`(∇·(G Gᵀ))_i = Σ_j ∂_j (G Gᵀ)_ij`, by automatic differentiation.

    Diagonal noise: 2 g g′. Else, column by column, `G_k (∇·G_k) + (G_k·∇) G_k`, whose divergence takes one
    Jacobian–vector product per component of x.
    """
    if sde.noise is Noise.ADDITIVE:
        return torch.zeros_like(x)
    if sde.noise is Noise.DIAGONAL:
        g, slope = torch.func.jvp(lambda y: _tensor(sde, t, y), (x,), (torch.ones_like(x),))
        return 2.0 * g * slope
    columns = sde.diffusion(t, x)
    count = columns.matrix.shape[-1] if isinstance(columns, Dense) else 1
    total = torch.zeros_like(x)
    for k in range(count):

        def column(y: Tensor, k: int = k) -> Tensor:
            g = sde.diffusion(t, y)
            return (g.matrix[..., k] if isinstance(g, Dense) else g).expand_as(y)

        value, along = torch.func.jvp(column, (x,), (column(x).contiguous(),))
        total = total + value * _trace(column, x) + along
    return total


def _tensor(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    g = sde.diffusion(t, x)
    if isinstance(g, Dense):  # a diagonal matrix, written out
        return torch.diagonal(g.matrix.reshape(x.shape[0], -1, g.matrix.shape[-1]), dim1=1, dim2=2).reshape(x.shape)
    return g.expand_as(x)


def _trace(field: object, x: Tensor) -> Tensor:
    """`∇·v` by one Jacobian–vector product per component, shaped `(B, 1, …, 1)`."""
    size = x[0].numel()
    basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:]).expand(size, *x.shape)
    products = torch.func.vmap(lambda e: torch.func.jvp(field, (x,), (e.contiguous(),))[1])(basis.contiguous())  # type: ignore[arg-type]
    return (products * basis).flatten(2).sum((0, 2)).reshape(-1, *(1,) * (x.ndim - 1))
