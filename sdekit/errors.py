"""What can go wrong, by name. Errors of use are `ValueError`s that say what to do instead."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .solution import Solution


class Status(IntEnum):
    """How the solve ended for one sample."""

    OK = 0
    EVENT = 1  # stopped by a terminal event, as asked
    NONFINITE = 2  # the state became NaN or infinite
    MAX_STEPS = 3  # the step budget was spent before t1
    STEP_TOO_SMALL = 4  # the error stayed too large at the smallest step


class Incompatible(ValueError):
    """Objects that do not fit together: a solver and an SDE, a control and a solver."""


class SolveFailed(RuntimeError):
    """Some samples did not reach t1. Raised once all samples have finished; `solution` holds everything computed."""

    solution: Solution

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution
