"""Brownian paths for samples that have spans of time of their own.

W(t) = √L w((t − a)/L) for a sample that travels over [a, a + L], with w a path on [0, 1]: a sample's path then depends on
its own span, and not on the spans of the batch around it, as the domain of one common tree would.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..protocols import BrownianMotion, Increment, Levy, Span, broadcast, expand


class StretchedPath:
    """A path on [0, 1] stretched to a span for every sample.

    path: the path on [0, 1].  t0, t1: ends of the spans `(B,)`, in any order.
    """

    def __init__(self, path: BrownianMotion, t0: Tensor, t1: Tensor) -> None:
        start, end = broadcast(t0.detach(), t1.detach())
        self._path, self._low = path, torch.minimum(start, end)
        self._length = (end - start).abs()

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span, shaped like the noise `like`, along the direction of travel."""
        t0, t1 = (self._fraction(t) for t in (span.t0, span.t1))
        i = self._path.increment(Span(t0, t1, t1 - t0, span.index), like, levy)
        root = expand(self._length.sqrt(), like).to(like.dtype)
        area = None if i.A is None else i.A * expand(self._length, i.A).to(like.dtype)
        return i._replace(A=None).map(lambda part: part * root)._replace(A=area)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`."""
        return self.increment(Span(span.t0, inner.t1, inner.h, span.index), like, levy)

    def _fraction(self, t: Tensor) -> Tensor:
        length = torch.where(self._length == 0, 1.0, self._length)
        return ((t.detach().reshape(-1) - self._low) / length).clamp(0.0, 1.0)
