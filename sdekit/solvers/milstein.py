"""Milstein schemes: strong order 1 where the columns of G commute, and for any noise where the Lévy area is known.

    x' = x + f h + G W + Σ_jk DG_k[G_j] I_jk,     I_jk = ∫∫ dW_j dW_k,     DG_k[v] the derivative of column k along v

    Itô            I_jk = ½ (W_j W_k − δ_jk |h|) + A_jk
    Stratonovich   I_jk = ½ W_j W_k + A_jk

Where columns commute, DG_k[G_j] = DG_j[G_k], the area A drops out. Derivatives are taken along single directions, one
product each, and no Jacobian is built:

    element-wise G     ½ (W² − |h|) Dg[g]                one derivative (diagonal noise, or one Brownian motion)
    Stratonovich       ½ D(G W)[G W]                     one derivative, for any number m of commuting columns
    else               Σ_j D(G I_j)[G_j]                 m derivatives, I_j the row j of I

Reference: Kloeden, Platen (1992), equations (10.3.3) and (10.3.8).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    Span,
    Step,
    advance,
    apply,
    diffuse,
)
from .contract import COMMUTING, ONE, Memoryless


def length_like(h: float | Tensor, w: Tensor) -> float | Tensor:
    """|h| ready to be combined with a noise-shaped w: a float, 0-d, or `(B, 1, …, 1)` of w's rank and dtype."""
    if isinstance(h, Tensor) and h.ndim > 0:
        return h.abs().to(w.dtype).reshape(-1, *(1,) * (w.ndim - 1))
    return abs(h)


@functools.cache
def _load_forward_mode() -> None:
    """Make torch load its forward-mode rules; some releases warn while they do, of something no caller can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.neg, (torch.ones(()),), (torch.ones(()),))


def along(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor, reach: float | Tensor | None) -> Tensor:
    """The derivative of a function at x along v: by forward mode, or by a central difference over v times `reach`."""
    if reach is None:
        if not torch.compiler.is_compiling():
            _load_forward_mode()
        return torch.func.jvp(function, (x,), (v,))[1]
    shift = v * reach
    return (function(x + shift) - function(x - shift)) / (2 * reach)


def across(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """The derivative of an element-wise function at x, times v, by reverse mode.

    Where component i depends on x_i only, the derivative is its own transpose, and reverse mode gives the same product as
    `along` at a tenth of the cost of a small step. The product itself is not differentiable.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        value = function(leaf).expand_as(leaf)
        if not value.requires_grad:
            return torch.zeros_like(x)
        return torch.autograd.grad(value, leaf, v, materialize_grads=True)[0]


@dataclass(frozen=True)
class _Milstein(Memoryless):
    """The step shared by all Milstein schemes.

    derivative_free: take derivatives by central differences over O(√|h|), two evaluations of G each, for a diffusion
    that forward-mode differentiation cannot follow. The order is the same.
    """

    derivative_free: bool = False

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = COMMUTING

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        mean = advance(x, sde.drift(span.t0, x), span.h)
        if dw is None:
            return Step(mean, mean=mean)
        g = sde.diffusion(span.t0, x)
        new = diffuse(mean, g, dw.W)
        return Step(
            new if sde.noise is Noise.ADDITIVE else new + self._correction(sde, span, x, g, dw, new.requires_grad),
            mean=mean,
        )

    def _correction(self, sde: SDE, span: Span, x: Tensor, g: Diffusion, dw: Increment, differentiable: bool) -> Tensor:
        """`Σ_jk DG_k[G_j] I_jk`; differentiable where anything in the step so far is."""
        w, ito = dw.W, self.calculus is Calculus.ITO
        size = length_like(span.h, w)
        if not isinstance(g, Dense) and sde.noise is not Noise.GENERAL:
            own, g = partial(_own, sde, span.t0), g.expand_as(x)
            # a tracer takes forward mode as it is
            free = not (differentiable or torch.compiler.is_compiling() or torch.is_inference_mode_enabled())
            if sde.noise is Noise.DIAGONAL and free and not self.derivative_free:
                slope = across(own, x, g)
            else:
                slope = along(own, x, g, self._reach(span.h))
            return 0.5 * slope * (w * w - size if ito else w * w)
        if not ito and dw.A is None:
            # W is O(√|h|) already, so that the difference needs no further scale
            reach = 1.0 if self.derivative_free else None
            return 0.5 * along(lambda y: apply(sde.diffusion(span.t0, y), w), x, apply(g, w), reach)
        iterated = 0.5 * w.unsqueeze(-1) * w.unsqueeze(-2)
        if ito:
            iterated = iterated - 0.5 * torch.diag_embed((w * 0 + 1) * size)
        return self._iterated(sde, span, x, g, iterated if dw.A is None else iterated + dw.A)

    def _iterated(self, sde: SDE, span: Span, x: Tensor, g: Diffusion, iterated: Tensor) -> Tensor:
        """`Σ_j D(G I_j)[G_j]` for iterated integrals I `(B, m, m)`."""
        columns = (g.matrix if isinstance(g, Dense) else torch.diag_embed(g.expand_as(x))).unbind(-1)
        reach = self._reach(span.h)
        total = torch.zeros_like(x)
        for column, row in zip(columns, iterated.unbind(-2), strict=True):
            total = total + along(lambda y, w=row: apply(sde.diffusion(span.t0, y), w), x, column.expand_as(x), reach)
        return total

    def _reach(self, h: float | Tensor) -> float | Tensor | None:
        """√|h| where derivatives are differences, for a direction that is O(1)."""
        if not self.derivative_free:
            return None
        return h.abs().clamp(min=torch.finfo(h.dtype).tiny).sqrt() if isinstance(h, Tensor) else abs(h) ** 0.5 or 1.0


def _own(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    """The element-wise diffusion."""
    g = sde.diffusion(t, x)
    if isinstance(g, Dense):
        raise Incompatible("diffusion returned a tensor at one state and Dense(matrix) at another; return one of them")
    return g


class ItoMilstein(_Milstein):
    """Milstein's scheme for Itô SDEs with commuting noise: strong order 1.

    `x' = x + f h + G W + ½ Σ_jk DG_k[G_j] (W_j W_k − δ_jk |h|)`; for diagonal noise `½ g g′ (W² − |h|)`.

    One drift and one diffusion evaluation, and one derivative of G along a direction (m of them for `Dense` noise with
    m columns). It trusts that a declared COMMUTATIVE noise commutes. Noise that does not: `ItoGeneralMilstein`.

    Reference: Milstein (1974), Theory Probab. Appl. 19(3); Kloeden, Platen (1992), equations (10.3.1) and (10.3.12).
    """

    calculus = Calculus.ITO


class StratonovichMilstein(_Milstein):
    """Milstein's scheme for Stratonovich SDEs with commuting noise: strong order 1.

    `x' = x + f h + G W + ½ D(G W)[G W]`; one drift, one diffusion evaluation, one derivative along G W.

    Reference: Kloeden, Platen (1992), equations (10.3.5) and (10.3.19).
    """

    calculus = Calculus.STRATONOVICH


_ANY = COMMUTING | {Noise.GENERAL: ONE}


class ItoGeneralMilstein(_Milstein):
    """Milstein's scheme with Lévy area: strong order 1 for Itô SDEs with any noise, commuting or not.

    `x' = x + f h + G W + Σ_jk DG_k[G_j] (½ W_j W_k − ½ δ_jk |h| + A_jk)`.

    One drift and one diffusion evaluation and m derivatives of G along directions. The area is that of the path, so the
    scheme converges along one path under refinement. The noise must be `(B, m)`: `Dense`, or element-wise on `(B, D)`.

    Reference: Kloeden, Platen (1992), equation (10.3.3).
    """

    calculus = Calculus.ITO
    levy = Levy.AREA
    orders = _ANY


class StratonovichGeneralMilstein(_Milstein):
    """Milstein's scheme with Lévy area for Stratonovich SDEs with any noise: strong order 1.

    `x' = x + f h + G W + Σ_jk DG_k[G_j] (½ W_j W_k + A_jk)`; costs and shapes as for `ItoGeneralMilstein`.

    Reference: Kloeden, Platen (1992), equation (10.3.8).
    """

    calculus = Calculus.STRATONOVICH
    levy = Levy.AREA
    orders = _ANY
