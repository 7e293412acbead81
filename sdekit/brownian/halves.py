"""A path that gives the increments over both halves of a step along with that of the whole.

With parts of equal length, Chen's relation (module `levy`) reads

    W = W₁ + W₂     H = ½(H₁ + H₂) + ¼(W₁ − W₂)     K = ¼(K₁ + K₂) + ⅛(H₁ − H₂)     A = A₁ + A₂ + ½(W₁ ⊗ W₂ − W₂ ⊗ W₁)

so that the second half follows from the whole and the first, and any path will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..protocols import BrownianMotion, Increment, Levy, Span


def second_half(whole: Increment, first: Increment) -> Increment:
    """The increment over the second half of an interval."""
    w1, w2 = first.W, whole.W - first.W
    h2 = k2 = a2 = None
    if whole.H is not None and first.H is not None:
        h2 = 2 * whole.H - first.H + 0.5 * (w2 - w1)
        if whole.K is not None and first.K is not None:
            k2 = 4 * whole.K - first.K + 0.5 * (h2 - first.H)
    if whole.A is not None and first.A is not None:
        product = w1.unsqueeze(-1) * w2.unsqueeze(-2)
        a2 = whole.A - first.A - 0.5 * (product - product.transpose(-1, -2))
    return Increment(w2, h2, k2, a2)


@dataclass(frozen=True)
class HalvedPath:
    """The given path, with `halves` in every increment."""

    path: BrownianMotion

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span and over its halves."""
        whole = self.path.increment(span, like, levy)
        return self._halved(span, span, whole, whole, like, levy)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`, and over its halves."""
        return self._halved(span, inner, self.path.part(span, inner, whole, like, levy), whole, like, levy)

    def _halved(
        self, span: Span, inner: Span, over: Increment, whole: Increment, like: Tensor, levy: Levy
    ) -> Increment:
        """`over`, the increment over the inner span, with its halves."""
        half = inner._replace(t1=torch.lerp(inner.t0, inner.t1, 0.5), h=0.5 * inner.h)
        first = self.path.part(span, half, whole, like, levy)
        return over._replace(halves=(first, second_half(over, first)))
