"""How far apart the path laws of two SDEs are that share a diffusion.

    dx = f dt + G dW   (posterior, Q)        dx = h dt + G dW   (prior, P)

By Girsanov's theorem, with u = G⁻¹ (f − h), the inverse element by element or the pseudo-inverse of a matrix,

    KL(Q ‖ P) = ½ E_Q ∫ |u(t, x)|² dt

and ½ ∫ |u|² dt along one path of Q is an unbiased estimate of it. Both SDEs are read in one calculus, so that
corrections for the diffusion cancel in f − h.

The integral rides along with the state, `[x flattened, ½ ∫ |u|² dt]` `(B, D + 1)`, with an error norm of its own.

Reference: Girsanov (1960), Theory Probab. Appl. 5(3); Li, Wong, Chen, Duvenaud (2020), "Scalable gradients for
stochastic differential equations", section 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .arguments import check_has, check_state
from .errors import Incompatible
from .protocols import (
    SDE,
    BrownianMotion,
    Calculus,
    Dense,
    Diffusion,
    Direction,
    Noise,
    Solver,
    StepControl,
    as_time,
    expand,
    sample_norm,
)
from .random import Draws
from .save import SaveAt
from .solution import Stats
from .solve import Gradient, solve


@dataclass(frozen=True)
class PathKL:
    """What `path_kl` finds.

    kl: `(B,)`, or `(T, B)` at the saved times: ½ ∫ |u|² dt along each path, from t0.
    x, t, status, stats: as in `Solution`, of the posterior's paths.
    """

    kl: Tensor
    x: Tensor
    t: Tensor
    status: Tensor
    stats: Stats

    @property
    def mean(self) -> Tensor:
        """The estimate of KL(Q ‖ P), over the batch."""
        return self.kl.mean(-1)

    @property
    def standard_error(self) -> Tensor:
        """Of the mean, from the spread over the batch."""
        return self.kl.std(-1) / math.sqrt(self.kl.shape[-1])


def path_kl(
    posterior: SDE,
    prior: SDE,
    x0: Tensor,
    t0: float | Tensor,
    t1: float | Tensor,
    *,
    solver: Solver,
    steps: StepControl,
    save: SaveAt | None = None,
    seed: int | Draws = 0,
    first: int = 0,
    path: BrownianMotion | None = None,
    gradient: Gradient | None = None,
    on_failure: str = "raise",
) -> PathKL:
    """The Kullback–Leibler divergence of the posterior's path law from the prior's, along paths of the posterior.

    Differentiable in both drifts, the diffusion and x0, which fits latent SDEs. The divergence of the laws of x0 is not
    included. With a `Dense` diffusion the paths are those of `solve(posterior, …)` with the same seed.

    posterior, prior: SDEs with the same diffusion, calculus and direction.  save: times, or every; not fn or dense.
    The other arguments are those of `solve`.

    The divergence is infinite where f − h leaves the range of G, and such paths get inf.

    Raises Incompatible where calculus, direction or diffusion (at t0, x0) differ, and what `solve` raises.
    """
    if save is not None:
        check_has("save", save, ("times", "every", "fn", "dense"), "SaveAt(times=[…]) or SaveAt(every=n)")
    if save is not None and (save.fn is not None or save.dense):
        raise ValueError("path_kl: save takes times=… or every=…; apply functions to the saved states instead")
    pair = _Pair(posterior, prior, tuple(x0.shape[1:]) if isinstance(x0, Tensor) else ())
    pair.check(x0, t0)
    y0 = torch.cat((x0.flatten(1), x0.new_zeros(len(x0), 1)), dim=1)
    sol = solve(
        pair,
        y0,
        t0,
        t1,
        solver=solver,
        steps=steps,
        save=save,
        seed=seed,
        first=first,
        path=path,
        gradient=gradient,
        on_failure=on_failure,
    )
    x, kl = sol.x[..., :-1], sol.x[..., -1]
    return PathKL(kl, x.reshape(*x.shape[:-1], *pair.shape), sol.t, sol.status, sol.stats)


@dataclass(frozen=True)
class _Pair:
    """The posterior with the running divergence as a further column."""

    posterior: SDE
    prior: SDE
    shape: tuple[int, ...]

    @property
    def noise(self) -> Noise:
        return self.posterior.noise

    @property
    def calculus(self) -> Calculus:
        return self.posterior.calculus

    @property
    def direction(self) -> Direction:
        return self.posterior.direction

    @property
    def blocks(self) -> tuple[int, ...]:
        """Sizes of the parts that have an error norm each."""
        return (math.prod(self.shape), 1)

    def parameters(self) -> Iterator[Any]:
        """Of both SDEs, where they are modules."""
        for sde in (self.posterior, self.prior):
            if isinstance(sde, torch.nn.Module):
                yield from sde.parameters()

    def check(self, x0: Tensor, t0: float | Tensor) -> None:
        """Raise unless the two SDEs may be compared."""
        for sde in (self.posterior, self.prior):
            if isinstance(sde, type):
                raise TypeError(f"path_kl: posterior and prior must be SDEs, got the class {sde.__name__}")
        for name in ("noise", "calculus", "direction"):
            ours, theirs = getattr(self.posterior, name, None), getattr(self.prior, name, None)
            if ours is None or theirs is None:
                raise TypeError(f"path_kl: posterior and prior must be SDEs; one has no `{name}`")
            if ours is not theirs and name != "noise":
                raise Incompatible(f"path_kl: posterior and prior differ in {name}, {ours.name} and {theirs.name}")
        if self.noise is Noise.NONE or self.prior.noise is Noise.NONE:
            raise Incompatible("path_kl: the path law of an ODE has no density; both SDEs need noise")
        for sde in (self.posterior, self.prior):
            check_has("posterior and prior", sde, ("drift", "diffusion"), "SDEs with a drift and a diffusion")
        check_state("x0", x0)
        with torch.no_grad():
            t = expand(as_time(t0), x0)
            t = t.to(x0.dtype) if t.ndim else t
            g, other = (_matrix(sde.diffusion(t, x0), x0, self.noise) for sde in (self.posterior, self.prior))
        if g.shape != other.shape or not torch.allclose(g, other, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise Incompatible(
                "path_kl: posterior and prior have different diffusions, so their path laws are singular"
            )

    def _state(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = y[:, :-1].reshape(-1, *self.shape)
        return (expand(t.reshape(-1), x) if t.ndim else t), x

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """`[f, ±½ |u|²]`, the sign that of the direction of travel, since the integral is over |dt|."""
        time, x = self._state(t, y)
        f = self.posterior.drift(time, x)
        u = _solve(self.posterior.diffusion(time, x), f - self.prior.drift(time, x), self.noise)
        rate = 0.5 * u.square().sum(1, keepdim=True) * int(self.direction)
        return torch.cat((f.flatten(1), rate), dim=1)

    def diffusion(self, t: Tensor, y: Tensor) -> Diffusion:
        """G, with no noise on the divergence."""
        time, x = self._state(t, y)
        g = self.posterior.diffusion(time, x)
        if isinstance(g, Dense):
            matrix = g.matrix.expand(*x.shape, g.matrix.shape[-1]).reshape(len(x), -1, g.matrix.shape[-1])
            return Dense(torch.nn.functional.pad(matrix, (0, 0, 0, 1)))
        return torch.nn.functional.pad(g.to(x.dtype).expand_as(x).flatten(1), (0, 1))


def _matrix(g: Diffusion, x: Tensor, noise: Noise) -> Tensor:
    """G as a tensor `(B, D)` where it is element-wise on noise of its own, else `(B, D, m)`."""
    if isinstance(g, Dense):
        return g.matrix.expand(*x.shape, g.matrix.shape[-1]).reshape(len(x), -1, g.matrix.shape[-1])
    column = g.to(x.dtype).expand_as(x).flatten(1)
    return column.unsqueeze(-1) if noise is Noise.SCALAR else column


def _solve(g: Diffusion, gap: Tensor, noise: Noise) -> Tensor:
    """The u with G u = f − h, `(B, m)`; infinite where there is none."""
    matrix, d = _matrix(g, gap, noise), gap.flatten(1)
    if matrix.ndim == 2:
        still = (matrix == 0) & (d == 0)
        return torch.where(still, 0.0, d / torch.where(still, 1.0, matrix))
    if matrix.shape[1] == matrix.shape[2] and _regular(matrix.detach()):
        return cast(Tensor, torch.linalg.solve(matrix, d))
    u = (cast(Tensor, torch.linalg.pinv(matrix)) @ d.unsqueeze(-1)).squeeze(-1)
    missed = sample_norm((matrix @ u.unsqueeze(-1)).squeeze(-1).detach() - d.detach())
    outside = missed > math.sqrt(torch.finfo(d.dtype).eps) * (1e-30 + sample_norm(d.detach()))
    return torch.where(outside, math.inf, u)


def _regular(matrix: Tensor) -> bool:
    return bool((cast(Tensor, torch.linalg.inv_ex(matrix).info) == 0).all())
