"""Samplers as options of the command line: --sampler, and what each of them takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..errors import UserError

if TYPE_CHECKING:
    from sdekit.protocols import Solver

    from ..samplers import Sampler

_TAKES = {"pc": ("steps",), "ode": ("tolerance",), "fast": ("steps", "solver", "order", "churn")}


@Parameter(name="*")
@dataclass(frozen=True)
class SamplerOptions:
    """How images are made.

    Parameters
    ----------
    sampler
        pc (predictor–corrector), ode (probability flow, steps by error) or fast (few steps).
    steps
        Steps of pc [default: 500] or fast [default: 20].
    tolerance
        Tolerance of ode. [default: 1e-3]
    solver
        Solver of fast: AngularAdams, DPMSolverPP, UniPC, DEIS, DDIM, SEEDS, … [default: AngularAdams]
    order
        Order of that solver. [default: the solver's own]
    churn
        Noise of fast: 0 for the probability flow, 1 for the reverse SDE. [default: 0]
    """

    sampler: Literal["pc", "ode", "fast"] = "pc"
    steps: Annotated[int | None, Parameter()] = None
    tolerance: float | None = None
    solver: str | None = None
    order: int | None = None
    churn: float | None = None

    def build(self) -> Sampler:
        """The sampler asked for. Raises UserError for options that are another sampler's."""
        from ..samplers import ODE, PC, Fast

        given = {name: getattr(self, name) for name in ("steps", "tolerance", "solver", "order", "churn")}
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in _TAKES[self.sampler]:
                takers = " or ".join(sampler for sampler, names in _TAKES.items() if name in names)
                takes = ", ".join(f"--{other}" for other in _TAKES[self.sampler])
                raise UserError(f"--{name}: is for --sampler {takers}; --sampler {self.sampler} takes {takes}")
        try:
            if self.sampler == "ode":
                return ODE() if self.tolerance is None else ODE(rtol=self.tolerance, atol=self.tolerance)
            if self.sampler == "pc":
                return PC(**given)
            order, solver = given.pop("order", None), given.pop("solver", None)
            if solver is not None or order is not None:
                given["solver"] = _solver(solver or "AngularAdams", order)
            return Fast(**given)
        except (ValueError, TypeError) as problem:
            raise UserError(f"--sampler {self.sampler}: {problem}") from None


def _solver(name: str, order: int | None) -> Solver:
    from sdekit.solvers import SAMPLERS

    from ..recipes.codec import suggest

    kinds = {type(solver).__name__: type(solver) for solver in SAMPLERS}
    if name not in kinds:
        raise UserError(f"--solver: there is no {name}; {suggest(name, kinds)}")
    if order is not None and "order" not in getattr(kinds[name], "__dataclass_fields__", {}):
        raise UserError(f"--order: {name} comes in one order only")
    return kinds[name]() if order is None else kinds[name](order=order)
