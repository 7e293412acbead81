"""The divergence ∇·v of a vector field, exactly or by random probes, together with v in one evaluation of the field.

    ∇·v = tr J,  J = ∂v/∂x                exact: D vector–Jacobian products
    E[eᵀ J e] = tr J                      for probes e with E[e eᵀ] = I (Hutchinson)
    tr J = tr(Qᵀ J Q) + tr(Q⊥ᵀ J Q⊥)      the first part exactly for directions Q that J stretches most (Hutch++)

Probes are drawn once for a whole solve, so that the estimate is one smooth function of time. All products of one
call share one forward pass, whose activations are all that is kept. Under `no_grad` values come back detached;
otherwise they carry a graph, so that losses may be built on them.

Shapes: x `(B, *shape)`, v like x, probes `(P, B, *shape)`, divergence `(P, B)` (one row for `Exact`); samples must not
see one another in v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..arguments import check_state
from ..random import Draws, Purpose

Field = Callable[[Tensor], Tensor]

_NUMBERS_AT_ONCE = 1 << 18  # of pulled-back vectors: enough to fill a processor, little beside activations
_KINDS = ("rademacher", "gaussian", "spherical")


class Pullback:
    """v at x, and products e ↦ Jᵀ e with the graph of that one evaluation."""

    def __init__(self, field: Field, x: Tensor) -> None:
        check_state("x", x)
        self.graph = torch.is_grad_enabled()
        with torch.enable_grad():
            self.leaf = x if self.graph and x.requires_grad else x.detach().requires_grad_(True)
            self.live = field(self.leaf)
        if not self.live.requires_grad:
            raise ValueError(
                "the vector field has no gradient with respect to x: is the score computed under no_grad, or detached? "
                "The divergence needs its derivative."
            )

    @property
    def value(self) -> Tensor:
        return self.live if self.graph else self.live.detach()

    def __call__(self, vectors: Tensor) -> Tensor:
        """`Jᵀ e` for vectors e `(P, B or 1, *shape)`."""
        vectors = vectors.expand(len(vectors), *self.live.shape)
        count = max(1, _NUMBERS_AT_ONCE // max(1, self.live.numel()))
        return torch.cat([self._pull(vectors[i : i + count]) for i in range(0, len(vectors), count)])

    def _pull(self, vectors: Tensor) -> Tensor:
        if len(vectors) > 1:
            try:
                return self._grad(vectors, batched=True)
            except RuntimeError:
                pass  # an operation that cannot be mapped over vectors: one at a time
        return torch.stack([self._grad(e) for e in vectors])

    def _grad(self, vectors: Tensor, batched: bool = False) -> Tensor:
        found = torch.autograd.grad(
            self.live,
            self.leaf,
            vectors,
            retain_graph=True,
            create_graph=self.graph,
            is_grads_batched=batched,
            materialize_grads=True,
        )
        return found[0]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Sample by sample, `(P, B)`."""
    return (a * b).flatten(2).sum(2)


@dataclass(frozen=True)
class Exact:
    """The divergence itself, by one vector–Jacobian product per component: exact, and D times the cost of a probe."""

    @property
    def probes(self) -> int:
        return 1

    @property
    def exact(self) -> bool:
        """Whether the divergence has no random error."""
        return True

    def draw(self, draws: Draws, x: Tensor, start: int = 0) -> Tensor | None:
        """No probes."""
        return None

    def __call__(self, field: Field, x: Tensor, probes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """V and `∇·v`, shape `(1, B)`."""
        pull, size = Pullback(field, x), x[0].numel()
        trace = x.new_zeros(len(x))
        count = max(1, _NUMBERS_AT_ONCE // max(1, x.numel()))
        for low in range(0, size, count):
            entries = torch.arange(low, min(low + count, size), device=x.device)
            units = x.new_zeros(len(entries), size)
            units[torch.arange(len(entries), device=x.device), entries] = 1.0
            # samples do not mix, so one unit vector for the whole batch finds every sample's own derivative
            rows = pull(units.reshape(-1, 1, *x.shape[1:])).flatten(2)
            trace = trace + rows.gather(2, entries[:, None, None].expand(-1, len(x), 1)).sum((0, 2))
        return pull.value, trace.unsqueeze(0)


@dataclass(frozen=True)
class Hutchinson:
    """Unbiased estimate by `probes` random vectors a sample, with a standard error from their spread.

    probes: P ≥ 1; a standard error needs 2 or more.
    kind: "rademacher" (entries ±1; exact where J is diagonal), "spherical" (uniform on the sphere of radius √D; exact
    where J is a multiple of the identity), or "gaussian".
    control: `(t, x) → c` like x, a diagonal near that of the Jacobian of the *score*, or of the flow where the process
    is not affine. `log_likelihood` takes its part, Σ c, as known, and probes J − diag(c): less spread for Gaussian and
    spherical probes, the same for Rademacher ones, which see no diagonal anyway. Any c leaves the estimate unbiased.

    Raises ValueError for probes below 1 or another kind, TypeError for a control that is no function.

    Reference: Hutchinson (1990), Commun. Stat. Simul. 19(2); Grathwohl et al. (2019), arXiv 1810.01367, equation 7.
    """

    probes: int = 1
    kind: str = "rademacher"
    control: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        _check_probes(self, self.probes, 1)
        _check_kind(self, self.kind)
        if self.control is not None and not callable(self.control):
            raise TypeError(f"Hutchinson: control is a function (t, x) -> diagonal shaped like x, got {self.control!r}")

    @property
    def exact(self) -> bool:
        """Whether the divergence has no random error."""
        return False

    def draw(self, draws: Draws, x: Tensor, start: int = 0) -> Tensor:
        """The probes of a whole solve, `(P, B, *shape)`, keyed by (seed, sample, probe), from number `start` on."""
        return draw_probes(draws, x, self.kind, start, self.probes)

    def __call__(
        self, field: Field, x: Tensor, probes: Tensor | None, diagonal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """V and the estimates `(P, B)`; a known diagonal of J, shaped like x, is taken out before probing."""
        pull, vectors = Pullback(field, x), _given(self, probes)
        estimates = _inner(pull(vectors), vectors)
        if diagonal is not None:
            estimates = estimates - _inner(diagonal * vectors, vectors) + diagonal.expand_as(x).flatten(1).sum(1)
        return pull.value, estimates


@dataclass(frozen=True)
class HutchPlusPlus:
    """Hutchinson's estimate of what is left when the directions that J stretches most are taken out and done exactly.

        Q = orth(Jᵀ S),   tr J ≈ tr(Qᵀ J Q) + mean of gᵀ(I − QQᵀ) J (I − QQᵀ) g

    2·sketch + probes products a call, on one forward pass. Worth it where a few directions make up the off-diagonal
    part of J; with sketch ≥ D it is exact. In few dimensions the estimates are skewed once directions are taken out, and
    95 % intervals of 8 probes hold 90 to 93 % of what they should: take 16 or more.

    probes: P ≥ 1, vectors g for the remainder; a standard error needs 2 or more.  sketch: columns of S; default P.
    kind: of all vectors, as for `Hutchinson`.

    Reference: Meyer, Musco, Musco, Woodruff (2021), arXiv 2010.09649, algorithm 1.
    """

    probes: int = 4
    sketch: int | None = None
    kind: str = "rademacher"

    def __post_init__(self) -> None:
        _check_probes(self, self.probes, 1)
        if self.sketch is not None:
            _check_probes(self, self.sketch, 1, "sketch")
        _check_kind(self, self.kind)

    @property
    def exact(self) -> bool:
        """Whether the divergence has no random error."""
        return False

    @property
    def directions(self) -> int:
        """Columns of S."""
        return self.probes if self.sketch is None else self.sketch

    def draw(self, draws: Draws, x: Tensor, start: int = 0) -> Tensor:
        """The columns of S, then the probes of the remainder: `(sketch + P, B, *shape)`."""
        columns = draw_probes(draws, x, self.kind, 0, self.directions, part=1)
        return torch.cat((columns, draw_probes(draws, x, self.kind, start, self.probes)))

    def __call__(self, field: Field, x: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
        """V and the estimates `(P, B)`."""
        pull, vectors = Pullback(field, x), _given(self, probes)
        columns, rest = vectors[: self.directions], vectors[self.directions :]
        with torch.no_grad():  # any orthonormal Q leaves the estimate unbiased
            sketched = pull(columns).flatten(2).permute(1, 2, 0)
            basis = cast(Tensor, torch.linalg.qr(sketched).Q).permute(2, 0, 1)  # (r, B, D)
            along = torch.einsum("rbd,pbd->prb", basis, rest.flatten(2))
            rest = (rest.flatten(2) - torch.einsum("rbd,prb->pbd", basis, along)).reshape(rest.shape)
            directions = basis.reshape(len(basis), *x.shape)
        known = _inner(pull(directions), directions).sum(0)
        return pull.value, known + _inner(pull(rest), rest)


def draw_probes(draws: Draws, x: Tensor, kind: str, start: int, count: int, part: int = 0) -> Tensor:
    """Probes number start … start + count − 1 of every sample, `(count, B, *shape)`."""
    check_state("x", x)
    make = draws.sign if kind == "rademacher" else draws.normal
    shape = tuple(x.shape)
    numbers = range(start, start + count)
    vectors = torch.stack([make(Purpose.PROBE, j, shape, x.dtype, x.device, part) for j in numbers])
    if kind != "spherical":
        return vectors
    flat = vectors.flatten(2)
    lengths = cast(Tensor, flat.norm(dim=2, keepdim=True))
    return (flat * (flat.shape[2] ** 0.5 / lengths)).reshape(vectors.shape)


def _given(owner: object, probes: Tensor | None) -> Tensor:
    if probes is None:
        raise ValueError(f"{type(owner).__name__} needs probes: pass those of `draw`")
    return probes


def _check_probes(owner: object, count: object, least: int, name: str = "probes") -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ValueError(f"{type(owner).__name__}: {name} must be an integer of {least} or more, got {count!r}")


def _check_kind(owner: object, kind: str) -> None:
    if kind not in _KINDS:
        raise ValueError(f"{type(owner).__name__}: kind is 'rademacher', 'gaussian' or 'spherical', got {kind!r}")
