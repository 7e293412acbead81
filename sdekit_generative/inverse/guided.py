"""The score of the posterior: the model's score and what the observation adds to it.

    ∇ log p_t(x | y) = ∇ log p_t(x) + (1/s) ∇_x̃ log p(y | x̃),      p(y | x̃) = ∫ p(y | x(0)) p(x(0) | x̃) dx(0)

The second term is not known; every method is a way to estimate it from D, J and the observation.

Notation and shapes
    x̃ = x/s   state `(B, *shape)` in the coordinates x(0) + σ z
    D         E[x(0) | x̃], the denoised image;  J = ∂D/∂x̃, symmetric;  σ² J = Cov[x(0) | x̃]
    std = s σ

Reference: Song et al. (2021), equation 14; Efron (2011) for D; Miyasawa (1961) for the covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from sdekit.protocols import Score, match
from sdekit.watch import calls_at

from ..samplers import Route
from .measurement import Measurement


@dataclass
class Tally:
    """Calls counted: of the model's score, and of its derivative (vector–Jacobian products). One a batch."""

    scores: int = 0
    gradients: int = 0


class Estimate:
    """What the model says about the clean image at one state. `pull` needs `differentiate=True`."""

    def __init__(
        self, process: Any, score: Score, t: Tensor, x: Tensor, tally: Tally, differentiate: bool = False
    ) -> None:
        self.process, self.tally = process, tally
        self.scale, self.std, self.sigma = process.scale(t), process.std(t), process.sigma(t)
        tally.scores += calls_at(score, t)
        self._x = x.detach().requires_grad_(differentiate)
        with torch.set_grad_enabled(differentiate):
            self._score = score(t.to(x.dtype) if t.ndim else t, self._x)
        self.score = self._score.detach()
        self.denoised = match(1.0 / self.scale, x) * (x.detach() + match(self.std.square(), x) * self.score)

    def pull(self, v: Tensor) -> Tensor:
        """`Jᵀ v = v + std² (∂score/∂x)ᵀ v`."""
        self.tally.gradients += 1
        (slope,) = torch.autograd.grad(self._score, self._x, v, retain_graph=True)
        return v + match(self.std.square(), v) * slope

    def assumed_variance(self, data_std: float) -> Tensor:
        """`r² = σ² v/(σ² + v)`, the posterior variance of data that were N(0, v), v = data_std²."""
        square = self.sigma.square()
        return square / (1.0 + square / data_std**2)


class Method(Protocol):
    """A way to condition on a measurement: a change of what is solved to get from the prior to the data."""

    def condition(self, route: Route, measurement: Measurement, tally: Tally) -> Route:
        """The route to the posterior; counts in the tally what it calls."""
        ...

    def start(self, x: Tensor, measurement: Measurement) -> Tensor:
        """The state to start from, given one from the prior."""
        ...

    def finish(self, x: Tensor, measurement: Measurement) -> Tensor:
        """The restored image, given the denoised end of the route."""
        ...


class Guidance:
    """Base of methods that change the score alone. A subclass gives `gradient`, and `differentiates` says if it uses J."""

    differentiates = True

    def gradient(self, estimate: Estimate, measurement: Measurement) -> Tensor:
        """The method's `∇_x̃ log p(y | x̃)`, of the shape of x."""
        raise NotImplementedError

    def check(self, measurement: Measurement) -> None:
        """Raise MeasurementError where the method cannot use the measurement."""

    def score(self, process: Any, score: Score, measurement: Measurement, tally: Tally | None = None) -> Score:
        """The score of the posterior, from that of the prior: to be used with any solver."""
        self.check(measurement)
        return Guided(process, score, measurement, self, Tally() if tally is None else tally)

    def condition(self, route: Route, measurement: Measurement, tally: Tally) -> Route:
        process, score = route.equation.process, route.equation.score
        return with_score(route, self.score(process, score, measurement, tally))

    def start(self, x: Tensor, measurement: Measurement) -> Tensor:
        return x

    def finish(self, x: Tensor, measurement: Measurement) -> Tensor:
        return x


def with_score(route: Route, score: Score) -> Route:
    """The route with another score."""
    return replace(route, equation=replace(route.equation, score=score))


@dataclass(frozen=True, eq=False)
class Guided:
    """The score of the posterior by a method: call it as `(t, x)` wherever sdekit takes a score."""

    process: Any
    inner: Score
    measurement: Measurement
    method: Guidance
    tally: Tally = field(default_factory=Tally)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        estimate = Estimate(self.process, self.inner, t, x, self.tally, self.method.differentiates)
        gradient = self.method.gradient(estimate, self.measurement)
        return estimate.score + match(1.0 / estimate.scale, x) * gradient

    def calls_at(self, t: Tensor | float) -> int:
        """Models asked at t; derivatives are counted in the tally."""
        return calls_at(self.inner, t)


@dataclass(frozen=True, eq=False)
class Counted:
    """A score that counts its calls in a tally."""

    inner: Score
    tally: Tally

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.tally.scores += self.calls_at(t)
        return self.inner(t, x)

    def calls_at(self, t: Tensor | float) -> int:
        """Models asked at t."""
        return calls_at(self.inner, t)
