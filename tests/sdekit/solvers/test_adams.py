"""Adams methods: polynomials exactly, one evaluation a step, samples that do not see one another.

Fitted orders are in `test_orders`, for every listed solver.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from sdekit.protocols import Noise
from sdekit.sdes.functions import ODE
from sdekit.solve import solve
from sdekit.solvers import Adams
from sdekit.steps import Adaptive, FixedSteps, TimeGrid

GROWTH = ODE(lambda t, x: torch.cos(t) * x)  # x = x0 e^(sin t)
STARTS = torch.tensor([[1.0, -2.0], [0.3, 0.0], [5.0, 1.0]], dtype=torch.float64)


def exact(x0: Tensor, t0: float, t1: float) -> Tensor:
    return x0 * math.exp(math.sin(t1) - math.sin(t0))


@pytest.mark.parametrize("order", range(2, 8))
def test_polynomials_are_integrated_exactly_on_any_grid(order: int) -> None:
    # the first inner step knows two slopes, so that it is exact to degree 1; later steps to degree p
    ramp = ODE(lambda t, x: 1.0 + 2.0 * t + 0.0 * x)
    grid = [0.0, 0.1, 0.4, 0.5, 1.1, 1.2, 2.0]
    found = solve(ramp, STARTS, 0.0, 2.0, solver=Adams(order), steps=TimeGrid(grid)).x
    assert torch.allclose(found, STARTS + 6.0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 3.0), (3.0, 0.0)])
def test_every_order_shows(order: int, t0: float, t1: float) -> None:
    steps = (40, 80, 160)
    errors = [
        float(
            (solve(GROWTH, STARTS, t0, t1, solver=Adams(order), steps=FixedSteps(n)).x - exact(STARTS, t0, t1))
            .abs()
            .max()
        )
        for n in steps
    ]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(slopes) > Adams(order).orders[Noise.NONE].strong - 0.15, errors


def test_a_step_costs_one_evaluation_and_the_start_a_few() -> None:
    sol = solve(GROWTH, STARTS, 0.0, 3.0, solver=Adams(5), steps=FixedSteps(30))
    assert sol.stats.drift_calls == 1 + (5 + 2) + 29


def test_adaptive_steps_keep_samples_apart_and_meet_their_tolerance() -> None:
    control = Adaptive(rtol=1e-8, atol=1e-8)
    rate = torch.tensor([[1.0], [3.0], [0.2]], dtype=torch.float64)

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return torch.cos(rate[: len(x)] * t) * x if len(x) > 1 else torch.cos(rate[1:2] * t) * x

    together = solve(ODE(drift), STARTS, 0.0, 5.0, solver=Adams(), steps=control)
    alone = solve(ODE(drift), STARTS[1:2], 0.0, 5.0, solver=Adams(), steps=control)
    assert torch.allclose(together.x[1:2], alone.x, rtol=1e-13, atol=1e-13)
    assert int(together.stats.accepted[1]) == int(alone.stats.accepted[0])
    truth = STARTS * torch.exp(torch.sin(rate * 5.0) / rate)
    assert ((together.x - truth).abs() < 3e-6 * (1 + truth.abs())).all()


def test_a_jump_of_the_drift_is_not_remembered_across() -> None:
    switch = ODE(lambda t, x: torch.where(t < 1.0, 1.0, -2.0) * torch.ones_like(x))
    found = solve(switch, STARTS, 0.0, 2.0, solver=Adams(), steps=Adaptive(rtol=1e-6, atol=1e-6, jump_times=[1.0]))
    assert torch.allclose(found.x, STARTS - 1.0, rtol=0, atol=1e-12)


def test_float32_images_stay_float32() -> None:
    x = torch.ones(2, 3, 4, 4)
    found = solve(GROWTH, x, 0.0, 1.0, solver=Adams(), steps=FixedSteps(20)).x
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact(x, 0.0, 1.0), rtol=2e-6)


@pytest.mark.parametrize("order", [1, 8, 2.5, True])
def test_an_order_out_of_range_is_an_error(order) -> None:
    with pytest.raises(ValueError, match="Adams: order must be an integer from 2 to 7"):
        Adams(order)
