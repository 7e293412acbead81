"""Restart: going back up in noise and down again, around any sampler of the probability flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import Calculus, Increment, Levy, Noise, Order, Solver, Span, Step, match
from ..random import Purpose
from .exponential import affine_process


@dataclass(frozen=True)
class Restart:
    """Once the solver has stepped down to the noise level `low`, `repeats` times: noise is added back up to `high`, and
    the same solver comes down again in `steps` steps, uniform in ln σ.

        x̃ ← x̃ + √(high² − low²) z

    Each repetition contracts the errors made at higher noise, as an SDE does, while the steps in between stay those of
    an ODE. `low` counts as reached at the first step that ends at or below it. For probability_flow(process, score).

    Raises:
        ValueError: unless 0 < low < high, repeats ≥ 1 and steps ≥ 1.

    Reference: Xu et al. (2023), arXiv 2306.14878, algorithm 1.
    """

    solver: Solver
    low: float
    high: float
    repeats: int = 1
    steps: int = 4

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high:
            raise ValueError(f"Restart: expected 0 < low < high, got {self.low!r} and {self.high!r}")
        if self.repeats < 1 or self.steps < 1:
            raise ValueError(f"Restart: repeats and steps must be 1 or more, got {self.repeats!r} and {self.steps!r}")

    @property
    def calculus(self) -> Calculus | None:
        return self.solver.calculus

    @property
    def levy(self) -> Levy:
        return self.solver.levy

    @property
    def error_order(self) -> float | None:
        return None  # fresh noise is no error of the step

    @property
    def orders(self) -> Mapping[Noise, Order]:
        # one law is sampled in another way: what converges with the inner steps is the law, at the solver's order
        return {Noise.NONE: Order(0.0, self.solver.orders[Noise.NONE].weak)}

    def init(self, sde: Any, t: Tensor, x: Tensor) -> Any:
        affine_process(sde, "Restart")
        return self.solver.init(sde, t, x)

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        step = self.solver.step(sde, span, x, dw, state)
        process = sde.process
        bottom, top = process.log_sigma(span.t1), torch.full_like(span.t1, self.high).log()
        low = torch.full_like(span.t1, self.low).log()
        crossing = (process.log_sigma(span.t0) > low) & (bottom <= low)
        if not bool(crossing.any()):
            return step
        x = step.x
        for round_ in range(self.repeats):
            x = torch.where(crossing.to(x.device), self._again(sde, span, x, bottom, top, round_), x)
        # the solver's memory belongs to a path that has been left
        return Step(x, state=self.solver.init(sde, span.t1, x), mean=x)

    def _again(self, sde: Any, span: Span, x: Tensor, bottom: Tensor, top: Tensor, round_: int) -> Tensor:
        process = sde.process
        t = process.time(top)
        ratio = process.scale(t) / process.scale(span.t1)
        spread = process.std(t) * torch.sqrt(-torch.expm1(2.0 * (bottom - top)))
        x = match(ratio, x) * x + match(spread, x) * span.normal(Purpose.CHURN, x, part=round_)
        state = self.solver.init(sde, t, x)
        for i in range(self.steps):
            last = i + 1 == self.steps
            end = span.t1 if last else process.time(torch.lerp(top, bottom, (i + 1) / self.steps))
            h = end - t
            inner = span._replace(t0=t, t1=end, h=h.to(x.dtype) if h.ndim else h)
            step = self.solver.step(sde, inner, x, None, state)
            x, state, t = step.x, step.state, end
        return x
