"""Energies as scores: `s = −∇ₓ E(t, x)` by automatic differentiation, for models of an unnormalised log-density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Energy = Callable[[Tensor, Tensor], Tensor]
"""`(t, x) -> (B,)`, sample by sample."""


def gradient(function: Energy, t: Tensor, x: Tensor, name: str) -> Tensor:
    """`∇ₓ` of a function `(t, x) -> (B,)`, under `no_grad` too; with a graph where gradients are on.

    Raises ValueError where the function is not `(B,)` or does not depend on x through differentiable operations.
    """
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = x if graph and x.requires_grad else x.detach().requires_grad_(True)
        value = function(t, leaf)
        if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name}(t, x) must return one number a sample, shape ({len(x)},), got {given}")
        if not value.requires_grad:
            raise ValueError(
                f"{name}(t, x) has no gradient with respect to x: is it computed under no_grad, or detached?"
            )
        return torch.autograd.grad(value.sum(), leaf, create_graph=graph, materialize_grads=True)[0]


@dataclass(frozen=True)
class EnergyScore:
    """The score of the density exp(−E(t, x))/Z(t): `−∇ₓ E`. One call of the energy, and its gradient, a call.

    energy: `(t, x) -> (B,)`, differentiable; t is 0-d or `(B, 1, …, 1)`. Works under `no_grad`, and may be
    differentiated again, as a likelihood does.

    Raises TypeError where energy is not callable.

    Reference: Salimans, Ho (2021), "Should EBMs model the energy or the score?", equation 4.
    """

    energy: Energy

    def __post_init__(self) -> None:
        if not callable(self.energy):
            raise TypeError(f"EnergyScore: energy is a function (t, x) -> (B,), got {self.energy!r}")

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return -gradient(self.energy, t, x, "energy")
