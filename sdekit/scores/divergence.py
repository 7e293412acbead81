"""The divergence ∇·v of a vector field, exactly or by random probes, together with v in one evaluation of the field.

    ∇·v = tr J,  J = ∂v/∂x        exact: D vector–Jacobian products
    E[eᵀ J e] = tr J              for probes e with E[e eᵀ] = I (Hutchinson)

Probes are drawn once for a whole solve, so that the estimate is one smooth function of time.

Shapes: x `(B, *shape)`, v like x, probes `(P, B, *shape)`, divergence `(P, B)` (one row for `Exact`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..random import Draws, Purpose

Field = Callable[[Tensor], Tensor]


def _evaluate(field: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    """x as a leaf, and v with its graph."""
    leaf = x.detach().requires_grad_(True)
    value = field(leaf)
    if not value.requires_grad:
        raise ValueError(
            "the vector field has no gradient with respect to x: is the score computed under no_grad, or detached? "
            "The divergence needs its derivative."
        )
    return leaf, value


def _products(value: Tensor, leaf: Tensor, vectors: Tensor) -> Tensor:
    """`e · (J e)` for every probe, `(P, B)`, keeping the graph of one forward pass."""
    rows = []
    last = len(vectors) - 1
    for i, e in enumerate(vectors):
        (pulled,) = torch.autograd.grad(value, leaf, e, retain_graph=i < last)
        rows.append((pulled * e).flatten(1).sum(1))
    return torch.stack(rows)


@dataclass(frozen=True)
class Exact:
    """The divergence itself, by one vector–Jacobian product per component: exact, and D times the cost of a probe."""

    @property
    def probes(self) -> int:
        return 1

    @property
    def exact(self) -> bool:
        return True

    def draw(self, draws: Draws, x: Tensor) -> Tensor | None:
        """No probes."""
        return None

    def __call__(self, field: Field, x: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
        """v and `∇·v`, shape `(1, B)`."""
        with torch.enable_grad():
            leaf, value = _evaluate(field, x)
            flat = value.flatten(1)
            size = flat.shape[1]
            trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for i in range(size):
                # samples do not mix, so the sum over the batch has every sample's own gradient
                (row,) = torch.autograd.grad(flat[:, i].sum(), leaf, retain_graph=i < size - 1)
                trace = trace + row.flatten(1)[:, i]
        return value.detach(), trace.unsqueeze(0)


@dataclass(frozen=True)
class Hutchinson:
    """Unbiased estimate by `probes` random vectors a sample, with a standard error from their spread.

    probes: P ≥ 1; a standard error needs 2 or more.  kind: "rademacher" (entries ±1, least variance of the three when J
    is far from diagonal-free), "gaussian", or "spherical" (uniform on the sphere of radius √D).

    Reference: Hutchinson (1990), Commun. Stat. Simul. 19(2); Grathwohl et al. (2019), arXiv 1810.01367, equation 7.
    """

    probes: int = 1
    kind: str = "rademacher"

    def __post_init__(self) -> None:
        if isinstance(self.probes, bool) or not isinstance(self.probes, int) or self.probes < 1:
            raise ValueError(f"Hutchinson: probes must be an integer of 1 or more, got {self.probes!r}")
        if self.kind not in ("rademacher", "gaussian", "spherical"):
            raise ValueError(f"Hutchinson: kind is 'rademacher', 'gaussian' or 'spherical', got {self.kind!r}")

    @property
    def exact(self) -> bool:
        return False

    def draw(self, draws: Draws, x: Tensor) -> Tensor:
        """The probes of a whole solve, `(P, B, *shape)`, keyed by (seed, sample, probe)."""
        make = draws.sign if self.kind == "rademacher" else draws.normal
        vectors = torch.stack(
            [make(Purpose.PROBE, j, tuple(x.shape), x.dtype, x.device) for j in range(self.probes)]
        )
        if self.kind == "spherical":
            flat = vectors.flatten(2)
            flat = flat * (flat.shape[2] ** 0.5 / flat.norm(dim=2, keepdim=True))
            vectors = flat.reshape(vectors.shape)
        return vectors

    def __call__(self, field: Field, x: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
        """v and the estimates `(P, B)`."""
        if probes is None:
            raise ValueError("Hutchinson needs probes: pass those of `draw`")
        with torch.enable_grad():
            leaf, value = _evaluate(field, x)
            estimates = _products(value, leaf, probes)
        return value.detach(), estimates
