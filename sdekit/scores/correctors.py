"""Correctors: steps of Langevin dynamics at a fixed time, which move x towards p_t by the score alone.

    x ← x + ε s(t, x) + √(2ε) z

The step size ε sets the balance: too small corrects nothing, too large adds a bias (the chain is not Metropolis-adjusted,
so its stationary law differs from p_t by O(ε)). Notation: α = m² of the forward step where the process shrinks x (VP), else
1; r the signal-to-noise ratio `snr`; norms are per sample.

Reference: Song et al. (2021), appendix G, Algorithms 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import Span, expand, match
from ..random import Purpose


def _norm(v: Tensor) -> Tensor:
    """Euclidean norm of every sample, `(B, 1, …, 1)`."""
    return expand(v.flatten(1).norm(dim=1), v)


def _alpha(sde: Any, span: Span, x: Tensor) -> Tensor | float:
    """`m²` of the process' forward step into t0, 1 where it has none."""
    process = getattr(sde, "process", None)
    if process is None or not hasattr(process, "discretize") or not hasattr(process, "beta"):
        return 1.0
    return match(1.0 - process.beta(span.t0) * abs(span.h), x)


@dataclass(frozen=True)
class Langevin:
    """Langevin corrector with ε = 2α (r ‖z‖/‖s‖)², chosen so that the step's signal-to-noise ratio is r.

    snr: r > 0; 0.16 is the paper's value for CIFAR-10.  steps: corrections at each time.
    norm: "sample" (each sample by itself) or "batch" (norms averaged over the batch, as the published results were made;
    samples then depend on their batch).
    A zero score leaves the sample where it is.
    """

    snr: float = 0.16
    steps: int = 1
    norm: str = "sample"

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"Langevin: snr must be positive, got {self.snr!r}")
        if self.steps < 1:
            raise ValueError(f"Langevin: steps must be 1 or more, got {self.steps!r}; leave the corrector out for none")
        if self.norm not in ("sample", "batch"):
            raise ValueError(f"Langevin: norm is 'sample' or 'batch', got {self.norm!r}")

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        alpha = _alpha(sde, span, x)
        for part in range(self.steps):
            score = sde.score(t, x)
            z = span.normal(Purpose.CORRECTOR, x, part)
            noise, signal = _norm(z), _norm(score)
            if self.norm == "batch":
                noise, signal = noise.mean(), signal.mean()
            ratio = torch.where(signal > 0, noise / signal.clamp_min(torch.finfo(x.dtype).tiny), torch.zeros_like(signal))
            size = 2.0 * alpha * (self.snr * ratio) ** 2
            x = x + size * score + (2.0 * size).sqrt() * z
        return x


@dataclass(frozen=True)
class AnnealedLangevin:
    """Annealed Langevin dynamics: ε = 2α (r std(t))², fixed by the noise level alone.

    Reference: Song, Ermon (2019), Algorithm 1; Song et al. (2021), Algorithm 4 with the step size of SMLD.
    """

    snr: float = 0.16
    steps: int = 1

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"AnnealedLangevin: snr must be positive, got {self.snr!r}")
        if self.steps < 1:
            raise ValueError(f"AnnealedLangevin: steps must be 1 or more, got {self.steps!r}")

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        size = 2.0 * _alpha(sde, span, x) * match((self.snr * sde.process.std(t)) ** 2, x)
        for part in range(self.steps):
            z = span.normal(Purpose.CORRECTOR, x, part)
            x = x + size * sde.score(t, x) + (2.0 * size) ** 0.5 * z
        return x
