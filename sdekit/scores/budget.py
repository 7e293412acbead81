"""How many steps a sampler takes within a number of score evaluations.

A step to σ = 0 may cost less than the others; the counts here are those of ordinary steps, so that no solve goes over.
"""

from __future__ import annotations

from typing import Any

from ..solvers.exponential_multistep import ExponentialAdams
from ..solvers.exponential_single import SEEDS, DPMSolver
from ..solvers.heun_samplers import EDMHeun, GottaGoFast
from .predictor_corrector import PredictorCorrector


def calls_per_step(solver: Any) -> int:
    """Calls of the score that one step takes."""
    if isinstance(solver, PredictorCorrector):
        return getattr(solver.corrector, "steps", 1) + (calls_per_step(solver.predictor) if solver.predictor else 0)
    if isinstance(solver, (DPMSolver, SEEDS)):
        return solver.order
    return 2 if isinstance(solver, (EDMHeun, GottaGoFast)) else 1


def steps_within(solver: Any, budget: int, stochastic: bool = False) -> int:
    """The most steps that keep within `budget` calls, 0 where none does.

    stochastic: for the reverse SDE, else for the probability flow.
    """
    once = isinstance(solver, ExponentialAdams) and not stochastic and solver.starting_calls
    return (budget - int(once)) // calls_per_step(solver)
