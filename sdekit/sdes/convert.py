"""Itô and Stratonovich: the same solutions, written in either calculus.

    f_Itô = f_Stratonovich + ½ Σ_k (∂G_k) G_k,   with the opposite sign on a BACKWARD SDE

Notation and shapes
    G_k     column k of the diffusion, of the shape of x: what Brownian motion k drives
    ∂G_k    its Jacobian in x; only products with a vector are formed, by forward differentiation

Backward, the noise runs along the direction of travel while the drift is that of physical time, so the correction,
which belongs to the quadratic variation, changes sign against the drift.

Reference: Kloeden, Platen (1992), section 4.9.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor

from ..arguments import check_has
from ..errors import Incompatible
from ..protocols import SDE, Calculus, Dense, Noise
from .functions import ItoSDE, StratonovichSDE


def to_ito(sde: SDE) -> SDE:
    """The Itô SDE with the solutions of a Stratonovich one; an SDE that already is Itô comes back as it is.

    Additive noise and ODEs read alike in both, and keep their drift.

    Raises:
        Incompatible: element-wise noise of class COMMUTATIVE or GENERAL, whose columns are better written as `Dense`.
    """
    return _convert(sde, Calculus.ITO)


def to_stratonovich(sde: SDE) -> SDE:
    """The Stratonovich SDE with the solutions of an Itô one; see `to_ito`."""
    return _convert(sde, Calculus.STRATONOVICH)


def _convert(sde: SDE, calculus: Calculus) -> SDE:
    check_has("sde", sde, ("drift", "noise", "calculus", "direction"), "an SDE such as ItoSDE(…)")
    if sde.calculus is calculus or sde.noise is Noise.NONE:
        return sde
    kind = ItoSDE if calculus is Calculus.ITO else StratonovichSDE
    if sde.noise is Noise.ADDITIVE:
        return cast(SDE, kind(sde.drift, sde.diffusion, sde.noise, sde.direction))
    sign = int(sde.direction) if calculus is Calculus.ITO else -int(sde.direction)

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return sde.drift(t, x) + (0.5 * sign) * noise_drift(sde, t, x)

    return cast(SDE, kind(drift, sde.diffusion, sde.noise, sde.direction))


def noise_drift(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    """Σ_k (∂G_k) G_k, of the shape of x."""
    g = sde.diffusion(t, x)
    if isinstance(g, Dense):
        return _sum_over_columns(sde, t, x, g)
    if sde.noise not in (Noise.ADDITIVE, Noise.DIAGONAL, Noise.SCALAR):
        raise Incompatible(
            f"an element-wise diffusion that declares {sde.noise.name} would need a whole Jacobian: return "
            "Dense(matrix) with one column per Brownian motion, or declare DIAGONAL or SCALAR if it is that"
        )

    def elementwise(y: Tensor) -> Tensor:
        return cast(Tensor, sde.diffusion(t, y)).expand_as(y)

    # diagonal: ∂g is diagonal, so (∂g) g has the entries g_i ∂_i g_i; scalar: g is the one column
    return torch.func.jvp(elementwise, (x,), (g.expand_as(x).to(x.dtype).contiguous(),))[1]


def _sum_over_columns(sde: SDE, t: Tensor, x: Tensor, g: Dense) -> Tensor:
    """The products of all columns in one mapped call."""
    count = g.matrix.shape[-1]
    columns = g.matrix.expand(*x.shape, count).movedim(-1, 0)  # (m, B, *shape)

    def column(k: Tensor, y: Tensor) -> Tensor:
        matrix = cast(Dense, sde.diffusion(t, y)).matrix
        return matrix.expand(*y.shape, count).index_select(-1, k.reshape(1)).squeeze(-1)

    def along(k: Tensor, v: Tensor) -> Tensor:
        return torch.func.jvp(partial(column, k), (x,), (v,))[1]

    return torch.func.vmap(along)(torch.arange(count, device=x.device), columns.contiguous()).sum(0)
