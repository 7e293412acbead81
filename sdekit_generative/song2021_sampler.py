"""Predictor–corrector sampling exactly as Song et al.'s code does it, to compare samples number by number.

Notation: N steps, at t_i = 1 + (t_end − 1) i/(N − 1); k = ⌊t (N − 1)⌋; tables β_k evenly spaced from β_min/N to β_max/N,
σ_k = σ_min (σ_max/σ_min)^(k/(N − 1)) with σ_₋₁ = 0; f, g the process's drift and diffusion; s the score at t; c = 1, or ½
for the probability flow, which adds no noise.

    reverse_diffusion  VE       m = x + c (σ_k² − σ_ₖ₋₁²) s             noise √(σ_k² − σ_ₖ₋₁²)
                       VP       m = (2 − √(1 − β_k)) x + c β_k s        noise √β_k
                       sub-VP   as euler_maruyama
    euler_maruyama              m = x − f/N + c g² s/N                  noise g/√N
    ancestral          VE       m = x + (σ_k² − σ_ₖ₋₁²) s               noise σ_ₖ₋₁ √(σ_k² − σ_ₖ₋₁²)/σ_k
                       VP       m = (x + β_k s)/√(1 − β_k)              noise √β_k
    langevin                    ε = 2α (r mean‖z‖/mean‖s‖)², means over the batch;  α = 1 − β_k, or 1 for VE
    ald                         ε = 2α (r std(t))²

Each step corrects at t_i and then predicts from there; the last m is the sample. Better samplers are in `samplers`.

Reference: Song et al. (2021), appendices E, F and G, and the code published with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import Incompatible
from sdekit.protocols import Calculus, Corrector, Increment, Levy, Noise, Order, Solver, Span, Step, match
from sdekit.random import Purpose
from sdekit.scores.predictor_corrector import PredictorCorrector
from sdekit.scores.reverse import probability_flow, reverse
from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.sdes.process import DiffusionProcess
from sdekit.steps import TimeGrid

from .model import ScoreModel
from .samplers import Route
from .song2021 import published, step_number

_PREDICTORS = ("reverse_diffusion", "euler_maruyama", "ancestral", "none")
_CORRECTORS = ("langevin", "ald", "none")


@dataclass(frozen=True)
class Tables:
    """The tables of N discrete steps of a process, read at times."""

    steps: int

    def k(self, t: Tensor) -> Tensor:
        """The number of the step at t, float64."""
        return step_number(t, self.steps)

    def beta(self, process: VP | SubVP, t: Tensor) -> Tensor:
        """β_k."""
        share = self.k(t) / (self.steps - 1)
        return (process.beta_min + share * (process.beta_max - process.beta_min)) / self.steps

    def sigmas(self, process: VE, t: Tensor) -> tuple[Tensor, Tensor]:
        """(σ_k, σ_{k−1}), the second 0 for k = 0."""
        k = self.k(t)
        high, low = (process.sigma(j / (self.steps - 1)) for j in (k, k - 1))
        return high, torch.where(k > 0, low, torch.zeros_like(low))

    def alpha(self, process: DiffusionProcess, t: Tensor) -> Tensor | float:
        """The corrector's α."""
        return 1.0 - self.beta(process, t) if isinstance(process, (VP, SubVP)) else 1.0


@dataclass(frozen=True)
class Predictor:
    """One predictor step; see the head of this module."""

    kind: str
    tables: Tables
    denoise: bool

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = {Noise.NONE: Order(1.0, 1.0), Noise.ADDITIVE: Order(1.0, 1.0)}

    def init(self, sde: Any, t: Tensor, x: Tensor) -> None:
        """Nothing is kept from step to step. Raises Incompatible where the process has no such step."""
        if not isinstance(sde.process, (VE, VP, SubVP)):
            raise Incompatible(f"Song2021PC samples VE, VP and SubVP; take PC() for {type(sde.process).__name__}")
        if self.kind == "ancestral" and (isinstance(sde.process, SubVP) or sde.churn == 0.0):
            raise Incompatible("ancestral steps are of the reverse SDE of VE and VP; take 'reverse_diffusion'")

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        multiplier, weight, spread = self._coefficients(sde.process, span.t0, 1.0 if sde.churn else 0.5)
        mean = match(multiplier, x) * x + match(weight, x) * sde.score(span.t0, x)
        if dw is None:
            return Step(mean, mean=mean)
        h = span.h
        z = dw.W / (h.abs().sqrt() if isinstance(h, Tensor) else abs(h) ** 0.5)
        noisy = mean + match(spread, x) * z
        return Step(noisy, mean=mean if self.denoise else noisy)

    def _coefficients(self, process: Any, t: Tensor, c: float) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, noise) of the step `m = a x + b s`."""
        one = torch.ones_like(t)
        if self.kind == "euler_maruyama" or (isinstance(process, SubVP) and self.kind != "none"):
            rate, variance = process.drift(t, one), published(process, t)[2].to(one).square()
            return (
                1.0 - rate / self.tables.steps,
                c * variance / self.tables.steps,
                (variance / self.tables.steps).sqrt(),
            )
        if self.kind == "none":
            return one, 0.0 * one, 0.0 * one
        if isinstance(process, VE):
            high, low = self.tables.sigmas(process, t)
            variance = (high - low) * (high + low)
            return one, c * variance, variance.sqrt() * (low / high if self.kind == "ancestral" else 1.0)
        beta = self.tables.beta(process, t)
        kept = (1.0 - beta).sqrt()
        if self.kind == "ancestral":
            return 1.0 / kept, beta / kept, beta.sqrt()
        return 2.0 - kept, c * beta, beta.sqrt()


@dataclass(frozen=True)
class BatchLangevin:
    """Langevin steps of that code, whose size is one for the whole batch."""

    snr: float
    steps: int
    annealed: bool
    tables: Tables

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        """x after `steps` corrections at time t."""
        alpha = self.tables.alpha(sde.process, t)
        for part in range(self.steps):
            score = sde.score(t, x)
            z = span.normal(Purpose.CORRECTOR, x, part)
            length = sde.process.std(t) if self.annealed else _mean_norm(z) / _mean_norm(score)
            size = match(2.0 * alpha * (self.snr * length) ** 2, x)
            x = x + size * score + (2.0 * size) ** 0.5 * z
        return x


def _mean_norm(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1).mean()


@dataclass(frozen=True)
class Song2021PC:
    """The sampler of the published results, a `Sampler`: `generate(model, n, sampler=Song2021PC())`. Image i depends on
    the images beside it, as it did there.

    predictor         "reverse_diffusion", "euler_maruyama", "ancestral" or "none"
    corrector         "langevin", "ald" or "none"
    steps             N
    snr, corrections  r, and corrector steps at each time
    t_end             1e-5 for VE and 1e-3 for VP and sub-VP in the published results
    probability_flow  the predictor steps the probability flow
    denoise           the last step returns its mean

    Raises ValueError for kinds that do not exist; Incompatible, when used, for processes other than VE, VP and sub-VP.
    """

    predictor: str = "reverse_diffusion"
    corrector: str = "langevin"
    steps: int = 1000
    snr: float = 0.16
    corrections: int = 1
    t_end: float = 1e-5
    probability_flow: bool = False
    denoise: bool = True

    def __post_init__(self) -> None:
        for name, given, known in (
            ("predictor", self.predictor, _PREDICTORS),
            ("corrector", self.corrector, _CORRECTORS),
        ):
            if given not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {given!r}")
        if self.steps < 2 or self.corrections < 1 or not (self.snr > 0 and 0 < self.t_end < 1):
            raise ValueError(f"expected steps ≥ 2, corrections ≥ 1, snr > 0 and 0 < t_end < 1, got {self}")

    def solver(self) -> Solver:
        """One corrected step."""
        tables = Tables(self.steps)
        predictor = Predictor(self.predictor, tables, self.denoise)
        if self.corrector == "none":
            return predictor
        corrector: Corrector = BatchLangevin(self.snr, self.corrections, self.corrector == "ald", tables)
        return PredictorCorrector(predictor, corrector)

    def route(self, model: ScoreModel) -> Route:
        """N steps from t = 1; the last of them, from t_end, ends at 0."""
        times = torch.linspace(1.0, self.t_end, self.steps, dtype=torch.float64).tolist()
        equation = (probability_flow if self.probability_flow else reverse)(model.process, model)
        return Route(equation, self.solver(), TimeGrid([*times, 0.0]), 1.0, 0.0)
