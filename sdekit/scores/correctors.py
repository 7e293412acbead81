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
from ..protocols import Noise, Score, Span, as_time, match, sample_norm
from ..random import Purpose
from ..sdes.functions import ItoSDE


def _alpha(sde: Any, span: Span, x: Tensor, compat: str | None) -> Tensor | float:
    """`m²` of the process' forward step into t0, 1 where it has none: e^(−β h), which stays positive for any step, or
    the discrete step's own 1 − β_k.
    """
    process = getattr(sde, "process", None)
    if process is None or not hasattr(process, "discretize") or not hasattr(process, "beta"):
        return 1.0
    if compat is None:
        return match(torch.exp(-process.beta(span.t0) * abs(span.h)), x)
    return match(process.discretize(span.t0, span.t1)[0].square(), x)


def _check(owner: Any) -> None:
    check_numbers(owner, "snr", above=0.0)
    if isinstance(owner.steps, bool) or not isinstance(owner.steps, int) or owner.steps < 1:
        name = type(owner).__name__
        raise ValueError(f"{name}: steps must be 1 or more, got {owner.steps!r}; leave the corrector out for none")
    if owner.compat not in (None, "song2021"):
        raise ValueError(f"{type(owner).__name__}: compat is None or 'song2021', got {owner.compat!r}")


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

    Raises ValueError unless snr > 0 and steps ≥ 1, and for another `compat`.
    """

    snr: float = 0.16
    steps: int = 1
    corrected: bool = True
    compat: str | None = None

    def __post_init__(self) -> None:
        _check(self)

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        """x after `steps` corrections at time t."""
        alpha = _alpha(sde, span, x, self.compat)
        for part in range(self.steps):
            score = sde.score(t, x)
            z = span.normal(Purpose.CORRECTOR, x, part)
            size = alpha * (2.0 * self.snr**2) * self._length(sde, t, z, score)
            variance = 2.0 * size
            if self.corrected and self.compat is None:
                variance = (variance - size.square() * sample_norm(score).square() / score[0].numel()).clamp_min(0.0)
            x = x + size * score + variance.sqrt() * z
        return x

    def _length(self, sde: Any, t: Tensor, z: Tensor, score: Tensor) -> Tensor:
        """The squared length that r is a fraction of, `(B, 1, …, 1)` or 0-d."""
        if self.compat is not None:
            return (sample_norm(z).mean() / sample_norm(score).mean()) ** 2
        size = score[0].numel()
        length = size / sample_norm(score).square().clamp_min(torch.finfo(score.dtype).tiny)
        std = getattr(sde.process, "std", None)
        if std is None:  # not an affine process: the score alone tells the width of p_t
            return length
        slack = 1.0 + 4.0 * (2.0 / size) ** 0.5
        # the product takes a number of the CPU to the device of the score without making that wait
        return torch.minimum(slack * length, torch.ones_like(length) * match(std(t) ** 2, score))


@dataclass(frozen=True)
class AnnealedLangevin:
    """Annealed Langevin dynamics: ε = 2α (r std(t))², fixed by the noise level alone.

    Alone, as `PredictorCorrector(None, AnnealedLangevin(snr, steps=100))` on the levels of `SMLD`, it is the sampler of
    Song and Ermon (2019), whose step α_i = ε σ_i²/σ_L² is this one with ε = 4 r² σ_L².

    snr: r > 0.  steps: corrections at each time.  compat: "song2021" for α = 1 − β_k.

    Raises ValueError unless snr > 0 and steps ≥ 1, and for another `compat`.

    Reference: Song, Ermon (2019), Algorithm 1; Song et al. (2021), Algorithm 4 with the step size of SMLD.
    """

    snr: float = 0.16
    steps: int = 1
    compat: str | None = None

    def __post_init__(self) -> None:
        _check(self)

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        size = 2.0 * _alpha(sde, span, x, self.compat) * match((self.snr * sde.process.std(t)) ** 2, x)
        for part in range(self.steps):
            z = span.normal(Purpose.CORRECTOR, x, part)
            x = x + size * sde.score(t, x) + (2.0 * size) ** 0.5 * z
        return x


def langevin_dynamics(score: Score, t: float | Tensor) -> ItoSDE:
    """`dx = ∇log p_t(x) dτ + √2 dW` at one fixed time t of the process: naive Langevin dynamics, for any SDE solver.

    Its law tends to p_t, slowly where modes lie apart, which is what annealing is for. The time of the returned SDE is
    τ, and has nothing to do with t.

    Raises TypeError if the score is not callable.

    Reference: Song, Ermon (2019), arXiv 1907.05600, equation 4.
    """
    if not callable(score):
        raise TypeError(f"score: expected a function (t, x) -> tensor shaped like x, got {score!r}")
    time = as_time(t)

    def drift(_: Tensor, x: Tensor) -> Tensor:
        return score(time.to(x.device), x)

    def diffusion(_: Tensor, x: Tensor) -> Tensor:
        return torch.full((), 2.0**0.5, dtype=x.dtype, device=x.device)

    return ItoSDE(drift, diffusion, Noise.ADDITIVE)
