"""Reversible Heun: orders, and steps that are undone to rounding."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit.brownian import FreshIncrements
from sdekit.convergence import fit_order, problems, reflected, strong_errors
from sdekit.protocols import Calculus, Dense, Noise, Span
from sdekit.random import KeyedDraws
from sdekit.sdes.functions import ODE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers.reversible import ReversibleHeun
from sdekit.steps import Adaptive, FixedSteps

SOLVER = ReversibleHeun()


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("noise", list(SOLVER.orders), ids=lambda n: n.name)
def test_the_claimed_orders_are_measured(noise: Noise, backward: bool) -> None:
    listed = problems(noise, Calculus.STRATONOVICH)
    for problem in (listed[0], next(p for p in listed if not p.autonomous)):
        steps, batch = ((32, 64, 128), 1) if noise is Noise.NONE else ((8, 16, 32, 64), 200)
        errors = strong_errors(reflected(problem) if backward else problem, SOLVER, steps, batch, seed=4)
        assert fit_order(errors).order > SOLVER.orders[noise].strong - 0.15, problem.name


def _matrix(t: Tensor, x: Tensor) -> Dense:
    return Dense(torch.stack((torch.sin(x) + t, torch.cos(x.flip(1)), 0.3 * x), dim=-1))


EQUATIONS: dict[str, Any] = {
    "none": ODE(lambda t, x: torch.sin(3 * x) - t * x),
    "element-wise": StratonovichSDE(lambda t, x: -x * t, lambda t, x: torch.sin(x + t), Noise.DIAGONAL),
    "one number": StratonovichSDE(lambda t, x: -x, lambda t, x: 1 + 0.5 * t.to(x.dtype), Noise.ADDITIVE),
    "matrix": StratonovichSDE(lambda t, x: -x, _matrix, Noise.GENERAL),
}


@pytest.mark.parametrize("way", [1.0, -1.0])
@pytest.mark.parametrize("name", EQUATIONS)
def test_steps_are_undone_to_rounding(name: str, way: float) -> None:
    sde, n = EQUATIONS[name], 200
    x0 = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
    like = x0.new_empty(6, 3) if name == "matrix" else x0
    path = None if name == "none" else FreshIncrements(KeyedDraws(7))
    times = [torch.tensor(way * i / n, dtype=torch.float64) for i in range(n + 1)]
    spans = [Span(a, b, float(b - a), i) for i, (a, b) in enumerate(itertools.pairwise(times))]
    noise = [None if path is None else path.increment(span, like, SOLVER.levy) for span in spans]
    x, state = x0, SOLVER.init(sde, times[0], x0)
    for span, dw in zip(spans, noise, strict=True):
        step = SOLVER.step(sde, span, x, dw, state)
        x, state = step.x, step.state
    far = float((x - x0).abs().max())
    for span, dw in zip(reversed(spans), reversed(noise), strict=True):
        x, state = SOLVER.undo(sde, span, x, dw, state)
    assert far > 0.1
    assert torch.allclose(x, x0, atol=1e-11)
    for found, first in zip(state, SOLVER.init(sde, times[0], x0), strict=True):
        assert torch.allclose(found, first, atol=1e-10)


def test_one_evaluation_a_step() -> None:
    stats = solve(EQUATIONS["matrix"], torch.ones(2, 2), 0.0, 1.0, solver=SOLVER, steps=FixedSteps(10)).stats
    assert (stats.drift_calls, stats.diffusion_calls) == (11, 11)


def test_the_estimate_drives_adaptive_steps_and_rejected_steps_restore_the_memory() -> None:
    # the first step is much too long
    ode, x0 = ODE(lambda t, x: torch.cos(5 * t) * x), torch.tensor([[1.0], [0.1]], dtype=torch.float64)
    steps = Adaptive(rtol=1e-4, atol=1e-6, first_step=1.0)
    found = solve(ode, x0, 0.0, 2.0, solver=SOLVER, steps=steps)
    assert int(found.stats.rejected.min()) > 0
    assert torch.allclose(found.x, x0 * math.exp(math.sin(10.0) / 5), rtol=1e-3)
    alone = solve(ode, x0[1:], 0.0, 2.0, solver=SOLVER, steps=steps)
    assert torch.equal(found.x[1:], alone.x)
