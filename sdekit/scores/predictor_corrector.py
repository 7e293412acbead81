"""Predictor–corrector sampling: a solver made of a solver and a corrector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..protocols import Calculus, Corrector, Increment, Levy, Noise, Order, Solver, Span, Step
from .correctors import Langevin


@dataclass(frozen=True)
class PredictorCorrector:
    """One predictor step with corrections at a fixed time around it.

    order: "cp" corrects at t0 and then steps to t1, as in the code that gave the published results; "pc" steps and then
    corrects at t1, as in the text of the paper.  predictor: None for correction alone (annealed Langevin dynamics).
    `Step.mean` is the predictor's mean, the denoised sample that is returned at the end of sampling.

    Raises ValueError for another order, TypeError for a corrector that is none.

    Reference: Song et al. (2021), Algorithm 1.
    """

    predictor: Solver | None
    corrector: Corrector = field(default_factory=Langevin)
    order: str = "cp"

    def __post_init__(self) -> None:
        if self.order not in ("cp", "pc"):
            raise ValueError(f"PredictorCorrector: order is 'cp' (corrector first) or 'pc', got {self.order!r}")
        if not hasattr(self.corrector, "correct"):
            raise TypeError(f"corrector: expected a Corrector such as Langevin(snr=0.16), got {self.corrector!r}")

    @property
    def calculus(self) -> Calculus | None:
        return Calculus.ITO if self.predictor is None else self.predictor.calculus

    @property
    def levy(self) -> Levy:
        return Levy.W if self.predictor is None else self.predictor.levy

    @property
    def error_order(self) -> float | None:
        return None  # a corrector's fresh noise is no error of the step

    @property
    def orders(self) -> Mapping[Noise, Order]:
        if self.predictor is None:
            return {Noise.NONE: Order(0.0, 0.0), Noise.ADDITIVE: Order(0.0, 0.0)}
        return self.predictor.orders

    def init(self, sde: Any, t: Tensor, x: Tensor) -> Any:
        if not hasattr(sde, "score"):
            raise TypeError(
                "PredictorCorrector needs a score: solve reverse(process, score) or probability_flow(process, score)"
            )
        return None if self.predictor is None else self.predictor.init(sde, t, x)

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        if self.order == "cp":
            x = self.corrector.correct(sde, span, span.t0, x)
            return self._predict(sde, span, x, dw, state)
        step = self._predict(sde, span, x, dw, state)
        return step._replace(x=self.corrector.correct(sde, span, span.t1, step.x), interpolate=None)

    def _predict(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        if self.predictor is None:
            return Step(x, state=state, mean=x)
        return self.predictor.step(sde, span, x, dw, state)
