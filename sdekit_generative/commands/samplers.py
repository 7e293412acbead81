"""Samplers as options of the command line: --sampler, and what each of them takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import UserError

if TYPE_CHECKING:
    from sdekit.protocols import Solver

    from ..samplers import Sampler

_CORRECTED = ("steps", "snr", "corrections")
_TAKES = {
    "pc": (*_CORRECTED, "t_end"),
    "ode": ("tolerance", "t_end"),
    "fast": ("steps", "solver", "order", "churn", "t_end"),
    "song2021": (*_CORRECTED, "predictor", "corrector", "t_end"),
}


@Parameter(name="*")
@dataclass(frozen=True)
class SamplerOptions:
    """How images are made.

    Parameters
    ----------
    sampler
        pc (predictor–corrector), ode (probability flow, steps by error), fast (few steps), or song2021: pc exactly as
        the code published with the paper does it, where an image depends on those that share its batch.
    steps
        Steps of pc [default: 500], fast [default: 20] or song2021 [default: 1000].
    tolerance
        Tolerance of ode. [default: 1e-3]
    solver
        Solver of fast: AngularAdams, DPMSolverPP, UniPC, DEIS, DDIM, SEEDS, … [default: AngularAdams]
    order
        Order of that solver. [default: the solver's own]
    churn
        Noise of fast: 0 for the probability flow, 1 for the reverse SDE. [default: 0]
    snr
        Signal-to-noise ratio of the corrector's steps, of pc and song2021. [default: 0.16]
    corrections
        Corrector steps at each time, of pc and song2021. [default: 1]
    t_end
        Time at which to stop. [default: 1e-3; of song2021 1e-5, as published for VE; for VP and sub-VP that is 1e-3]
    predictor
        Predictor of song2021. [default: reverse_diffusion]
    corrector
        Corrector of song2021. [default: langevin]
    """

    sampler: Literal["pc", "ode", "fast", "song2021"] = "pc"
    steps: Annotated[int | None, Parameter()] = None
    tolerance: float | None = None
    solver: str | None = None
    order: int | None = None
    churn: float | None = None
    snr: float | None = None
    corrections: int | None = None
    t_end: float | None = None
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral", "none"] | None = None
    corrector: Literal["langevin", "ald", "none"] | None = None

    def build(self) -> Sampler:
        """The sampler asked for. Raises UserError for options that are another sampler's."""
        from ..samplers import ODE, PC, Fast
        from ..song2021_sampler import Song2021PC

        given: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sampler"}
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in _TAKES[self.sampler]:
                takers = " or ".join(sampler for sampler, names in _TAKES.items() if name in names)
                takes = ", ".join(map(_option, _TAKES[self.sampler]))
                raise UserError(f"{_option(name)}: is for --sampler {takers}; --sampler {self.sampler} takes {takes}")
        try:
            if self.sampler == "ode":
                tolerance = given.pop("tolerance", None)
                return ODE(**given) if tolerance is None else ODE(rtol=tolerance, atol=tolerance, **given)
            if self.sampler == "pc":
                return PC(**given)
            if self.sampler == "song2021":
                return Song2021PC(**given)
            order, solver = given.pop("order", None), given.pop("solver", None)
            if solver is not None or order is not None:
                given["solver"] = _solver(solver or "AngularAdams", order)
            return Fast(**given)
        except (ValueError, TypeError) as problem:
            raise UserError(f"--sampler {self.sampler}: {problem}") from None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _solver(name: str, order: int | None) -> Solver:
    from sdekit.solvers import SAMPLERS

    from ..recipes.codec import suggest

    kinds = {type(solver).__name__: type(solver) for solver in SAMPLERS}
    if name not in kinds:
        raise UserError(f"--solver: there is no {name}; {suggest(name, kinds)}")
    if order is not None and "order" not in getattr(kinds[name], "__dataclass_fields__", {}):
        raise UserError(f"--order: {name} comes in one order only")
    return kinds[name]() if order is None else kinds[name](order=order)
