"""Cutting a step into pieces for the Lévy area A of `Dense` noise.

The area over a step is joined from pieces by Chen's relation, each piece giving E[A | W, H] (module `levy`). With n
equal pieces the error of A is h²/(12 n) in mean square. It is an error of the approximation, not of consistency: the
pieces belong to the path, so that A over a step converges to the area of that very path. Taking n = ⌈rate/|h|⌉ makes
the error O(h³), which strong order 1 needs.

Reference: Foster, Lyons, Oberhauser (2020), SIAM J. Numer. Anal. 58(3), §5; Kloeden, Platen (1992), §10.3 (the order).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_PIECES = 1024
"""Pieces a step is cut into at most, so that a very short step does not exhaust the memory."""


def piece_lengths(h: float | Tensor, rate: float, like: Tensor) -> Tensor:
    """Lengths of the ⌈rate/|h|⌉ pieces of a step, `(n,)`; `(n, B, 1)` padded with zeros where h is per sample."""
    if not isinstance(h, Tensor) or h.ndim == 0:
        size = abs(float(h))
        n = min(MOST_PIECES, math.ceil(rate / size)) if size * MOST_PIECES > rate else 1 if size == 0 else MOST_PIECES
        return torch.full((n,), size / n, dtype=torch.float64, device=like.device)
    size = h.abs().to(torch.float64).reshape(1, -1, 1)
    n = torch.where(size > 0, torch.ceil(rate / size.clamp(min=rate / MOST_PIECES)), 1.0)
    number = torch.arange(int(n.max()), device=h.device).reshape(-1, 1, 1)
    return torch.where(number < n, size / n, 0.0)
