"""Solves compiled by torch: several fixed steps fused into one graph, with the noise made where it is used.

    solve(…, compile=True)

What goes into a graph is the solver's own `step`, over and over, with the increments of the path. Fresh increments are made
from their keys inside the graph, so that neither they nor the states between steps go through memory. Other paths are
asked step by step, and their increments enter as they are. The numbers are those of the plain loop, to rounding.

Steps that do not fill a graph are made by the plain loop, as is everything where no graph can be made: for want of a C++
compiler, or of a function that torch can trace. A warning says so, once.

A graph belongs to an SDE, a solver and a number of steps, and is kept for the next solve with the same objects; torch
keeps what it has compiled on disk too, for the next process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Incompatible
from .adaptive import march_adaptive
from .fixed import FixedMarch

if TYPE_CHECKING:
    from ..solve import Run


def march(run: Run) -> None:
    """Take a run to its end through graphs. Raises Incompatible where it looks for events or keeps interpolants."""
    if run.watch is not None:
        raise Incompatible("compile=True does not look for events: leave out compile, or the event")
    if run.recorder is not None and run.recorder.dense is not None:
        raise Incompatible(
            "compile=True keeps no interpolants: leave out compile, or ask for times instead of dense=True"
        )
    if hasattr(run.pace, "ahead"):
        FixedMarch(run).go()
    elif hasattr(run.pace, "controller"):
        march_adaptive(run)
    run.go()
