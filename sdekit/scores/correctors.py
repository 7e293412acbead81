"""Correctors: steps of Langevin dynamics at a fixed time, which move x towards p_t by the score alone.

    x ← x + ε s(t, x) + √(2ε) z

The step size ε sets the balance: too small corrects nothing, too large adds a bias (the chain is not Metropolis-adjusted,
so its stationary law differs from p_t by O(ε)). Notation: α = m² of the forward step where the process shrinks x (VP), else
1; r the signal-to-noise ratio `snr`; D the dimension; norms are per sample.

Reference: Song et al. (2021), appendix G, Algorithms 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_numbers
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
    """Langevin corrector of signal-to-noise ratio r: `ε = 2α r² min(std(t)², κ D/‖s‖²)`, sample by sample.

    snr: r > 0; 0.16 is the paper's value for CIFAR-10.  steps: corrections at each time.
    compat: "song2021" for the step of the published results, `ε = 2α (r mean‖z‖ / mean‖s‖)²` with norms averaged over the
    batch, so that samples depend on their batch.

    The paper's ratio ‖z‖/‖s‖, taken per sample, fails in few dimensions: ε then depends on the z that it multiplies, which
    inflates the noise by (D + 2)/D, and on x, which Langevin dynamics allows only with a drift ∇ε. So ε is the square of
    r std(t), which ‖z‖/‖s‖ comes to where data are thin against the noise, as images are, and the sample's own norm speaks
    only where it lies outside the fluctuation of χ²_D: κ = 1 + 4 √(2/D).
    corrected: the noise variance is 2ε − ε²‖s‖²/D in place of 2ε. Unadjusted Langevin steps inflate the variance by a factor
    of up to 1 + r² (2.6 % at r = 0.16); with this a Gaussian keeps its variance exactly, since E‖s‖²/D is the inverse
    variance there. False, or compat, leaves the plain 2ε.
    """

    snr: float = 0.16
    steps: int = 1
    corrected: bool = True
    compat: str | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "snr", above=0.0)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"Langevin: steps must be 1 or more, got {self.steps!r}; leave the corrector out for none")
        if self.compat not in (None, "song2021"):
            raise ValueError(f"Langevin: compat is None or 'song2021', got {self.compat!r}")

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        """x after `steps` corrections at time t."""
        alpha = _alpha(sde, span, x)
        for part in range(self.steps):
            score = sde.score(t, x)
            z = span.normal(Purpose.CORRECTOR, x, part)
            size = alpha * (2.0 * self.snr**2) * self._length(sde, t, z, score)
            variance = 2.0 * size
            if self.corrected and self.compat is None:
                variance = (variance - size.square() * _norm(score).square() / score[0].numel()).clamp_min(0.0)
            x = x + size * score + variance.sqrt() * z
        return x

    def _length(self, sde: Any, t: Tensor, z: Tensor, score: Tensor) -> Tensor:
        """The squared length that r is a fraction of, `(B, 1, …, 1)` or 0-d."""
        if self.compat is not None:
            return (_norm(z).mean() / _norm(score).mean()) ** 2
        size = score[0].numel()
        length = size / _norm(score).square().clamp_min(torch.finfo(score.dtype).tiny)
        std = getattr(sde.process, "std", None)
        if std is None:  # not an affine process: the score alone tells the width of p_t
            return length
        slack = 1.0 + 4.0 * (2.0 / size) ** 0.5
        return torch.minimum(slack * length, torch.as_tensor(match(std(t) ** 2, score)).to(score))


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
