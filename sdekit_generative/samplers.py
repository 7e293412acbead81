"""Ways from the prior to images. A sampler chooses an equation, a solver and steps for a model; `Route` follows them.

    PC    the reverse SDE by predictor and corrector     2 evaluations a step, hundreds of steps
    ODE   the probability flow, steps by error           some 50 evaluations
    Fast  either, by an exponential solver on a grid     10 to 50 evaluations

Notation: t runs from the process's t_max down to t_end, where what is left of the noise is taken out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from sdekit.arguments import check_integer, check_number
from sdekit.protocols import Solver, StepControl
from sdekit.random import Draws
from sdekit.save import SaveAt
from sdekit.scores.correctors import Langevin
from sdekit.scores.predictor_corrector import PredictorCorrector
from sdekit.scores.predictors import ReverseDiffusion
from sdekit.scores.reverse import ReverseSDE, probability_flow, reverse
from sdekit.solution import Solution
from sdekit.solve import solve
from sdekit.solvers import AngularAdams, Bosh3, denoise
from sdekit.steps import Adaptive, FixedSteps, TimeGrid, angle_grid
from sdekit.watch import calls_at

from .model import ScoreModel

Progress = Callable[[float], None]
"""Called with the fraction of the work done, in [0, 1]."""

Grid = Callable[..., TimeGrid]
"""`(process, n, t1=…) → TimeGrid`: `sdekit.karras_grid`, `log_snr_grid`, …, or a `functools.partial` of one."""


def part_of(progress: Progress | None, done: float, share: float) -> Progress | None:
    """The progress of a part, whose work is this share of the whole and begins when `done` of it is behind."""
    return None if progress is None else lambda fraction: progress(done + share * fraction)


@dataclass(frozen=True)
class Route:
    """What is solved: the equation, the solver and its steps, from t0 down to t1.

    denoise  whether the noise left at t1 is taken out by one more evaluation, `D(t₁, x)`; solvers that know their own
             noise-free mean need none
    """

    equation: ReverseSDE
    solver: Solver
    steps: StepControl
    t0: float
    t1: float
    denoise: bool = False

    def solve(
        self,
        x: Tensor,
        seed: int | Draws = 0,
        first: int = 0,
        save: SaveAt | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """From x at t0 to t1; `Solution.mean` is the denoised end, where there is one."""
        solution = solve(
            self.equation,
            x,
            self.t0,
            self.t1,
            solver=self.solver,
            steps=self.steps,
            save=save,
            seed=seed,
            first=first,
            progress=progress,
        )
        return self._denoised(solution, save) if self.denoise else solution

    def _denoised(self, solution: Solution, save: SaveAt | None) -> Solution:
        process: Any = self.equation.process
        score = self.equation.score
        mean = denoise(process, score, self.t1, solution.x if save is None else solution.x[-1])
        stats, calls = solution.stats, calls_at(score, self.t1)
        stats = dataclasses.replace(stats, model_calls=stats.model_calls + calls, evaluations=stats.evaluations + calls)
        return dataclasses.replace(solution, mean=mean, stats=stats)


class Sampler(Protocol):
    """A way from the prior to images."""

    def route(self, model: ScoreModel) -> Route:
        """What is to be solved for this model."""
        ...


def _last(model: ScoreModel, t_end: float) -> float:
    return max(model.process.t_min, t_end)


@dataclass(frozen=True)
class PC:
    """Predictor–corrector: reverse diffusion steps, each after a Langevin correction. 2 evaluations a step.

    steps        predictor steps, uniform in t
    snr          signal-to-noise ratio of the corrector's step
    corrections  corrector steps at each time; 0 for the predictor alone
    t_end        time at which to stop (never below the process's t_min); the last step returns its noise-free mean

    Raises ValueError or TypeError for values that make no sense.

    Reference: Song et al. (2021), Algorithm 1 and appendix G.
    """

    steps: int = 500
    snr: float = 0.16
    corrections: int = 1
    t_end: float = 1e-3

    def __post_init__(self) -> None:
        check_integer("PC: steps", self.steps, 1)
        check_integer("PC: corrections", self.corrections, 0)
        check_number("PC: snr", self.snr, above=0.0)
        check_number("PC: t_end", self.t_end, least=0.0)

    def solver(self) -> Solver:
        """Predictor and corrector, as `solve` takes them."""
        predictor = ReverseDiffusion()
        if self.corrections == 0:
            return predictor
        return PredictorCorrector(predictor, Langevin(snr=self.snr, steps=self.corrections))

    def route(self, model: ScoreModel) -> Route:
        equation, process = reverse(model.process, model), model.process
        return Route(equation, self.solver(), FixedSteps(self.steps), process.t_max, _last(model, self.t_end))


@dataclass(frozen=True)
class ODE:
    """The probability-flow ODE, with steps chosen for each image.

    rtol, atol  tolerances of the state, in the model's range
    t_end       as in `PC`
    solver      any ODE solver with an error estimate. A network is not smooth enough for high orders to pay: on the
                digits Bosh3 at 1e-3 errs by 0.002 (rms) in 54 evaluations, Dopri5 by 0.005 in 57
    denoise     whether to take out the noise that is left at t_end, by one more evaluation

    Reference: Song et al. (2021), §4.3; Bogacki, Shampine (1989).
    """

    rtol: float = 1e-3
    atol: float = 1e-3
    t_end: float = 1e-3
    solver: Solver = field(default_factory=Bosh3)
    denoise: bool = False

    def __post_init__(self) -> None:
        check_number("ODE: t_end", self.t_end, least=0.0)
        Adaptive(rtol=self.rtol, atol=self.atol)  # says what is wrong with them

    def route(self, model: ScoreModel) -> Route:
        equation, steps = probability_flow(model.process, model), Adaptive(rtol=self.rtol, atol=self.atol)
        return Route(equation, self.solver, steps, model.process.t_max, _last(model, self.t_end), self.denoise)


@dataclass(frozen=True)
class Fast:
    """Few steps on a grid of noise levels, by a solver that integrates the process's linear part exactly.

    solver  any of `sdekit.SAMPLERS`: `AngularAdams(3)`, `DPMSolverPP(3)`, `UniPC(3)`, `DDIM()`, `SEEDS(2)`, …
    steps   steps on the grid; most solvers take one evaluation each, and one more takes out the noise left at t_end
    grid    `sdekit.karras_grid`, `log_snr_grid`, …; None for `angle_grid` about the spread of the model's data
    churn   λ of the family of `sdekit.reverse`: 0 for the probability flow, 1 for the reverse SDE
    t_end   as in `PC`

    Raises ValueError or TypeError for values that make no sense.
    """

    solver: Solver = field(default_factory=lambda: AngularAdams(3))
    steps: int = 20
    grid: Grid | None = None
    churn: float = 0.0
    t_end: float = 1e-3

    def __post_init__(self) -> None:
        check_integer("Fast: steps", self.steps, 1)
        check_number("Fast: churn", self.churn, least=0.0)
        check_number("Fast: t_end", self.t_end, least=0.0)

    def route(self, model: ScoreModel) -> Route:
        process, end = model.process, _last(model, self.t_end)
        if self.grid is None:
            spread = getattr(model.parametrisation, "data_std", 0.5)
            grid = angle_grid(process, self.steps, sigma_data=spread, t1=end)
        else:
            grid = self.grid(process, self.steps, t1=end)
        equation = reverse(process, model, churn=self.churn)
        return Route(equation, self.solver, grid, process.t_max, end, denoise=True)
