"""Methods that put the observation into the state, at the noise level that the state has. No derivative, any solver.

    ŷ_t = s y + std A z,      x ← x + λ A⁺ (ŷ_t − A x)

after every step of the solver, and after every step of a corrector. The state then agrees with the observation at every
time, but what is filled in around it learns of it only through the score, one step later: samples are biased.

Notation as in `guided`; λ the blend, z fresh standard normal, n the noise of y.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sdekit.arguments import check_integer
from sdekit.protocols import Calculus, Corrector, Increment, Levy, Noise, Order, Solver, Span, Step, match
from sdekit.random import Purpose
from sdekit.scores.predictor_corrector import PredictorCorrector

from ..samplers import Route
from .guided import Counted, Tally, with_score
from .measurement import Measurement
from .operator import inverted
from .song2021 import Song2021

_PART = 64  # of the draws: far from the parts that solvers use


class Constraint(Protocol):
    """What is known of the image, put into a state."""

    def noised(self, process: Any, t: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """x at time t with the observation in it, noised by z."""
        ...

    def clean(self, x: Tensor) -> Tensor:
        """A denoised image with the observation in it."""
        ...


@dataclass(frozen=True, eq=False)
class Projected:
    """`x + λ A⁺ (ŷ_t − A x)` along the singular directions in which y is not noisier than the state, σ s > σ_y.

    y brings noise of its own, so that much less is added: `std² − s_t² σ_y²/s²` in a direction of singular value s.
    """

    measurement: Measurement
    blend: float

    def noised(self, process: Any, t: Tensor, x: Tensor, z: Tensor) -> Tensor:
        scale, sigma = float(process.scale(t)), float(process.sigma(t))
        m = self.measurement
        svd, operator, noise = m.require_svd("replacement"), _linear(m), m.noise

        def pull(squares: Tensor) -> Tensor:
            return self._active(squares, sigma) * inverted(squares)

        def spread(squares: Tensor) -> Tensor:
            own = noise**2 * inverted(squares)
            return pull(squares) * (sigma**2 - own).clamp_min(0.0).sqrt() * scale

        change = svd.apply(pull, scale * m.y - operator.forward(x)) + svd.apply(spread, operator.forward(z))
        return x + self.blend * operator.adjoint(change)

    def clean(self, x: Tensor) -> Tensor:
        m = self.measurement
        if m.noise > 0.0:
            return x
        change = m.require_svd("replacement").apply(inverted, m.residual(x)[0])
        return x + self.blend * _linear(m).adjoint(change)

    def _active(self, squares: Tensor, sigma: float) -> Tensor:
        return (squares * sigma**2 > self.measurement.noise**2).to(squares.dtype)


def _linear(measurement: Measurement) -> Any:
    return measurement.operator


@dataclass(frozen=True, eq=False)
class Replacing:
    """A solver after each of whose steps the constraint is put in. Where `jumps` > 1, the step is taken so many times,
    with the state noised back up to where it began in between.

    compat: the constraint is put in at the time of the step's start, and into the noisy state for the mean.
    """

    inner: Solver
    constraint: Constraint
    jumps: int = 1
    compat: bool = False

    @property
    def calculus(self) -> Calculus | None:
        return self.inner.calculus

    @property
    def levy(self) -> Levy:
        return self.inner.levy

    @property
    def error_order(self) -> float | None:
        return None  # fresh noise is no error of the step

    @property
    def orders(self) -> Mapping[Noise, Order]:
        return self.inner.orders

    def init(self, sde: Any, t: Tensor, x: Tensor) -> Any:
        return self.inner.init(sde, t, x)

    def step(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        step = self._once(sde, span, x, dw, state, 0)
        for jump in range(1, self.jumps):
            up = sde.process.transition(span.t1, span.t0)
            z = span.normal(Purpose.CHURN, x, _PART + 3 * jump)
            x = up.mean(step.x) + match(up.std, x) * z
            if dw is not None:
                size = abs(span.h) ** 0.5
                dw = Increment(W=size * span.normal(Purpose.CHURN, dw.W, _PART + 3 * jump + 1))
            # the solver's memory belongs to a path that has been left
            step = self._once(sde, span, x, dw, self.inner.init(sde, span.t0, x), jump)
        return step

    def _once(self, sde: Any, span: Span, x: Tensor, dw: Increment | None, state: Any, jump: int) -> Step:
        step = self.inner.step(sde, span, x, dw, state)
        z = span.normal(Purpose.CHURN, x, _PART + 3 * jump + 2)
        if self.compat:
            new = self.constraint.noised(sde.process, span.t0, step.x, z)
            return Step(new, state=step.state, mean=self.constraint.noised(sde.process, span.t0, new, 0.0 * z))
        new = self.constraint.noised(sde.process, span.t1, step.x, z)
        denoised = new if step.mean is None else step.mean
        return Step(new, state=step.state, mean=self.constraint.clean(denoised))


@dataclass(frozen=True, eq=False)
class ReplacingCorrector:
    """A corrector after which the constraint is put in."""

    inner: Corrector
    constraint: Constraint

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        x = self.inner.correct(sde, span, t, x)
        z = span.normal(Purpose.CHURN, x, _PART - 1)
        return self.constraint.noised(sde.process, t, x, z)


@dataclass(frozen=True)
class Uncorrected:
    """The corrector that does nothing."""

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Projection:
    """Projection on the observation after every step, for any linear operator with an SVD.

    blend: λ in (0, 1], how much of the observation is put in; 1 makes the state agree with it.

    Adaptive steps have no use of it: Incompatible. With a noisy observation, directions in which y is noisier than the
    state are left to the model.

    Raises ValueError for a blend outside (0, 1].

    Reference: Song, Shen, Xing, Ermon (2022), ICLR, "Solving inverse problems in medical imaging with score-based
    generative models", equation 9.
    """

    blend: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.blend, (int, float)) and 0.0 < self.blend <= 1.0):
            raise ValueError(f"Projection: blend is in (0, 1], got {self.blend!r}")

    def constraint(self, measurement: Measurement) -> Constraint:
        """What is put in."""
        measurement.require_svd(type(self).__name__)
        return Projected(measurement, self.blend)

    def solver(self, solver: Solver, constraint: Constraint) -> Solver:
        """The solver with the constraint after each of its steps."""
        if isinstance(solver, PredictorCorrector):
            corrector = ReplacingCorrector(solver.corrector, constraint)
            predictor = None if solver.predictor is None else self.solver(solver.predictor, constraint)
            return dataclasses.replace(solver, predictor=predictor, corrector=corrector)
        return Replacing(solver, constraint)

    def condition(self, route: Route, measurement: Measurement, tally: Tally) -> Route:
        counted = with_score(route, Counted(route.equation.score, tally))
        return dataclasses.replace(counted, solver=self.solver(route.solver, self.constraint(measurement)))

    def start(self, x: Tensor, measurement: Measurement) -> Tensor:
        return x

    def finish(self, x: Tensor, measurement: Measurement) -> Tensor:
        return self.constraint(measurement).clean(x)


@dataclass(frozen=True)
class Replacement(Projection):
    """Replacement, the paper's way to inpaint and colourise: `Projection` that makes the state agree.

    compat: "song2021" does what the code of the paper does, for `Inpaint` and `Colorize`: the start holds the clean
    observation, the observation is noised to the level that the step started from, and the mean is taken from the noisy
    state, so that what is filled in keeps the noise of the last step.

    Raises ValueError for another `compat`.

    Reference: Song et al. (2021), section 5 and appendix I.2.
    """

    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat not in (None, "song2021"):
            raise ValueError(f"Replacement: compat is None or 'song2021', got {self.compat!r}")

    def constraint(self, measurement: Measurement) -> Constraint:
        return super().constraint(measurement) if self.compat is None else Song2021(measurement)

    def solver(self, solver: Solver, constraint: Constraint) -> Solver:
        if self.compat is None:
            return super().solver(solver, constraint)
        # that code puts the observation in twice a step, also where there is no corrector or no predictor
        pair = solver if isinstance(solver, PredictorCorrector) else PredictorCorrector(solver, Uncorrected())
        predictor = None if pair.predictor is None else Replacing(pair.predictor, constraint, compat=True)
        return dataclasses.replace(pair, predictor=predictor, corrector=ReplacingCorrector(pair.corrector, constraint))

    def start(self, x: Tensor, measurement: Measurement) -> Tensor:
        return x if self.compat is None else Song2021(measurement).start(x)

    def finish(self, x: Tensor, measurement: Measurement) -> Tensor:
        return x if self.compat is not None else super().finish(x, measurement)


@dataclass(frozen=True)
class RePaint(Projection):
    """Replacement with every step taken `jumps` times, noised back up in between: the filled-in part has time to agree
    with what is known. `jumps` evaluations where the solver takes one.

    The jump is as long as a step of the solver.

    Raises ValueError for jumps below 1.

    Reference: Lugmayr et al. (2022), arXiv 2201.09865, algorithm 1.
    """

    jumps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("RePaint: jumps", self.jumps, 1)

    def solver(self, solver: Solver, constraint: Constraint) -> Solver:
        found = super().solver(solver, constraint)
        return dataclasses.replace(found, jumps=self.jumps) if isinstance(found, Replacing) else found


__all__ = ["Projection", "RePaint", "Replacement", "ReplacingCorrector"]
