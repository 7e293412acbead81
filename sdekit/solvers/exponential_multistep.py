"""Multistep samplers: one call of the score a step, and the values of earlier steps used again.

    predict   x₁ = carry x₀ + gain Σ w_j Y_j + spread z      of Y₀ and earlier values, `order` of them in all
    correct   once Y₁ is known at the prediction, the step is made again with it among the Y_j, at no further call

All of them are one engine, exponential Adams–Bashforth–Moulton, and differ in the form held (see `exponential`), in the
number of values, and in whether the corrector runs. The first step knows one value only, which leaves an error of
order 2 in the second. As long as every value since the start is at hand, the correction therefore begins anew from the
start, with all of them. That keeps order 3 from wherever a solve starts, and order 4 from the prior, where the first
values hardly differ. Methods of order 5 take the second value once more, at its corrected place: one call a solve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..protocols import Increment, Levy, Noise, Order, Span, Step, match
from .exponential import DataForm, Form, Leg, NoiseForm, VelocityForm, affine_process, check_eta, eta_of, unit_noise


class History(NamedTuple):
    """What a step leaves behind: the values of earlier steps and their clocks, newest first; NaN where there is none.

    clocks `(B or 1, 1, …, 1)`; time: that of the newest value; push: the last step's `gain Σ w_j Y_j`, which a
    corrector takes back; origin, start: state and time at the beginning.
    """

    clocks: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    time: Tensor
    push: Tensor
    origin: Tensor
    start: Tensor

    @classmethod
    def empty(cls, t: Tensor, x: Tensor, count: int) -> History:
        none, zero = _column(torch.full((), math.nan, dtype=torch.float64), x), torch.zeros_like(x)
        return cls((none,) * count, (zero,) * count, none, zero, x, _column(t, x))

    @property
    def known(self) -> int:
        return sum(bool(torch.isfinite(t).any()) for t in self.clocks)

    def then(self, t: Tensor, clock: Tensor, value: Tensor, push: Tensor) -> History:
        count = len(self.clocks)
        clocks = tuple(_column(c, value) for c in (clock, *self.clocks)[:count])
        start = _column(self.start, value)
        return History(clocks, (value, *self.values)[:count], _column(t, value), push, self.origin, start)

    def plain(self) -> History:
        """The same with times of all samples as numbers, which meet states on any device without a copy."""
        clocks = tuple(_number(c) for c in self.clocks)
        return self._replace(clocks=clocks, time=_number(self.time), start=_number(self.start))


def _column(t: Tensor, x: Tensor) -> Tensor:
    """A time for all samples as `(1, …, 1)` of x's rank, so that a mask over samples can tell it apart."""
    return t.reshape((1,) * x.ndim) if t.ndim == 0 else t


def _number(t: Tensor) -> Tensor:
    return t.reshape(()) if t.numel() == 1 else t


def _combine(factor: Tensor, weights: list[Tensor], values: list[Tensor], x: Tensor) -> Tensor:
    """`factor Σ w_j Y_j`."""
    total = match(factor * weights[0], x) * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + match(factor * weight, x) * value
    return total


def _check_order(owner: object, order: int, lowest: int, highest: int) -> None:
    if isinstance(order, bool) or not isinstance(order, int) or not lowest <= order <= highest:
        raise ValueError(f"{type(owner).__name__}: order must be an integer from {lowest} to {highest}, got {order!r}")


class ExponentialAdams:
    """The engine. A method names its form, its number of values `order`, and `corrector`, the values in its corrector.

    On probability_flow(…) it is deterministic; on reverse(…) it follows the SDE's Brownian path, with η = churn². A
    method with a number for its own `eta` takes that in place of the SDE's.
    """

    order: int
    calculus = None
    levy = Levy.W
    error_order = None

    @property
    def form(self) -> Form:
        """What is held as a polynomial along a step."""
        return DataForm()

    @property
    def corrector(self) -> int:
        """Number of values in the corrector; 0: none."""
        return 0

    @property
    def noise_level(self) -> float | None:
        """η where the method sets it, None where the SDE does."""
        return getattr(self, "eta", None)

    @property
    def starting_calls(self) -> int:
        """Calls of the score, beyond one a step, that a solve of two steps or more of the probability flow takes."""
        return int(max(self.order, self.corrector) > 4)

    @property
    def orders(self) -> dict[Noise, Order]:
        reached = float(max(self.order, self.corrector))
        return {Noise.NONE: Order(reached, reached), Noise.ADDITIVE: Order(1.0, min(reached, 2.0))}

    def init(self, sde: Any, t: Tensor, x: Tensor) -> History:
        affine_process(sde, type(self).__name__)
        return History.empty(t, x, max(self.order, self.corrector, 2) - 1)

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        history, eta = History(*state).plain(), eta_of(self.noise_level, sde)
        form, process, known = self.form, sde.process, history.known
        leg = form.leg(process, span.t0, span.t1, eta)
        values = [form.value(sde, span.t0, x), *history.values[:known]]
        clocks = [leg.clock0, *history.clocks[:known]]
        if known:
            x = self._correct(process, span.t0, eta, clocks, values, x, history)
        if known == 1 and not eta and self.starting_calls:
            values[0] = form.value(sde, span.t0, x)
            x = self._correct(process, span.t0, eta, clocks, values, x, history)
        count = 1 if leg.singular else min(self.order, len(values))
        push = _combine(leg.gain, self.predict(leg, clocks[:count]), values[:count], x)
        mean = match(leg.carry, x) * x + push
        new = mean + match(leg.spread, x) * unit_noise(span, x, dw) if eta else mean
        return Step(new, state=tuple(history.then(span.t0, leg.clock0, values[0], push)), mean=mean)

    def predict(self, leg: Leg, clocks: list[Tensor]) -> list[Tensor]:
        """Weights of the predictor."""
        return leg.weights(clocks)

    def _correct(
        self,
        process: Any,
        t: Tensor,
        eta: float,
        clocks: list[Tensor],
        values: list[Tensor],
        x: Tensor,
        history: History,
    ) -> Tensor:
        """The state at t, made again with the value there among the others."""
        whole = len(clocks) <= max(self.corrector, self.order - 1) and not eta
        fresh = clocks[-1] == self.form.clock(process, history.start) if whole else torch.zeros(1, dtype=torch.bool)
        if bool(fresh.all()):
            return self._from_start(process, t, clocks, values, history)
        count = min(self.corrector, len(clocks))
        if count > 1:
            leg = self.form.leg(process, history.time, t, eta)
            x = x - history.push + _combine(leg.gain, leg.weights(clocks[:count]), values[:count], x)
        # samples of a batch may have started at different steps: each gets what it would get alone
        return torch.where(fresh, self._from_start(process, t, clocks, values, history), x) if bool(fresh.any()) else x

    def _from_start(
        self, process: Any, t: Tensor, clocks: list[Tensor], values: list[Tensor], history: History
    ) -> Tensor:
        leg = self.form.leg(process, history.start, t, 0.0)
        return match(leg.carry, history.origin) * history.origin + _combine(
            leg.gain, leg.weights(clocks), values, history.origin
        )


@dataclass(frozen=True)
class DPMSolverPP(ExponentialAdams):
    """DPM-Solver++ in its multistep form (2M, 3M), and its SDE form: D as a polynomial in λ.

    order 1: `x̃₁ = (σ₁/σ₀) e^(−ηh) x̃₀ + (1 − e^(−(1+η)h)) D₀ + σ₁ √(1 − e^(−2ηh)) z`
    order 2: D₀ + (D₀ − D₋₁) h/(2 h₋₁) in place of D₀, as published
    order 3: the parabola through three values, integrated exactly

    eta: η, None to take it from the SDE: 0 for probability_flow, churn² for reverse.

    Raises:
        ValueError: order is not 1, 2 or 3, or eta is negative.

    Reference: Lu et al. (2022), arXiv 2211.01095, algorithm 2 and appendix A. Of order 3 they give code only, whose
    second difference carries half its weight; here it has all of it, and order 3.
    """

    order: int = 2
    eta: float | None = None

    def __post_init__(self) -> None:
        _check_order(self, self.order, 1, 3)
        check_eta(self, self.eta)

    def predict(self, leg: Leg, clocks: list[Tensor]) -> list[Tensor]:
        if self.order == 2 and len(clocks) == 2:
            slope = leg.total * (leg.clock1 - leg.clock0) / (2.0 * (clocks[1] - clocks[0]))
            return [leg.total - slope, slope]
        return leg.weights(clocks)


@dataclass(frozen=True)
class DEIS(ExponentialAdams):
    """DEIS, the exponential Adams–Bashforth method on the noise: ε as a polynomial in ln σ through `order` values.

    eta: η, None to take it from the SDE.

    Raises:
        ValueError: order is not 1 to 4, or eta is negative.

    Reference: Zhang, Chen (2023), arXiv 2204.13902, equation 15, in the variable ln σ.
    """

    order: int = 3
    eta: float | None = None

    def __post_init__(self) -> None:
        _check_order(self, self.order, 1, 4)
        check_eta(self, self.eta)

    @property
    def form(self) -> Form:
        """The noise ε."""
        return NoiseForm()


@dataclass(frozen=True)
class UniPC(ExponentialAdams):
    """UniPC-p: a predictor of p values of D and a corrector of p + 1, one call of the score a step; order p + 1.

    The weights are those for which polynomials in λ are integrated exactly, which solve the method's equations whatever
    its function B(h). As published, the last step is not corrected, since that would take one more call.

    Raises:
        ValueError: order is not 1 to 3.

    Reference: Zhao et al. (2023), arXiv 2302.04867, algorithms 1 to 3.
    """

    order: int = 3

    def __post_init__(self) -> None:
        _check_order(self, self.order, 1, 3)

    @property
    def corrector(self) -> int:
        """One value more than the predictor has."""
        return self.order + 1


@dataclass(frozen=True)
class SASolver(ExponentialAdams):
    """SA-Solver: stochastic Adams, a predictor of `order` values of D and a corrector of `corrector` values.

    eta: η = τ², None to take it from the SDE. The corrected step keeps the noise of the predicted one.

    Raises:
        ValueError: order is not 1 to 4, corrector not 0 or 2 to 5, or eta negative.

    Reference: Xue et al. (2023), arXiv 2309.05019, algorithm 1, with constant τ.
    """

    order: int = 3
    corrector: int = 4  # pyright: ignore[reportIncompatibleMethodOverride]  # a field in place of a property
    eta: float | None = None

    def __post_init__(self) -> None:
        _check_order(self, self.order, 1, 4)
        if self.corrector not in (0, 2, 3, 4, 5):
            raise ValueError(f"SASolver: corrector is its number of values, 0 (none) or 2 to 5, got {self.corrector!r}")
        check_eta(self, self.eta)


@dataclass(frozen=True)
class AngularAdams(ExponentialAdams):
    """Adams on Karras's F in the angle φ = atan(σ/c): predictor of `order` values, corrector of one more; order + 1.

    One call of the score a step, and with order=4 one more at the start.

    What data of standard deviation c do is solved exactly, noise included, and the angle is finite at σ = 0, so that a
    grid may end there. Meant for `angle_grid`.

    sigma_data: c, about the data's standard deviation.  eta: η, None to take it from the SDE.

    Raises:
        ValueError: order is not 1 to 4, sigma_data not positive, or eta negative.

    Reference: the form is that of Karras et al. (2022), arXiv 2206.00364, equation 7; the corrector runs as in Zhao et
    al. (2023), arXiv 2302.04867.
    """

    order: int = 3
    sigma_data: float = 0.5
    eta: float | None = None

    def __post_init__(self) -> None:
        _check_order(self, self.order, 1, 4)
        if not 0.0 < self.sigma_data < math.inf:
            raise ValueError(f"AngularAdams: sigma_data must be positive and finite, got {self.sigma_data!r}")
        check_eta(self, self.eta)

    @property
    def form(self) -> Form:
        """Karras's F."""
        return VelocityForm(self.sigma_data)

    @property
    def corrector(self) -> int:
        """One value more than the predictor has."""
        return self.order + 1
