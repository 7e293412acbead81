"""What a convergence study is about: an SDE, its starting point, and what is known of its solution.

Times are *elapsed* (see `path`), so that a problem and its mirror image in time share one exact solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..protocols import SDE, Calculus, Dense, Diffusion, Direction, Noise
from ..sdes import ODE, ItoSDE, StratonovichSDE
from .path import RecordedPath

Exact = Callable[[RecordedPath, Tensor, float], Tensor]
"""`(path, x0, elapsed time) -> x`, the solution along the path; the path is ignored by ODEs."""


@dataclass(frozen=True)
class Moment:
    """A test function φ whose expectation is known.

    of: `x -> φ(x)`, `(B,)`.  mean: elapsed time -> E φ(X), None where only the exact solution knows it.
    control: `(path, x0, elapsed time) -> (B,)`, a variable with mean `mean`, on the path: φ of the exact solution.
    """

    of: Callable[[Tensor], Tensor]
    mean: Callable[[float], float] | None = None
    control: Exact | None = None


@dataclass(frozen=True)
class Problem:
    """A test problem on the elapsed time [0, |t1 − t0|].

    sde: the equation.  start: one sample's initial state, nested tuples of floats.  t0, t1: begin and end of the solve.
    exact: the solution along a path, None where only a fine numerical solution on the same path is known.
    refine: cells that the path needs within the finest step (more than 1 where the solution feels the Lévy area).
    moment: a test function for weak errors.  autonomous: whether the equation leaves t alone.  reference: where from.
    reads_alike: Itô and Stratonovich readings agree although the noise depends on the state.
    one_way: the equation has a form that its mirror image lacks, so it is solved in one direction only.
    """

    name: str
    sde: SDE
    start: tuple[Any, ...]
    t0: float
    t1: float
    exact: Exact | None
    reference: str = ""
    refine: int = 1
    moment: Moment | None = None
    autonomous: bool = True
    reads_alike: bool = False
    one_way: bool = False

    @property
    def noise(self) -> Noise:
        return self.sde.noise

    @property
    def calculus(self) -> Calculus:
        return self.sde.calculus

    @property
    def direction(self) -> Direction:
        return Direction.FORWARD if self.t1 >= self.t0 else Direction.BACKWARD

    @property
    def length(self) -> float:
        """|t1 − t0|."""
        return abs(self.t1 - self.t0)

    def x0(self, batch: int) -> Tensor:
        """The initial state of `batch` samples, float64."""
        one = torch.tensor(self.start, dtype=torch.float64)
        return one.expand(batch, *one.shape).clone()

    def noise_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the driving noise; () for an ODE."""
        if self.noise is Noise.NONE:
            return ()
        x = self.x0(1)
        g = self.sde.diffusion(torch.tensor(self.t0, dtype=torch.float64), x)
        if isinstance(g, Dense):
            return (batch, g.matrix.shape[-1])
        return (batch, *(1,) * (x.ndim - 1)) if self.noise is Noise.SCALAR else (batch, *x.shape[1:])


def reflected(problem: Problem) -> Problem:
    """The mirror image in time: the same solution, reached by travelling from t1 to t0.

    With s = t0 + t1 − t the equation `dx = f(t, x) dt + G(t, x) dW` becomes

        dx = −f(t0 + t1 − t, x) dt + G(t0 + t1 − t, x) dW,   t from t1 to t0,

    whose solution along a path taken in the direction of travel is the old one. Both calculi change alike.
    """
    whole, sde = problem.t0 + problem.t1, problem.sde

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return -sde.drift(whole - t, x)

    def diffusion(t: Tensor, x: Tensor) -> Diffusion:
        return sde.diffusion(whole - t, x)

    mirrored: SDE
    if problem.noise is Noise.NONE:
        mirrored = ODE(drift)
    else:
        kind = ItoSDE if problem.calculus is Calculus.ITO else StratonovichSDE
        mirrored = kind(drift, diffusion, problem.noise, Direction(-sde.direction))
    return replace(problem, name=f"{problem.name}, backward", sde=mirrored, t0=problem.t1, t1=problem.t0)
