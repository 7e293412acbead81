"""Jacobians of a drift and linear systems, for implicit methods: every sample with a matrix of its own.

Notation: a state `(B, *shape)` is flattened to D components; matrices are `(B, D, D)`. A drift acts on each sample by
itself, so that the gradient of component k gives row k for all samples at once; the rows are taken together, in one
batched backward pass over one evaluation. (Forward mode would give columns, but costs several times as much for small
D.) The memory is B·D², which is what bounds the size of a state that an implicit method can take.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..errors import Incompatible
from ..protocols import SDE

MOST_COMPONENTS = 4096
"""The largest D; a Jacobian has D² numbers a sample."""


class Linearization(NamedTuple):
    """f, ∂f/∂x `(B, D, D)` and, where asked, ∂f/∂t at one point."""

    f: Tensor
    jacobian: Tensor
    time: Tensor | None = None


def linearize(sde: SDE, t: Tensor, x: Tensor, timed: bool = False, graph: bool = False) -> Linearization:
    """The drift and its derivatives at (t, x), in one evaluation.

    timed: give ∂f/∂t too.  graph: let gradients flow through the derivatives.
    """
    count = x[0].numel()
    if count > MOST_COMPONENTS:
        raise Incompatible(
            f"an implicit step needs a Jacobian of {count} x {count} numbers a sample; at most {MOST_COMPONENTS} "
            "components are accepted. Use an explicit solver with smaller steps, or ExponentialEuler() on a Semilinear."
        )
    with torch.inference_mode(False), torch.enable_grad():
        x, t = _source(x, graph), _source(t, graph)
        f = sde.drift(t, x)
        rows = torch.eye(count, dtype=x.dtype, device=x.device).reshape(count, 1, *x.shape[1:]).expand(count, *x.shape)
        slope = _gradient(f, x, rows, keep=graph or timed, graph=graph)
        time = _forward(f, t, graph) if timed else None
    jacobian = slope.reshape(count, len(x), count).transpose(0, 1)
    if graph:
        return Linearization(f, jacobian, time)
    return Linearization(f.detach(), jacobian, None if time is None else time.detach())


def _source(x: Tensor, graph: bool) -> Tensor:
    """A tensor to differentiate by: x itself where its own history matters."""
    return x if graph and x.requires_grad else x.detach().clone().requires_grad_()


def _gradient(f: Tensor, x: Tensor, rows: Tensor, keep: bool, graph: bool) -> Tensor:
    """`rowsᵀ ∂f/∂x`, zero where f does not depend on x."""
    if not f.requires_grad:
        return torch.zeros(len(rows), *x.shape, dtype=x.dtype, device=x.device)
    (slope,) = torch.autograd.grad(
        f, x, rows, retain_graph=keep, create_graph=graph, is_grads_batched=True, materialize_grads=True
    )
    return slope


def _forward(f: Tensor, t: Tensor, graph: bool) -> Tensor:
    """∂f/∂t by two backward passes: `vᵀ ∂f/∂t` is linear in v, and its gradient in v is the derivative itself."""
    v = torch.zeros_like(f, requires_grad=True)
    if f.requires_grad:
        (pulled,) = torch.autograd.grad(f, t, v, create_graph=True, materialize_grads=True)
        if pulled.requires_grad:
            (slope,) = torch.autograd.grad(
                pulled, v, torch.ones_like(pulled), create_graph=graph, materialize_grads=True
            )
            return slope
    return torch.zeros_like(f)


class Factors(NamedTuple):
    """The LU factors of `I − c J` for every sample; a singular matrix gives infinities in its own sample only."""

    lu: Tensor
    pivots: Tensor

    def solve(self, y: Tensor) -> Tensor:
        """`(I − c J)⁻¹ y` for y of the shape of the state."""
        flat = y.reshape(len(y), -1, 1)
        return cast(Tensor, torch.linalg.lu_solve(self.lu, self.pivots, flat)).reshape(y.shape)


def factorize(jacobian: Tensor, c: float | Tensor) -> Factors:
    """Factors of `I − c J`; c a float, 0-d, or `(B, 1, …, 1)`."""
    if isinstance(c, Tensor) and c.ndim > 0:
        c = c.reshape(-1, 1, 1)
    eye = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    lu, pivots, _ = cast(tuple[Tensor, Tensor, Tensor], torch.linalg.lu_factor_ex(eye - jacobian * c))
    return Factors(lu, pivots)
