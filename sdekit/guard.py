"""Whether a solver fits an SDE, read off the orders that the solver carries; and what to use instead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import Incompatible
from .protocols import Calculus, Direction, Noise, Solver
from .solvers import ALL


def suggestion(noise: Noise, calculus: Calculus) -> str:
    """The first listed solver for this noise and calculus, as one would type it."""
    fitting = [
        kind
        for kind in ALL
        if noise in kind.orders and (kind.calculus in (None, calculus) or noise in (Noise.NONE, Noise.ADDITIVE))
    ]
    if not fitting:
        return "no listed solver fits; convert the SDE with to_ito or to_stratonovich"
    return f"Use {fitting[0].__name__}()."


def check_fit(sde: Any, solver: Solver, t0: Tensor, t1: Tensor, path_given: bool) -> None:
    """Raise Incompatible where solver, SDE and direction of travel do not fit."""
    name = type(solver).__name__
    if not hasattr(solver, "step") or not hasattr(solver, "orders"):
        hint = f"; did you mean {solver.__name__}()?" if isinstance(solver, type) else ""
        raise TypeError(f"solver: expected a Solver such as EulerMaruyama(), got {solver!r}{hint}")
    if isinstance(solver, type):
        raise TypeError(f"solver: expected an instance, got the class; write {solver.__name__}()")
    noise, calculus = sde.noise, sde.calculus
    if noise not in solver.orders:
        handled = ", ".join(kind.value for kind in solver.orders if kind is not Noise.NONE) or "no"
        raise Incompatible(f"{name} handles {handled} noise; this SDE declares {noise.name}. {suggestion(noise, calculus)}")
    # ODEs and additive noise mean the same in both calculi
    read_as = solver.calculus
    if read_as is not None and read_as is not calculus and noise not in (Noise.NONE, Noise.ADDITIVE):
        convert = "to_ito" if read_as is Calculus.ITO else "to_stratonovich"
        raise Incompatible(
            f"{name} solves {read_as.value} SDEs; this one is read as {calculus.value}. "
            f"{suggestion(noise, calculus)} Or convert it with {convert}(sde)."
        )
    forward = bool((torch.as_tensor(t1).detach() > torch.as_tensor(t0).detach()).any())
    backward = bool((torch.as_tensor(t1).detach() < torch.as_tensor(t0).detach()).any())
    travel = Direction.FORWARD if forward else Direction.BACKWARD
    if noise is Noise.NONE or not (forward or backward) or travel is sde.direction:
        return
    runs_back = path_given and (calculus is Calculus.STRATONOVICH or noise is Noise.ADDITIVE)
    if not runs_back:
        raise Incompatible(
            f"this SDE's law runs {sde.direction.name.lower()} in time, and solve was asked to go {travel.name.lower()}. "
            "To reverse the law use reverse(sde, score); to run a path back on the same noise, give the path and a "
            "Stratonovich SDE: solve(to_stratonovich(sde), …, path=tree)."
        )
