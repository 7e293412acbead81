"""Whether a density belongs to an SDE: the Fokker–Planck equation, by automatic differentiation.

For dx = f dt + G dW (Itô) with densities p, in logarithms and divided by p:

    ∂_t log p + ∇·u + u · ∇log p = 0,      u = f − ½ (G Gᵀ ∇log p + ∇·(G Gᵀ))

u is the velocity of the probability flow. Where the SDE runs backward its noise spreads p towards smaller t, and the
½ has a plus. A Stratonovich SDE is converted to Itô first, an ODE has u = f.

Reference: Øksendal (2003), Stochastic Differential Equations, section 8.1; Lai et al. (2023), arXiv 2210.04296
(residuals of learned scores).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_has, check_state
from ..protocols import SDE, Noise, time_beside
from .divergence import Exact
from .energy import gradient
from .reverse import probability_flow

LogDensity = Callable[[Tensor, Tensor], Tensor]
"""`(t, x) -> log p_t(x)`, `(B,)`."""


def fokker_planck_residual(sde: SDE, log_prob: LogDensity, t: Tensor | float, x: Tensor) -> Tensor:
    """`∂_t log p + ∇·u + u·∇log p` at (t, x), `(B,)`: zero everywhere for the densities of the SDE, and for them only.

    sde: any, in either direction.  log_prob: differentiable in t, and three times in x for state-dependent noise (twice
    otherwise); need not be normalised by more than a constant.  t: float, 0-d or `(B, 1, …, 1)`.  x: `(B, *shape)`.

    Where gradients are on, the residual keeps its graph, so that it may be a loss.

    Cost: D derivatives of u, which holds one gradient of log_prob, and for `Dense` noise D derivatives of G.

    Raises ValueError where log_prob is not `(B,)` or not differentiable; TypeError for an sde that is none.
    """
    check_has("sde", sde, ("drift", "noise", "calculus", "direction"), "an SDE such as VP()")
    check_state("x", x)
    time = time_beside(t, x)

    def score(t: Tensor, y: Tensor) -> Tensor:
        return gradient(log_prob, t, y, "log_prob")

    flow: Any = sde if sde.noise is Noise.NONE else probability_flow(sde, score)
    velocity, divergence = Exact()(lambda y: flow.drift(time, y), x)
    slope = gradient(log_prob, time, x, "log_prob")

    def density(s: Tensor) -> Tensor:
        return log_prob(s, x)

    growth = torch.func.jvp(density, (time,), (torch.ones_like(time),))[1]
    return growth + divergence[0] + (velocity * slope).flatten(1).sum(1)
