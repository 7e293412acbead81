"""What an SDE's noise is, measured at points: does G depend on x, and do its columns commute?

Solvers trust the declared class. A class that is too narrow costs the order of convergence without a word, so it pays
to look once.

Notation and shapes
    G_k     column k of the diffusion at one sample, flattened to S entries
    J_k     its Jacobian `(S, S)` in that sample
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..arguments import check_has, check_state
from ..errors import Incompatible
from ..protocols import SDE, Dense, Noise, time_beside

_WIDER: dict[Noise, frozenset[Noise]] = {
    Noise.NONE: frozenset(Noise),
    Noise.ADDITIVE: frozenset(Noise) - {Noise.NONE},
    Noise.DIAGONAL: frozenset({Noise.DIAGONAL, Noise.COMMUTATIVE, Noise.GENERAL}),
    Noise.SCALAR: frozenset({Noise.SCALAR, Noise.COMMUTATIVE, Noise.GENERAL}),
    Noise.COMMUTATIVE: frozenset({Noise.COMMUTATIVE, Noise.GENERAL}),
    Noise.GENERAL: frozenset({Noise.GENERAL}),
}


def measured_noise(sde: SDE, t: Tensor, x: Tensor) -> Noise:
    """The narrowest noise class that fits the diffusion at the samples of x, found by automatic differentiation.

    An element-wise diffusion that declares SCALAR counts as one column, else as one Brownian motion a component.
    Points can only refute: take several, and random ones.

    Args:
        sde: any SDE whose diffusion automatic differentiation can follow.
        t: a time, 0-d or `(B, 1, …, 1)`.
        x: points `(B, *shape)`; the cost is S or S·m backward passes.

    Raises ValueError for points that are not finite, TypeError for an sde that is none.
    """
    check_has("sde", sde, ("noise", "calculus"), "an SDE such as ItoSDE(…)")
    if sde.noise is Noise.NONE:
        return Noise.NONE
    check_has("sde", sde, ("diffusion",), "an SDE with a diffusion")
    check_state("x", x)
    t = time_beside(t, x)
    for name, given in (("x", x), ("t", t)):
        if not bool(torch.isfinite(given).all()):
            raise ValueError(f"{name}: noise is measured at finite points, got {given.tolist()}")
    columns, jacobians = _columns(sde, t, x)
    tolerance = 1e-5 if x.dtype is not torch.float64 else 1e-9
    slope = float(jacobians.abs().max())
    if slope <= tolerance * float(columns.abs().max()):
        return Noise.NONE if float(columns.abs().max()) == 0.0 else Noise.ADDITIVE
    if columns.shape[1] == 1:
        return Noise.DIAGONAL if columns.shape[2] == 1 else Noise.SCALAR
    if _is_diagonal(columns, tolerance) and _is_diagonal(jacobians.flatten(2), tolerance, x[0].numel() + 1):
        return Noise.DIAGONAL
    along = torch.einsum("bjis,bks->bjki", jacobians, columns)  # J_j G_k
    twist = float((along - along.transpose(1, 2)).abs().max())
    return Noise.COMMUTATIVE if twist <= tolerance * float(along.abs().max()) else Noise.GENERAL


def check_noise(sde: SDE, t: Tensor, x: Tensor) -> None:
    """Raise where the declared noise class is narrower than what is measured at the samples of x.

    Raises:
        Incompatible: the declared class does not hold; the message says which does.
    """
    measured = measured_noise(sde, t, x)
    if sde.noise not in _WIDER[measured]:
        raise Incompatible(
            f"this SDE declares Noise.{sde.noise.name}, but at the given points its diffusion is {measured.name}: "
            f"declare noise=Noise.{measured.name}"
        )
    if sde.noise is Noise.SCALAR:
        g = sde.diffusion(t, x)
        if isinstance(g, Dense) and g.matrix.shape[-1] > 1:
            raise Incompatible(
                f"this SDE declares Noise.SCALAR, one Brownian motion, but its matrix has {g.matrix.shape[-1]} "
                f"columns: declare noise=Noise.{measured.name}"
            )


def _columns(sde: SDE, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """G `(B, m, S)` and its Jacobians `(B, m, S, S)` at every sample."""
    size = x[0].numel()

    def flat(y: Tensor) -> Tensor:
        g = sde.diffusion(t, y)
        if isinstance(g, Dense):
            return g.matrix.expand(*y.shape, g.matrix.shape[-1]).reshape(y.shape[0], size, -1).mT
        g = g.to(y.dtype).expand_as(y).reshape(y.shape[0], size)
        return g.unsqueeze(1) if sde.noise is Noise.SCALAR else torch.diag_embed(g)

    def together(y: Tensor) -> Tensor:
        return flat(y).sum(0)

    # samples do not see one another, so the Jacobian of the sum over the batch holds that of every sample
    jacobian = cast(Tensor, torch.autograd.functional.jacobian(together, x.detach()))
    with torch.no_grad():
        return flat(x).detach(), jacobian.flatten(3).movedim(2, 0)


def _is_diagonal(values: Tensor, tolerance: float, stride: int = 1) -> bool:
    """Whether entry (k, i) of `(B, m, n)` is zero unless i = k · stride."""
    off = values.clone()
    count = min(off.shape[1], (off.shape[2] - 1) // stride + 1)
    k = torch.arange(count, device=off.device)
    off[:, k, k * stride] = 0.0
    return float(off.abs().max()) <= tolerance * float(values.abs().max())
