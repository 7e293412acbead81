"""What is asked of the arguments of a solve, and whether they fit one another.

Whether a solver fits an SDE is read off the orders that the solver carries, as is what to use instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .arguments import check_has
from .errors import Incompatible
from .protocols import Calculus, Direction, Noise, Solver, as_time
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
        raise Incompatible(
            f"{name} handles {handled} noise; this SDE declares {noise.name}. {suggestion(noise, calculus)}"
        )
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


def check_objects(steps: object, save: object, path: object, event: object, gradient: object, progress: object) -> None:
    """Raise TypeError for an argument of `solve` that is not what it should be."""
    check_has("steps", steps, ("adaptive", "begin"), "a control such as FixedSteps(100) or Adaptive(rtol=…, atol=…)")
    if save is not None:
        check_has("save", save, ("times", "every", "fn", "dense"), "SaveAt(times=[…]) or SaveAt(every=n)")
    if path is not None:
        check_has("path", path, ("increment",), "a Brownian path such as BrownianTree(…)")
    if event is not None:
        check_has("event", event, ("condition", "rising", "iterations"), "Event(condition)")
    if gradient is not None:
        check_has("gradient", gradient, ("march",), "Checkpointed() or ReversibleAdjoint()")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function of the fraction done, got {progress!r}")


def check_times(t0: float | Tensor, t1: float | Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Both ends as float64 tensors, 0-d or `(B,)`. Raises TypeError or ValueError for what cannot be the ends of a solve."""
    times: list[Tensor] = []
    for name, t in (("t0", t0), ("t1", t1)):
        try:
            time = as_time(t)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}: expected a time, a float or a 0-d or (B,) tensor, got {t!r}") from error
        if time.ndim > 1 or (time.ndim == 1 and len(time) != len(x0)):
            raise ValueError(f"{name}: expected a float, 0-d or ({len(x0)},) tensor, got shape {tuple(time.shape)}")
        if not bool((time.detach().abs() <= torch.finfo(x0.dtype).max).all()):
            raise ValueError(f"{name} must be finite in {x0.dtype}, got {t!r}")
        times.append(time.to(x0.device) if time.ndim else time)
    signs = torch.sign(times[1].detach() - times[0].detach())
    if bool((signs > 0).any()) and bool((signs < 0).any()):
        raise ValueError(
            "t0 and t1: all samples must travel in the same direction of time; solve the two groups apart, got "
            f"t0 = {times[0].tolist()} and t1 = {times[1].tolist()}"
        )
    return times[0], times[1]
