"""Flows of ours in odeint, and methods of torchdiffeq in solve, to closed forms."""

import math

import pytest
import torch
import torchdiffeq

from sdekit.errors import Incompatible, Status
from sdekit.interop import TorchdiffeqSolver, to_torchdiffeq
from sdekit.protocols import Noise
from sdekit.save import SaveAt
from sdekit.scores.reverse import probability_flow
from sdekit.sdes.diffusion import VP
from sdekit.sdes.functions import ODE, ItoSDE
from sdekit.solve import solve
from sdekit.steps import Adaptive, FixedSteps

DECAY = ODE(lambda t, x: -x + torch.cos(t))


def _exact(t):
    return (math.cos(t) + math.sin(t) - math.exp(-t)) / 2


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 4, 4)])
@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)])
def test_odeint_solves_our_ode(shape, span):
    y0 = torch.full(shape, _exact(span[0]), dtype=torch.float64)
    y = torchdiffeq.odeint(to_torchdiffeq(DECAY), y0, torch.tensor(span, dtype=torch.float64))
    torch.testing.assert_close(y[-1], torch.full(shape, _exact(span[1]), dtype=torch.float64), rtol=0, atol=1e-6)


def test_odeint_carries_a_gaussian_along_our_probability_flow():
    # data N(0, 0.25): p_t = N(0, s² 0.25 + std²), and the flow scales every point by the ratio of deviations
    process = VP()

    def deviation(t):
        return (process.scale(t) ** 2 * 0.25 + process.std(t) ** 2).sqrt()

    flow = probability_flow(process, lambda t, x: -x / deviation(t) ** 2)
    x = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
    times = torch.tensor([process.t_max, process.t_min], dtype=torch.float64)
    y = torchdiffeq.odeint(to_torchdiffeq(flow), x, times, rtol=1e-9, atol=1e-10)[-1]
    torch.testing.assert_close(y, x * deviation(process.t_min) / deviation(process.t_max), rtol=1e-6, atol=0)


def test_odeint_adjoint_finds_the_parameters():
    class Rate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(-0.5, dtype=torch.float64))

        def forward(self, t, x):
            return self.rate * x

    drift = Rate()
    func = to_torchdiffeq(ODE(drift))
    y = torchdiffeq.odeint_adjoint(func, torch.ones(2, 1, dtype=torch.float64), torch.tensor([0.0, 2.0]))
    y[-1].sum().backward()
    assert float(drift.rate.grad) == pytest.approx(2 * 2 * math.exp(-1.0), rel=1e-5)  # d/da e^{2a} = 2 e^{2a}


def test_only_odes_go_over():
    sde = ItoSDE(lambda t, x: -x, lambda t, x: x, Noise.DIAGONAL)
    with pytest.raises(Incompatible, match="probability_flow"):
        to_torchdiffeq(sde)
    with pytest.raises(TypeError, match=r"write ODE\(function\)"):
        to_torchdiffeq(lambda t, y: y)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)])
@pytest.mark.parametrize("back", [False, True])
def test_their_one_step_methods_have_their_orders_in_our_solve(method, order, back):
    t0, t1 = (2.0, 0.0) if back else (0.0, 2.0)
    errors = []
    for n in (16, 32, 64):
        x0 = torch.full((1, 1), _exact(t0), dtype=torch.float64)
        x = solve(DECAY, x0, t0, t1, solver=TorchdiffeqSolver(method), steps=FixedSteps(n)).x
        errors.append(abs(float(x) - _exact(t1)))
    assert math.log2(errors[0] / errors[2]) / 2 > order - 0.15
    assert TorchdiffeqSolver(method).orders[Noise.NONE].strong == order


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"])
def test_their_adaptive_methods_keep_their_tolerance_in_our_solve(method):
    x0 = torch.zeros(2, 2, dtype=torch.float64)
    solver = TorchdiffeqSolver(method, rtol=1e-6, atol=1e-7)
    sol = solve(DECAY, x0, 0.0, 2.0, solver=solver, steps=FixedSteps(2), save=SaveAt(times=[0.3, 1.0, 2.0]))
    exact = torch.tensor([_exact(t) for t in (0.3, 1.0, 2.0)], dtype=torch.float64)
    torch.testing.assert_close(sol.x, exact[:, None, None].expand(3, 2, 2), rtol=0, atol=5e-5)
    assert sol.stats.model_calls > 0


def test_every_sample_may_have_a_span_of_its_own():
    x0 = torch.ones(3, 1, dtype=torch.float64)
    t0, t1 = (torch.tensor(t, dtype=torch.float64) for t in ([0.0, 1.0, 2.0], [1.0, 3.0, 2.0]))
    sol = solve(ODE(lambda t, x: -t * x), x0, t0, t1, solver=TorchdiffeqSolver(), steps=FixedSteps(2))
    torch.testing.assert_close(sol.x[:, 0], torch.exp(-(t1**2 - t0**2) / 2), rtol=1e-5, atol=0)


def test_gradients_flow_through_their_methods():
    x0 = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    x = solve(ODE(lambda t, x: -x), x0, 0.0, 1.0, solver=TorchdiffeqSolver(), steps=FixedSteps(1)).x
    (gradient,) = torch.autograd.grad(x.sum(), x0)
    torch.testing.assert_close(gradient, torch.full((2, 1), math.exp(-1), dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_sample_that_they_give_up_leaves_the_others_whole():
    square = ODE(lambda t, x: x**2)  # the sample from 2 is infinite at t = 0.5
    x0 = torch.tensor([[0.1], [2.0], [0.2]], dtype=torch.float64)
    sol = solve(square, x0, 0.0, 1.0, solver=TorchdiffeqSolver(), steps=FixedSteps(2), on_failure="return")
    assert sol.status.tolist() == [Status.OK, Status.NONFINITE, Status.OK]
    good = x0[[0, 2]]
    torch.testing.assert_close(sol.x[[0, 2]], good / (1 - good), rtol=1e-6, atol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="must be one of euler"):
        TorchdiffeqSolver("rk45")
    with pytest.raises(ValueError, match="must be one of"):
        TorchdiffeqSolver("explicit_adams")
    with pytest.raises(ValueError, match="rtol"):
        TorchdiffeqSolver(rtol=-1.0)
    with pytest.raises(Incompatible, match="error estimate"):
        solve(DECAY, torch.zeros(1, 1), 0.0, 1.0, solver=TorchdiffeqSolver(), steps=Adaptive(rtol=1e-3, atol=1e-3))
    sde = ItoSDE(lambda t, x: -x, lambda t, x: x, Noise.DIAGONAL)
    with pytest.raises(Incompatible, match="TorchdiffeqSolver handles"):
        solve(sde, torch.zeros(1, 1), 0.0, 1.0, solver=TorchdiffeqSolver(), steps=FixedSteps(2))
