"""The twisted particle filter: asymptotically exact conditioning, as more particles share the work.

A cloud of P particles goes from the prior to the data. Each is moved by a guided step, and carries a weight that undoes
what the guidance did wrong:

    x₁ ~ q(x₁ | x₀) = N(mean of DDIM's step with D + σ² g, v)
    weight  *=  p(x₁ | x₀) ψ₁(x₁) / (q(x₁ | x₀) ψ₀(x₀))

with p the unguided step, and the twist ψ(x) = N(y; A D, r² A Aᵀ + σ_y²), g = ∇_x̃ log ψ, as in `PiGDM`. At the end ψ is
the true likelihood. Clouds are resampled where their weights have become too unequal. Whatever the twist, the weighted
cloud tends to the posterior of the sampler's own law as P grows; a good twist only makes it tend faster.

Notation and shapes: state `(B, P, *shape)`, a cloud for every sample, so that no two samples know of one another; others
as in `guided`.

Reference: Wu, Trippe, Naesseth, Blei, Cunningham (2023), arXiv 2306.17775, algorithm 1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.arguments import check_integer, check_number
from sdekit.protocols import Calculus, Increment, Levy, Noise, Order, Score, Span, Step, match
from sdekit.random import Purpose
from sdekit.solvers.exponential import unit_noise

from ..samplers import Route
from .guided import Estimate, Tally, with_score
from .measurement import Measurement, MeasurementError

_PART = 128  # of the draws


class Cloud(NamedTuple):
    """What is known of the particles at their state.

    log_weight, log_twist `(B, P)`; denoised, gradient `(B, P, *shape)`.
    """

    log_weight: Tensor
    log_twist: Tensor
    denoised: Tensor
    gradient: Tensor

    def chosen(self, ancestors: Tensor) -> Cloud:
        """The cloud of these particles `(B, P)`, weights as they were."""
        return Cloud(self.log_weight, *(_take(part, ancestors) for part in self[1:]))


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.reshape(*index.shape, *(1,) * (x.ndim - 2)).expand(*index.shape, *x.shape[2:]))


def resample(log_weight: Tensor, u: Tensor) -> Tensor:
    """Ancestors `(B, P)` by systematic resampling: particle i is taken P w_i times, up to rounding. u `(B,)` uniform.

    Reference: Carpenter, Clifford, Fearnhead (1999), IEE Proc. Radar Sonar Navig. 146(1).
    """
    count = log_weight.shape[1]
    total = torch.softmax(log_weight.double(), 1).cumsum(1)
    total = total / total[:, -1:]
    points = (torch.arange(count, device=u.device, dtype=torch.float64) + u.double()[:, None]) / count
    return torch.searchsorted(total, points, right=True).clamp_max(count - 1)


@dataclass(frozen=True, eq=False)
class TwistedSolver:
    """One step of all clouds. `t_end` is where the likelihood takes the twist's place and the cloud is resampled."""

    method: TwistedSMC
    measurement: Measurement
    tally: Tally
    t_end: float

    calculus = Calculus.ITO
    levy = Levy.W
    error_order = None
    orders = {Noise.ADDITIVE: Order(1.0, 1.0)}

    def init(self, sde: Any, t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        log_twist, denoised, gradient = self._look(sde, t, x, last=False)
        return tuple(Cloud(log_twist, log_twist, denoised, gradient))

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        cloud, process, (t0, t1) = Cloud(*state), sde.process, span[:2]
        fresh = -torch.expm1(2.0 * (process.log_sigma(t1) - process.log_sigma(t0)))
        carry = process.scale(t1) / process.scale(t0) * (1.0 - fresh)
        spread = match(process.std(t1) * fresh.sqrt(), x)
        plain = match(carry, x) * x + match(process.scale(t1) * fresh, x) * cloud.denoised
        shift = match(process.scale(t1) * fresh * process.sigma(t0).square(), x) * cloud.gradient
        z = unit_noise(span, x, dw)
        x = plain + shift + spread * z
        # log p − log q at x, with x − mean of q = spread z
        change = -(shift * (2.0 * spread * z + shift)).flatten(2).sum(2) / (2.0 * torch.as_tensor(spread).square())
        last = float(t1) <= self.t_end
        log_twist, denoised, gradient = self._look(sde, t1, x, last)
        log_weight = cloud.log_weight + change + log_twist - cloud.log_twist
        cloud = Cloud(log_weight, log_twist, denoised, gradient)
        return self._settle(span, x, cloud, last)

    def _settle(self, span: Span, x: Tensor, cloud: Cloud, last: bool) -> Step:
        """The cloud resampled, where its weights ask for it."""
        count = x.shape[1]
        weight = torch.softmax(cloud.log_weight, 1)
        tired = 1.0 / weight.square().sum(1) < self.method.threshold * count
        tired = torch.ones_like(tired) if last else tired
        if span.draws is None:
            raise ValueError("TwistedSMC needs a source of random numbers: call it through `solve(..., seed=…)`")
        u = span.draws.uniform(Purpose.CHURN, span.index, (len(x),), torch.float64, x.device, part=_PART)
        stay = torch.arange(count, device=x.device).expand(len(x), count)
        ancestors = torch.where(tired[:, None], resample(cloud.log_weight, u), stay)
        cloud = cloud.chosen(ancestors)
        cloud = cloud._replace(log_weight=torch.where(tired[:, None], 0.0, cloud.log_weight))
        return Step(_take(x, ancestors), state=tuple(cloud), mean=cloud.denoised)

    def _look(self, sde: Any, t: Tensor, x: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """log ψ `(B, P)`, D and ∇_x̃ log ψ at the particles."""
        estimate = Estimate(sde.process, sde.score, t, x, self.tally, differentiate=not last)
        m = self.measurement
        residual, pull = m.residual(estimate.denoised.flatten(0, 1))
        # the twist's determinant is the same for all particles, and drops out of the weights
        variance = 0.0 if last else estimate.assumed_variance(self.method.data_std)
        solved = m.solve(residual, variance, m.noise**2)
        log_twist = -0.5 * (residual * solved).flatten(1).sum(1).reshape(x.shape[:2])
        if last:
            return log_twist, estimate.denoised, torch.zeros_like(x)
        return log_twist, estimate.denoised, estimate.pull(pull(solved).reshape(x.shape))


@dataclass(frozen=True, eq=False)
class _EachParticle:
    """A score on `(B, P, *shape)`."""

    inner: Score

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        t = t.expand(x.shape[:2] + (1,) * (x.ndim - 2)).flatten(0, 1) if t.ndim else t
        return self.inner(t, x.flatten(0, 1)).reshape(x.shape)


@dataclass(frozen=True)
class TwistedSMC:
    """Twisted sequential Monte Carlo: exact as `particles` → ∞, for any operator. It brings its own solver, and takes
    from the sampler only the steps, which must be fixed (`Fast(steps=100)`).

    particles   P, for every observation. They are one cloud: samples of one observation are not independent
    threshold   resample where the effective number of particles is below this share of P
    data_std    of the twist, as in `PiGDM`; any value is right as P → ∞

    Evaluations and gradients are those of one particle. The observation must have noise: ValueError for none.
    """

    particles: int = 64
    threshold: float = 0.5
    data_std: float = 1.0

    def __post_init__(self) -> None:
        check_integer("TwistedSMC: particles", self.particles, 1)
        check_number("TwistedSMC: threshold", self.threshold, above=0.0)
        check_number("TwistedSMC: data_std", self.data_std, above=0.0)

    def condition(self, route: Route, measurement: Measurement, tally: Tally) -> Route:
        if measurement.noise == 0.0:
            raise MeasurementError(
                "TwistedSMC weighs particles by the likelihood of the observation, which needs noise > 0; "
                "for a noise-free observation give a small one, such as the width of a grey level"
            )
        if route.steps.adaptive:
            raise MeasurementError("TwistedSMC takes fixed steps: use a sampler such as Fast(steps=100)")
        if route.equation.churn != 1.0:
            route = dataclasses.replace(route, equation=dataclasses.replace(route.equation, churn=1.0))
        solver = TwistedSolver(self, measurement.repeat(self.particles), tally, route.t1)
        route = with_score(route, _EachParticle(route.equation.score))
        return dataclasses.replace(route, solver=solver, denoise=False)

    def start(self, x: Tensor, measurement: Measurement) -> Tensor:
        return x

    def finish(self, x: Tensor, measurement: Measurement) -> Tensor:
        return x


__all__ = ["TwistedSMC", "resample"]
