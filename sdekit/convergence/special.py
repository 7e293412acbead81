"""Problems in the forms that some solvers ask for: Langevin dynamics, affine processes, semilinear SDEs.

`problems_for(solver, noise)` lists what a solver can be tried on, `posed(sde, solver)` is the SDE in the solver's form,
and `step_numbers` are those at which an order shows.

Notation: s, σ scale and noise level of an affine process, std = s σ; data N(m, v), so that x(t) ~ N(s m, V) with
V = s² v + std².
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from ..analytic import GaussianData
from ..protocols import SDE, Calculus, Noise, Solver
from ..scores import probability_flow, reverse
from ..sdes import VP, RectifiedFlow
from ..sdes.potentials import UnderdampedLangevin
from ..sdes.process import DiffusionProcess
from ..sdes.semilinear import Semilinear
from ..solvers import BAOAB, QUICSORT, SAMPLERS, ExponentialEuler
from .path import RecordedPath
from .problem import Moment, Problem
from .problems import Twins, problems


def _position_square(x: Tensor) -> Tensor:
    return x[:, 0].flatten(1).square().sum(1)


def harmonic_langevin(gamma: float = 1.2, u: float = 0.8, stiffness: float = 2.0) -> Problem:
    """Linear force: dx = v dt, dv = (−γv − ukx) dt + √(2γu) dW; e^(At) of the 2 × 2 system gives the solution."""
    a = torch.tensor([[0.0, 1.0], [-u * stiffness, -gamma]], dtype=torch.float64)
    size = math.sqrt(2 * gamma * u)

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        moved = torch.einsum("ij,bjd->bid", torch.matrix_exp(a * s), x)
        noise = [
            path.integral(lambda r, i=i: torch.matrix_exp(a * (s - r)[:, None, None])[:, i, 1], s)[:, 1] for i in (0, 1)
        ]
        return moved + size * torch.stack(noise, dim=1)

    return Problem(
        "Langevin, harmonic",
        UnderdampedLangevin(gradient=lambda x: stiffness * x, gamma=gamma, u=u),
        ((1.0,), (-0.5,)),
        0.0,
        1.0,
        exact,
        refine=4,
        moment=Moment(_position_square),
        one_way=True,
    )


def double_well_langevin(gamma: float = 1.2, u: float = 0.8) -> Problem:
    """Langevin dynamics in U = x⁴/4 − x²/2; a fine solution is the truth."""
    return Problem(
        "Langevin, double well",
        UnderdampedLangevin(gradient=lambda x: x**3 - x, gamma=gamma, u=u),
        ((0.5,), (1.0,)),
        0.0,
        1.0,
        None,
        refine=8,
        one_way=True,
    )


_MEAN, _STD = torch.tensor([1.0, -0.5], dtype=torch.float64), 0.6


def _law(process: DiffusionProcess, t: float) -> tuple[float, float, float]:
    """(s, V, σ²) at t."""
    s, std, sigma = (float(f(t)) for f in (process.scale, process.std, process.sigma))
    return s, (s * _STD) ** 2 + std**2, sigma**2


def gaussian_flow(process: DiffusionProcess, t0: float, t1: float) -> Problem:
    """Probability flow of Gaussian data: (x − s m)/√V is constant along it."""

    def exact(path: RecordedPath, x: Tensor, elapsed: float) -> Tensor:
        t = t0 + math.copysign(elapsed, t1 - t0)
        (s0, v0, _), (s, v, _) = _law(process, t0), _law(process, t)
        return s * _MEAN + math.sqrt(v / v0) * (x - s0 * _MEAN)

    flow = probability_flow(process, GaussianData(mean=_MEAN, std=_STD).score(process))
    name = f"flow of {type(process).__name__}, {'backward' if t1 < t0 else 'forward'}"
    return Problem(name, flow, (0.4, 1.3), t0, t1, exact, autonomous=False, one_way=True)


def gaussian_reverse(process: DiffusionProcess, t0: float, t1: float) -> Problem:
    """Reverse SDE of Gaussian data, t0 > t1: linear, with Φ(a → t) = √(V(t)/V(a)) √((v + σ²(t))/(v + σ²(a))) and

    X(t) = s m + Φ(t0 → t)(x0 − s(t0) m) + ∫ Φ(r → t) g(r) dW(r).
    """
    sde = reverse(process, GaussianData(mean=_MEAN, std=_STD).score(process))
    one = torch.ones((1, 2), dtype=torch.float64)

    def carried(a: float, t: float) -> float:
        (_, va, na), (_, vt, nt) = _law(process, a), _law(process, t)
        return math.sqrt(vt / va * (_STD**2 + nt) / (_STD**2 + na))

    def exact(path: RecordedPath, x: Tensor, elapsed: float) -> Tensor:
        t = t0 - elapsed
        s0, s = _law(process, t0)[0], _law(process, t)[0]

        def weight(r: Tensor) -> Tensor:
            times = [t0 - float(e) for e in r]
            noise = [float((process.diffusion(torch.tensor(a, dtype=torch.float64), one) * one)[0, 0]) for a in times]
            return torch.tensor([carried(a, t) * g for a, g in zip(times, noise, strict=True)], dtype=torch.float64)

        return s * _MEAN + carried(t0, t) * (x - s0 * _MEAN) + path.integral(weight, elapsed)

    def mean(elapsed: float) -> float:
        (s0, v0, _), (s, v, _) = _law(process, t0), _law(process, t0 - elapsed)
        start = s * float(_MEAN[0]) + carried(t0, t0 - elapsed) * (0.4 - s0 * float(_MEAN[0]))
        return start**2 + v - carried(t0, t0 - elapsed) ** 2 * v0

    name = f"reverse of {type(process).__name__}"
    moment = Moment(lambda x: x[:, 0].square(), mean)
    return Problem(name, sde, (0.4, 1.3), t0, t1, exact, autonomous=False, one_way=True, moment=moment)


def _affine(noise: Noise) -> Twins:
    if noise is Noise.NONE:
        spans = ((VP(), 0.8, 0.2), (RectifiedFlow(), 0.9, 0.2))
        return tuple(gaussian_flow(p, *ends) for p, a, b in spans for ends in ((a, b), (b, a)))
    return gaussian_reverse(VP(), 0.8, 0.2), gaussian_reverse(RectifiedFlow(), 0.9, 0.2)


def problems_for(solver: Solver, noise: Noise, weak: bool = False) -> Twins:
    """The strong (or weak) problems with this noise, in a form and calculus that the solver takes."""
    if isinstance(solver, (BAOAB, QUICSORT)):
        return (harmonic_langevin(),) if weak else (harmonic_langevin(), double_well_langevin())
    if type(solver) in {type(s) for s in SAMPLERS}:
        return _affine(noise)
    return problems(noise, solver.calculus or Calculus.ITO, weak)


# the fifth order and above reach rounding on grids that a first-order method has yet to resolve
_ODE_STEPS = {1: (64, 128, 256), 3: (16, 32, 64, 128), 5: (16, 32, 64, 128), 8: (10, 12, 16, 20)}


def step_numbers(problem: Problem, order: float, levels: int | None = None) -> tuple[int, ...]:
    """Numbers of steps at which a strong order shows: enough for its asymptotics, not so many as to meet rounding.

    levels: how many numbers for an SDE, each twice the one before; more of them cost more and measure better.
    """
    if problem.one_way and problem.noise is Noise.NONE:
        # multistep methods need a long run beside their start
        return (32, 64, 128, 256)
    if problem.noise is Noise.NONE:
        return _ODE_STEPS[max(k for k in _ODE_STEPS if k <= order)]
    # methods of order 1.5 settle later between steps, where a side step is as long as any
    first = 8 if problem.refine > 4 else 16 if order <= 1.0 else 32
    count = levels or (3 if order <= 1.0 and problem.refine == 1 else 4)
    return tuple(first << k for k in range(count))


def posed(sde: SDE, solver: Solver) -> SDE:
    """The SDE as the solver takes it: with a linear part split off for `ExponentialEuler`, else as it is."""
    if not isinstance(solver, ExponentialEuler):
        return sde
    rate = -0.7 * int(sde.direction)

    def rest(t: Tensor, x: Tensor) -> Any:
        return sde.drift(t, x) - rate * x

    diffusion = None if sde.noise is Noise.NONE else sde.diffusion
    # the diffusion of an ODE is None, and never asked for
    return cast(SDE, Semilinear(rate, rest, diffusion, sde.noise, sde.direction))
