"""The paper's predictors: one step of the reverse SDE, discretised as the forward process is.

The forward process in discrete steps is `x_hi = m x_lo + √β z` (VE: m = 1, β = σ_hi² − σ_lo²; VP: m² = 1 − β), given by
`process.discretize(hi, lo)`. Notation: s the score at (t_hi, x), λ the churn, c = ½(1 + λ²), z = W/√|h|.

Reference: Song et al. (2021), appendices E and F.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import Incompatible
from ..protocols import Calculus, Increment, Levy, Noise, Span, Step, match
from ..solvers.contract import ONE, Memoryless


def _unit(span: Span, dw: Increment) -> Tensor:
    """The standard normals of a step."""
    h = span.h
    return dw.W / (h.abs().sqrt() if isinstance(h, Tensor) else abs(h) ** 0.5)


def _discretize(sde: Any, span: Span, name: str) -> tuple[Tensor, Tensor]:
    process = getattr(sde, "process", None)
    if process is None or not hasattr(process, "discretize"):
        raise Incompatible(
            f"{name} steps the reversal of a process with `discretize`, such as VP(); use EulerMaruyama()."
        )
    return process.discretize(span.t0, span.t1)


@dataclass(frozen=True)
class ReverseDiffusion(Memoryless):
    """`mean = (2 − m) x + c β s`, `x' = mean + λ √β z`: the forward discretisation, reversed term by term.

    Weak order 1, strong order 1 (the noise is additive). Works on `reverse(…)` and `probability_flow(…)` of processes with
    `discretize` (VE, VP, sub-VP, …); a process with the default discretisation gives Euler–Maruyama.

    Reference: Song et al. (2021), equation 46 and Algorithms 2 and 3 (predictor lines).
    """

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = {Noise.NONE: ONE, Noise.ADDITIVE: ONE}

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        multiplier, spread = _discretize(sde, span, "ReverseDiffusion")
        weight = 0.5 * (1.0 + sde.churn**2)
        mean = match(2.0 - multiplier, x) * x + match(weight * spread.square(), x) * sde.score(span.t0, x)
        if dw is None:
            return Step(mean, mean=mean)
        return Step(mean + match(sde.churn * spread, x) * _unit(span, dw), mean=mean)


@dataclass(frozen=True)
class Ancestral(Memoryless):
    """Ancestral sampling: `mean = (x + c β s)/m`, `x' = mean + λ std z`, as trained by SMLD (VE) and DDPM (VP).

    std² is β σ_lo²/σ_hi² where s = 1 (VE), as in SMLD; β for VP, as in DDPM. `variance="small"` takes the posterior
    variance given clean data, β std_lo²/std_hi², for both, `"large"` β for both. On `probability_flow(…)` (λ = 0, c = ½)
    it has no noise, and a step of the same first order.

    Raises ValueError for another variance.

    Reference: Song et al. (2021), equations 4 and 47 and appendix F; Ho, Jain, Abbeel (2020), §3.2.
    """

    variance: str | None = None

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = {Noise.NONE: ONE, Noise.ADDITIVE: ONE}

    def __post_init__(self) -> None:
        if self.variance not in (None, "small", "large"):
            raise ValueError(
                f"Ancestral: variance is 'small', 'large' or None (as in the paper), got {self.variance!r}"
            )

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        multiplier, spread = _discretize(sde, span, "Ancestral")
        weight = 0.5 * (1.0 + sde.churn**2)
        mean = (x + match(weight * spread.square(), x) * sde.score(span.t0, x)) / match(multiplier, x)
        if dw is None:
            return Step(mean, mean=mean)
        small = self.variance == "small" or (self.variance is None and bool((multiplier == 1).all()))
        std = spread * sde.process.std(span.t1) / sde.process.std(span.t0) if small else spread
        return Step(mean + match(sde.churn * std, x) * _unit(span, dw), mean=mean)
