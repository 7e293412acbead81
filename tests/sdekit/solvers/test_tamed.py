"""Tamed Euler keeps the orders of Euler–Maruyama, and survives drifts that blow it up."""

import pytest
import torch

from sdekit.convergence import Experiment, fit_order, problems
from sdekit.protocols import Calculus, Increment, Noise, Order, Span
from sdekit.sdes import ItoSDE
from sdekit.solve import solve
from sdekit.solvers import EulerMaruyama, TamedEuler
from sdekit.steps import FixedSteps


@pytest.mark.parametrize("noise", [Noise.ADDITIVE, Noise.DIAGONAL, Noise.SCALAR, Noise.COMMUTATIVE])
def test_the_orders_are_those_claimed(noise):
    claim: Order = TamedEuler().orders[noise]
    for problem in problems(noise, Calculus.ITO)[:3]:
        experiment = Experiment.of(
            problem, (16, 32, 64), batch=400, save_times=[0.437 * problem.length, 0.893 * problem.length]
        )
        for e in (experiment, experiment.reflected()):
            errors = e.strong_errors(TamedEuler())
            assert fit_order(errors).order > claim.strong - 0.15, e.problem.name
            assert fit_order(errors.between()).order > claim.strong - 0.15, e.problem.name


@pytest.mark.parametrize("noise", [Noise.ADDITIVE, Noise.DIAGONAL])
def test_a_cubic_drift_that_blows_euler_up_is_tamed(noise):
    sde = ItoSDE(lambda t, x: -(x**3), lambda t, x: torch.ones_like(x) if noise is Noise.ADDITIVE else x, noise)
    x0 = torch.full((200, 1), 12.0)
    exploded = solve(sde, x0, 0.0, 2.0, solver=EulerMaruyama(), steps=FixedSteps(64), seed=1, on_failure="return")
    tamed = solve(sde, x0, 0.0, 2.0, solver=TamedEuler(), steps=FixedSteps(64), seed=1)
    assert not torch.isfinite(exploded.x).any()
    fine = solve(sde, x0, 0.0, 2.0, solver=EulerMaruyama(), steps=FixedSteps(4096), seed=1)
    # from far out it falls by at most 1 a step, then follows the law; standard errors are near 0.04
    assert abs(float(tamed.x.square().mean() - fine.x.square().mean())) < 0.25


def test_a_step_moves_by_less_than_one_and_by_the_norm_of_the_sample():
    sde = ItoSDE(lambda t, x: -100 * x**3, lambda t, x: 0 * x, Noise.ADDITIVE)
    x, t0 = torch.randn(5, 2, 3, 3) * 4, torch.tensor(0.0, dtype=torch.float64)
    new = TamedEuler().step(sde, Span(t0, t0 - 0.1, -0.1), x, Increment(torch.zeros_like(x)), None).x
    f = -100 * x**3
    norm = f.flatten(1).norm(dim=1).reshape(5, 1, 1, 1)
    torch.testing.assert_close(new, x - 0.1 * f / (1 + 0.1 * norm))
    assert float((new - x).flatten(1).norm(dim=1).max()) < 1
