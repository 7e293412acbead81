"""Schemes of weak order 2 for Itô SDEs with any noise.

They are right in law to second order, for expectations of smooth functions; path by path they are no better than
Milstein's scheme. Products of increments that a path does not give exactly are replaced by variables with the same
moments: for columns r ≠ j of the diffusion

    ∫∫ dW_r dW_j  ≈  ½ (W_r W_j + V_rj),   V_rj = −V_jr = ±|h| s_r s_j,   s_j the sign of H_j

so that a step is a function of the path alone.

Notation: b^k column k of G; sums run over the Brownian motions. Element-wise noise of class ADDITIVE, DIAGONAL or
SCALAR is one column: its parts do not act on one another, and all are computed at once.

Reference: Kloeden, Platen (1992), §14.2 and §15.1; Debrabant, Rößler (2009), Appl. Numer. Math. 59.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import Incompatible
from ..protocols import (
    SDE,
    Calculus,
    Dense,
    Diffusion,
    Increment,
    Levy,
    Noise,
    Order,
    Span,
    Step,
    advance,
    match,
)
from .contract import Memoryless
from .runge_kutta import stage_time

MOST_COLUMNS = 1024
"""Brownian motions that may act on one another; every one costs four evaluations of G a step."""


class Columns:
    """The noise of one step, column by column: values are `(B, *shape)` for a single column, else `(B, *shape, m)`."""

    def __init__(self, sde: SDE, span: Span, x: Tensor, dw: Increment) -> None:
        assert dw.H is not None
        self.sde, self._shape, self.additive = sde, tuple(x.shape), sde.noise is Noise.ADDITIVE
        self.length = abs(span.h) if isinstance(span.h, float) else match(torch.abs(torch.as_tensor(span.h)), x)
        g = sde.diffusion(span.t0, x)
        self.single = not isinstance(g, Dense) and sde.noise in (Noise.ADDITIVE, Noise.DIAGONAL, Noise.SCALAR)
        self.b = self._tensor(g)
        self.w, self._sign = (self._flat(part) for part in (dw.W, torch.where(dw.H < 0, -1.0, 1.0).to(x.dtype)))
        self.root = self.wide(self.length**0.5)
        self.coupled = not self.single and not self.additive and self.w.shape[-1] > 1

    def wide(self, y: Any) -> Any:
        """A coefficient or a state, ready to meet columns."""
        return y if self.single or not isinstance(y, Tensor) or y.ndim == 0 else y.unsqueeze(-1)

    def total(self, y: Tensor) -> Tensor:
        """The sum over columns."""
        return y if self.single else y.sum(-1)

    def own(self, t: Tensor, base: Tensor, shift: Tensor) -> Tensor:
        """Every column k at `base + shift^k`."""
        if self.single or self.additive:
            return self._tensor(self.sde.diffusion(t, base if self.additive else base + shift))
        columns = range(self.w.shape[-1])
        return torch.stack([self._tensor(self.sde.diffusion(t, base + shift[..., k]))[..., k] for k in columns], dim=-1)

    def all(self, t: Tensor, base: Tensor, shift: Tensor) -> Tensor:
        """All columns j at each `base + shift^r`, `(B, *shape, r, j)`."""
        columns = range(self.w.shape[-1])
        return torch.stack([self._tensor(self.sde.diffusion(t, base + shift[..., r])) for r in columns], dim=-2)

    def square(self) -> Tensor:
        """`W_k² − |h|`."""
        return self.w.square() - self.wide(self.length)

    def products(self) -> Tensor:
        """`W_r W_j + V_rj`, zero on the diagonal, `(B, 1, …, 1, r, j)`."""
        w, s = self.w, self._sign
        signs = s.unsqueeze(-1) * s.unsqueeze(-2)
        side = torch.ones_like(signs[:1]).triu(1)
        length = self.wide(self.wide(self.length))
        product = w.unsqueeze(-1) * w.unsqueeze(-2) + length * signs * (side - side.mT)
        return product * (side + side.mT)

    def _tensor(self, g: Diffusion) -> Tensor:
        shape = self._shape
        if isinstance(g, Dense):
            return g.matrix.expand(*shape, g.matrix.shape[-1])
        g = g.expand(shape)
        if self.single:
            return g
        if self.sde.noise is Noise.SCALAR:
            return g.unsqueeze(-1)
        return torch.diag_embed(g.flatten(1)).reshape(*shape, g[0].numel())

    def _flat(self, part: Tensor) -> Tensor:
        """Increments ready to multiply values."""
        if self.single:
            return part
        count = self.b.shape[-1]
        if count > MOST_COLUMNS:
            raise Incompatible(
                f"{count} Brownian motions that act on one another would cost {4 * count} evaluations of the diffusion "
                "a step. If component i of it depends on x_i only, declare Noise.DIAGONAL; else use EulerMaruyama()."
            )
        return part.reshape(len(part), *(1,) * (len(self._shape) - 1), count)


_STRONG_1 = Order(1.0, 2.0)
_ANY_NOISE = {
    Noise.ADDITIVE: _STRONG_1,
    Noise.DIAGONAL: _STRONG_1,
    Noise.SCALAR: _STRONG_1,
    Noise.COMMUTATIVE: _STRONG_1,
    Noise.GENERAL: Order(0.5, 2.0),
}


@dataclass(frozen=True)
class PlatenWeak2(Memoryless):
    """Platen's explicit scheme of weak order 2, without derivatives.

        x' = x + ½ (f + f(t1, x + f h + G W)) h
               + ¼ Σ_j (b^j(R₊) + b^j(R₋) + 2 b^j) W_j + ¼ Σ_j (b^j(R₊) − b^j(R₋)) (W_j² − |h|)/√|h|
               + ¼ Σ_{r≠j} (b^j(U₊) + b^j(U₋) − 2 b^j) W_j + ¼ Σ_{r≠j} (b^j(U₊) − b^j(U₋)) (W_r W_j + V_rj)/√|h|

    with `R± = x + f h ± b^j √|h|` at t1 and `U± = x ± b^r √|h|` at t0. Two drift evaluations; of G three for
    single-column noise, two for additive, `1 + 4m` for m columns.

    Raises Incompatible for element-wise noise of class GENERAL with more than 1024 components.

    Reference: Kloeden, Platen (1992), equation 15.1.3.
    """

    calculus = Calculus.ITO
    levy = Levy.H
    error_order = None
    orders = {Noise.NONE: Order(2.0, 2.0)} | _ANY_NOISE

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        f = sde.drift(span.t0, x)
        mean = advance(x, f, span.h)
        if dw is None:
            return Step(advance(x, f + sde.drift(span.t1, mean), span.h * 0.5))
        g = Columns(sde, span, x, dw)
        end = sde.drift(span.t1, mean + g.total(g.b * g.w))
        shift = g.b * g.root
        plus = g.own(span.t1, mean, shift)
        minus = plus if g.additive else g.own(span.t1, mean, -shift)
        noise = g.total((plus + minus + 2 * g.b) * g.w)
        if not g.additive:
            noise = noise + g.total((plus - minus) * (g.square() / g.root))
        if g.coupled:
            noise = noise + self._cross(g, span, x, shift)
        return Step(advance(x, f + end, span.h * 0.5) + 0.25 * noise)

    def _cross(self, g: Columns, span: Span, x: Tensor, shift: Tensor) -> Tensor:
        plus, minus = g.all(span.t0, x, shift), g.all(span.t0, x, -shift)
        bend = plus + minus - 2 * g.b.unsqueeze(-2)
        # a column's own bend is in R already
        bend = bend.sum(-2) - torch.diagonal(bend, dim1=-2, dim2=-1)
        return (bend * g.w).sum(-1) + ((plus - minus) * (g.products() / g.wide(g.root))).sum((-2, -1))


_C1 = 342 / 491
_B1 = 3 * math.sqrt(38 / 491)
_B2 = (214 / 513 * math.sqrt(1105 / 991), 491 / 513 * math.sqrt(221 / 4955))


@dataclass(frozen=True)
class DRI1(Memoryless):
    """The Runge–Kutta scheme DRI1: weak order 2, order 3 where noise vanishes, with small error constants.

    The drift has three stages, every column two by itself (at `x + (342/491) f h ± 3√(38/491) b^k √|h|`) and two more
    where the others move it. Three drift evaluations; of G three for single-column noise, two for additive, `1 + 4m`
    for m columns.

    Raises Incompatible for element-wise noise of class GENERAL with more than 1024 components.

    Reference: Debrabant, Rößler (2009), Appl. Numer. Math. 59, table 2; the scheme's class is that of Rößler (2009),
    SIAM J. Numer. Anal. 47(3).
    """

    calculus = Calculus.ITO
    levy = Levy.H
    error_order = None
    orders = {Noise.NONE: Order(3.0, 3.0)} | _ANY_NOISE

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        h = span.h
        first = sde.drift(span.t0, x)
        g = None if dw is None else Columns(sde, span, x, dw)
        push = 0.0 if g is None else g.total(g.b * g.w)
        second = sde.drift(stage_time(span, 0.5), advance(x, first, h * 0.5) + 0.1 * (6 - math.sqrt(6)) * push)
        third = sde.drift(span.t1, advance(x, 2 * second - first, h) + 0.2 * (3 + 2 * math.sqrt(6)) * push)
        new = advance(x, first + 4 * second + third, h * (1 / 6))
        return Step(new if g is None else new + self._noise(g, span, x, advance(x, first, h * _C1)))

    def _noise(self, g: Columns, span: Span, x: Tensor, base: Tensor) -> Tensor:
        t, shift = stage_time(span, _C1), g.b * (_B1 * g.root)
        plus = g.own(t, base, shift)
        minus = plus if g.additive else g.own(t, base, -shift)
        noise = (193 / 684 * g.b + 491 / 1368 * (plus + minus)) * g.w
        if not g.additive:
            noise = noise + (math.sqrt(491 / 38) / 12) * (plus - minus) * (g.square() / g.root)
        if g.coupled:
            noise = noise + self._cross(g, span, x, plus + minus)
        return g.total(noise)

    def _cross(self, g: Columns, span: Span, x: Tensor, moved: Tensor) -> Tensor:
        along = -(_B2[0] * g.b + _B2[1] * moved)
        # 2 Î_kl/√|h| is (W_k W_l + V_kl)/√|h|
        shift = 0.5 * (along.unsqueeze(-1) * (g.products() / g.wide(g.root))).sum(-2)
        plus, minus = g.own(span.t0, x, shift), g.own(span.t0, x, -shift)
        bend = 4955 / 14144 * (plus + minus - 2 * g.b) * g.w
        return bend - (math.sqrt(4955 / 221) / 8) * (plus - minus) * g.root
