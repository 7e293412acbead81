"""Exact log-densities through the probability-flow ODE.

Along the flow v of `probability_flow(process, score)`, from x(t_min) = x to the latent x(t_max),

    log p_tmin(x) = log prior(x(t_max)) + ∫ ∇·v(t, x(t)) dt     over t from t_min to t_max

State of the solve: `[x flattened, (1/D) ∫ ∇·v for every probe]`, `(B, D + P)`. The integral is carried per dimension, so
that one tolerance means the same for both, and has an error norm of its own, so that neither hides behind the other.

Reference: Song et al. (2021), appendix D; Chen et al. (2018), "Neural ordinary differential equations", equation 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import SDE, Affine, Calculus, Direction, Law, Noise, Score, Solver, StepControl, expand
from ..random import Draws, as_draws
from ..solution import Stats
from ..solve import solve
from .divergence import Exact, Hutchinson
from .reverse import ReverseSDE, probability_flow


@dataclass(frozen=True)
class LogLikelihood:
    """Densities of a batch.

    log_prob `(B,)` in nats; per_probe `(P, B)`; latent: x(t_max) like x; standard_error `(B,)` of log_prob from the
    spread of the probes (0 for `Exact`, NaN for a single probe); status and stats as in `Solution`.
    """

    log_prob: Tensor
    per_probe: Tensor
    latent: Tensor
    standard_error: Tensor
    status: Tensor
    stats: Stats

    @property
    def dimensions(self) -> int:
        """D, the numbers in one sample."""
        return self.latent[0].numel()

    def bits_per_dim(self) -> Tensor:
        """`−log₂ p / D`, `(B,)`, of the continuous density (images add −log₂ of the bin width)."""
        return -self.log_prob / (self.dimensions * math.log(2.0))


@dataclass(frozen=True)
class _FlowWithDivergence:
    """The probability flow with its divergence as further columns."""

    flow: ReverseSDE
    score: Score
    divergence: Exact | Hutchinson
    probes: Tensor | None
    shape: tuple[int, ...]

    noise = Noise.NONE
    calculus = Calculus.ITO
    direction = Direction.FORWARD

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Sizes of the parts that have an error norm each."""
        return (self.size, self.divergence.probes)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.zeros((), dtype=x.dtype, device=x.device)

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        x = y[:, : self.size].reshape(-1, *self.shape)
        time = expand(t.reshape(-1), x) if t.ndim else t

        def field(x: Tensor) -> Tensor:
            score = self.score(time, x)
            if x.requires_grad and not score.requires_grad:
                raise ValueError(
                    "the score has no gradient with respect to x: is it computed under no_grad, or detached? "
                    "The likelihood needs its divergence."
                )
            return self.flow.assemble(time, x, score)

        value, divergence = self.divergence(field, x, self.probes)
        return torch.cat((value.flatten(1), divergence.T.to(y.dtype) / self.size), dim=1)


def log_likelihood(
    process: SDE | Affine | Any,
    score: Score,
    x: Tensor,
    *,
    solver: Solver,
    steps: StepControl,
    divergence: Exact | Hutchinson | None = None,
    t_min: float | None = None,
    t_max: float | None = None,
    prior: Law | None = None,
    seed: int | Draws = 0,
    first: int = 0,
    on_failure: str = "raise",
) -> LogLikelihood:
    """Log-density of x under the law at t_min of the model that `score` defines.

    process: forward SDE with `t_min`, `t_max` and `prior` (or give them here).  score: `(t, x) -> ∇ log p_t(x)`,
    differentiable in x; called once for every evaluation of flow and divergence together.
    x: `(B, *shape)`, taken as states at t_min.  divergence: `Exact()` (default) or `Hutchinson(probes)`.
    prior: the law at t_max, anything with `log_prob`; default `process.prior`, a Gaussian that stands for it.
    Sample i's probes depend on (seed, first + i) only, and with `Adaptive` steps so does its whole path.

    Raises SolveFailed like `solve`; ValueError for a score without a gradient.
    """
    start = process.t_min if t_min is None else t_min
    end = process.t_max if t_max is None else t_max
    law: Any = process.prior if prior is None else prior  # type: ignore[union-attr]
    if not hasattr(law, "log_prob"):
        raise TypeError(f"prior: expected a law with log_prob(x), got {type(law).__name__}")
    if not isinstance(x, Tensor) or x.ndim < 2:
        raise ValueError(f"x: expected a tensor (B, *shape), got {tuple(x.shape) if isinstance(x, Tensor) else x!r}")
    divergence = Exact() if divergence is None else divergence
    probes = divergence.draw(as_draws(seed, first), x)
    shape, size = tuple(x.shape[1:]), x[0].numel()
    flow = _FlowWithDivergence(probability_flow(process, score), score, divergence, probes, shape)
    y0 = torch.cat((x.flatten(1), x.new_zeros(len(x), divergence.probes)), dim=1)
    with torch.no_grad():
        sol = solve(flow, y0, start, end, solver=solver, steps=steps, on_failure=on_failure)
        latent = sol.x[:, :size].reshape(x.shape)
        per_probe = law.log_prob(latent) + sol.x[:, size:].T * size
    return LogLikelihood(
        per_probe.mean(0), per_probe, latent, _standard_error(per_probe, divergence), sol.status, sol.stats
    )


def _standard_error(per_probe: Tensor, divergence: Exact | Hutchinson) -> Tensor:
    if divergence.exact:
        return torch.zeros_like(per_probe[0])
    if len(per_probe) == 1:
        return torch.full_like(per_probe[0], math.nan)
    return per_probe.std(0) / math.sqrt(len(per_probe))
