"""Problems whose functions break on purpose, for every solver and sampler: what the fault tests solve.

A `Fault` spoils what a function returns for one sample: with NaN or an infinity, from a chosen call on, or at that call
only. A `Case` makes a problem for one solver, given the functions' fault.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sdekit as sk
from sdekit.solvers import ALL, SAMPLERS

VALUES = (math.nan, math.inf, -math.inf)
SHAPES = ((3,), (2, 4, 4))
COUNT = 5  # samples


@dataclass
class Fault:
    """Puts `value` in place of one number of `sample`, when `where` is called for the `call`-th time (and after it)."""

    where: str
    value: float = math.nan
    sample: int = 2
    call: int = 0
    lasting: bool = True
    calls: dict[str, int] = field(default_factory=dict)

    def spoil(self, name: str, value: Tensor) -> Tensor:
        """What the function of this name returns."""
        number = self.calls.get(name, 0)
        self.calls[name] = number + 1
        if name != self.where or number < self.call or (number > self.call and not self.lasting):
            return value
        spoiled = value.clone()
        spoiled[self.sample].view(-1)[-1] = self.value
        return spoiled


NOTHING = "nothing"  # the place of a fault that never comes


class Solve(NamedTuple):
    """What `sdekit.solve` is given."""

    sde: Any
    x0: Tensor
    t0: float
    t1: float


@dataclass(frozen=True)
class Case:
    """A solver on a problem that fits it.  places: the functions that can break.  make: the problem, given the fault."""

    name: str
    solver: Any
    places: tuple[str, ...]
    make: Callable[[Fault, tuple[int, ...], torch.dtype], Solve]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of states that it takes: areas are between the motions of a list."""
        return SHAPES[:1] if self.solver.levy is sk.Levy.AREA else SHAPES

    @property
    def adapts(self) -> bool:
        """Whether the solver's steps can be chosen by its error."""
        return (
            sk.protocols.error_order(self.solver, self.make(Fault(NOTHING), (3,), torch.float64).sde.noise) is not None
        )

    def run(self, fault: Fault, shape: tuple[int, ...], dtype: torch.dtype, steps: Any, **more: Any) -> sk.Solution:
        """The solve, which returns whatever failed."""
        return sk.solve(
            *self.make(fault, shape, dtype), solver=self.solver, steps=steps, seed=4, on_failure="return", **more
        )


def start(shape: tuple[int, ...], dtype: torch.dtype, count: int = COUNT) -> Tensor:
    """States of order one, all different."""
    size = count * math.prod(shape)
    return (0.4 + 0.5 * torch.sin(torch.arange(1.0, size + 1, dtype=torch.float64))).reshape(count, *shape).to(dtype)


def _drift(t: Tensor, x: Tensor) -> Tensor:
    return torch.sin(2 * x) - x * (1 + t)


def _columns(x: Tensor, noise: sk.Noise) -> Tensor:
    """Columns of G for two motions, or one."""
    if noise is sk.Noise.SCALAR:
        return (0.3 * x)[..., None]
    if noise is sk.Noise.COMMUTATIVE:
        return torch.stack((0.3 * x, 0.1 * x), -1)
    return torch.stack((0.3 * torch.sin(x), 0.2 * torch.cos(x)), -1)


def _equation(noise: sk.Noise, calculus: sk.Calculus | None) -> Callable[..., Solve]:
    def make(fault: Fault, shape: tuple[int, ...], dtype: torch.dtype) -> Solve:
        def drift(t: Tensor, x: Tensor) -> Tensor:
            return fault.spoil("drift", _drift(t, x))

        def diffusion(t: Tensor, x: Tensor) -> Any:
            if noise is sk.Noise.ADDITIVE:
                return fault.spoil("diffusion", (0.3 + 0.1 * t) * torch.ones_like(x))
            if noise is sk.Noise.DIAGONAL:
                return fault.spoil("diffusion", 0.3 * torch.cos(x))
            return sk.Dense(fault.spoil("diffusion", _columns(x, noise)))

        x0 = start(shape, dtype)
        if noise is sk.Noise.NONE:
            return Solve(sk.ODE(drift), x0, 0.0, 1.0)
        kind = sk.StratonovichSDE if calculus is sk.Calculus.STRATONOVICH else sk.ItoSDE
        return Solve(kind(drift, diffusion, noise), x0, 0.0, 1.0)

    return make


def _langevin(fault: Fault, shape: tuple[int, ...], dtype: torch.dtype) -> Solve:
    sde = sk.UnderdampedLangevin(lambda x: fault.spoil("gradient", x**3 - x))
    x = start(shape, dtype)
    return Solve(sde, torch.stack((x, torch.zeros_like(x)), dim=1), 0.0, 1.0)


def _semilinear(fault: Fault, shape: tuple[int, ...], dtype: torch.dtype) -> Solve:
    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        return fault.spoil("diffusion", 0.3 * torch.ones_like(x))

    sde = sk.Semilinear(-1.0, lambda t, x: fault.spoil("drift", torch.sin(x)), diffusion, sk.Noise.ADDITIVE)
    return Solve(sde, start(shape, dtype), 0.0, 1.0)


def _reversal(process: Any, churn: float) -> Callable[..., Solve]:
    def make(fault: Fault, shape: tuple[int, ...], dtype: torch.dtype) -> Solve:
        def score(t: Tensor, x: Tensor) -> Tensor:
            spread = process.scale(t) ** 2 * 0.25 + process.std(t) ** 2
            return fault.spoil("score", -x / spread)

        sde = sk.reverse(process, score, churn) if churn else sk.probability_flow(process, score)
        x = process.prior_std() * start(shape, dtype)
        return Solve(sde, x, process.t_max, max(process.t_min, 0.05))

    return make


def _equations() -> Iterator[Case]:
    for kind in (*ALL, lambda: sk.Halving(sk.EulerMaruyama())):
        solver = kind()
        for noise in solver.orders:
            places = ("drift",) if noise is sk.Noise.NONE else ("drift", "diffusion")
            yield Case(f"{type(solver).__name__} {noise.value}", solver, places, _equation(noise, solver.calculus))
    for solver in (sk.BAOAB(), sk.QUICSORT()):
        yield Case(type(solver).__name__, solver, ("gradient",), _langevin)
    yield Case("ExponentialEuler", sk.ExponentialEuler(), ("drift", "diffusion"), _semilinear)


def _samplers() -> Iterator[Case]:
    fast = [(solver, process) for solver in SAMPLERS for process in (sk.VP(),)]
    paper = [
        (solver, process)
        for solver, process in itertools.product(
            (
                sk.EulerMaruyama(),
                sk.ReverseDiffusion(),
                sk.Ancestral(),
                sk.PredictorCorrector(sk.ReverseDiffusion(), sk.Langevin(snr=0.16)),
                sk.PredictorCorrector(sk.Ancestral(), sk.Langevin(snr=0.16, steps=2), order="pc"),
                sk.PredictorCorrector(None, sk.Langevin(snr=0.16)),
            ),
            (sk.VE(t_min=0.05), sk.SubVP()),
        )
    ]
    for solver, process in fast + paper:
        for churn in (0.0, 1.0):
            noise = sk.Noise.ADDITIVE if churn else sk.Noise.NONE
            if noise in solver.orders:
                name = f"{solver} {type(process).__name__} churn {churn:g}"
                yield Case(name, solver, ("score",), _reversal(process, churn))
    yield Case("Restart", sk.Restart(sk.DPMSolverPP(2), 0.1, 1.0), ("score",), _reversal(sk.VP(), 0.0))


CASES = (*_equations(), *_samplers())
# the last case of every solver: the widest noise it takes
EACH_SOLVER = tuple({repr(case.solver): case for case in CASES}.values())
