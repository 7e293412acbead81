"""Step halving: both halves on one path, an estimate of the right size, and adaptive steps that pay."""

import math

import numpy as np
import pytest
import torch

from sdekit.brownian import BrownianTree
from sdekit.brownian.halves import HalvedPath, second_half
from sdekit.brownian.levy import chen
from sdekit.convergence import Problem
from sdekit.convergence.problems import commuting_linear, geometric, levy_area, wave
from sdekit.errors import Incompatible
from sdekit.protocols import Increment, Levy, Noise, Span
from sdekit.save import SaveAt
from sdekit.sdes import ODE, ItoSDE
from sdekit.solve import solve
from sdekit.solvers import (
    RK4,
    SRA1,
    SRI,
    SRIW1,
    EulerMaruyama,
    Halving,
    Heun,
    ItoGeneralMilstein,
    ItoMilstein,
    StratonovichMilstein,
)
from sdekit.steps import Adaptive, FixedSteps

FREE = ItoMilstein(derivative_free=True)


def _time(t: float):
    return torch.tensor(t, dtype=torch.float64)


def _tree(problem: Problem, batch: int, levy: Levy = Levy.H, seed: int = 5) -> BrownianTree:
    return BrownianTree(problem.t0, problem.t1, problem.noise_shape(batch), seed=seed, levy=levy, dtype=torch.float64)


@pytest.mark.parametrize("h", [0.3, -0.3])
def test_the_two_halves_join_to_the_whole(h):
    generator = torch.Generator().manual_seed(1)
    w, area, k = 0.3 * torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    skew = torch.randn(6, 4, 4, generator=generator, dtype=torch.float64)
    first = Increment(w, area, k, skew - skew.transpose(1, 2))
    second = Increment(-2 * k, w, area, (skew - skew.transpose(1, 2)) ** 3)
    found = second_half(chen(h / 2, first, h / 2, second), first)
    for a, b in zip(found[:4], second[:4], strict=True):
        torch.testing.assert_close(a, b)
    tree = BrownianTree(0.0, 1.0, (3, 2), levy=Levy.K, dtype=torch.float64)
    like = torch.empty(3, 2, dtype=torch.float64)
    span = Span(_time(0.5), _time(0.5 + h), h)
    halves = HalvedPath(tree).increment(span, like, Levy.K).halves
    direct = tree.increment(Span(_time(0.5 + h / 2), _time(0.5 + h), h / 2), like, Levy.K)
    for a, b in zip(halves[1][:3], direct[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


CASES = [
    (geometric()[0], EulerMaruyama()),
    (geometric()[0], SRI()),
    (geometric()[1], StratonovichMilstein(derivative_free=True)),
    (commuting_linear()[0], FREE),
    (levy_area()[0], ItoGeneralMilstein(derivative_free=True)),
]


@pytest.mark.parametrize(("problem", "solver"), CASES, ids=lambda case: getattr(case, "name", None) or repr(case))
def test_halved_steps_are_twice_the_steps_on_the_same_path(problem, solver):
    x0, path = problem.x0(3), _tree(problem, 3, solver.levy)
    halved = solve(problem.sde, x0, 0.0, 1.0, solver=Halving(solver), steps=FixedSteps(8), path=path)
    twice = solve(problem.sde, x0, 0.0, 1.0, solver=solver, steps=FixedSteps(16), path=path)
    # the areas of halves follow from those of wholes and firsts, each joined from pieces of its own
    torch.testing.assert_close(halved.x, twice.x, rtol=0, atol=0.1 if solver.levy is Levy.AREA else 1e-10)
    assert halved.stats.drift_calls < 3 * twice.stats.drift_calls / 2


def test_the_start_of_a_step_is_evaluated_once():
    problem = geometric()[0]
    stats = solve(
        problem.sde, problem.x0(2), 0.0, 1.0, solver=Halving(EulerMaruyama()), steps=FixedSteps(8), seed=0
    ).stats
    assert (stats.drift_calls, stats.diffusion_calls) == (16, 16)


@pytest.mark.parametrize("steps", [FixedSteps(10), Adaptive(rtol=0.0, atol=1e-2)])
def test_values_between_steps_are_reached_and_change_nothing(steps):
    problem = wave()[0]
    x0, path = problem.x0(200), _tree(problem, 200, Levy.W)
    times = [0.237, 0.611, 1.0]
    bare = solve(problem.sde, x0, 0.0, 1.0, solver=Halving(FREE), steps=steps, path=path)
    kept = solve(problem.sde, x0, 0.0, 1.0, solver=Halving(FREE), steps=steps, path=path, save=SaveAt(times=times))
    assert torch.equal(kept.x[-1], bare.x)
    for t, x in zip(times, kept.x, strict=True):
        exact = torch.atan(path(0.0, t).W + math.tan(1.0))
        assert float((x - exact).abs().mean()) < 2e-2


def _estimate(sde, solver, h, x, w):
    t0 = _time(0.2)
    halves = (Increment(w[0] * (h / 2) ** 0.5), Increment(w[1] * (h / 2) ** 0.5))
    dw = None if sde.noise is Noise.NONE else Increment(halves[0].W + halves[1].W, halves=halves)
    return Halving(solver).step(sde, Span(t0, t0 + h, h), x, dw, None)


@pytest.mark.parametrize(
    ("solver", "noise"),
    [
        (EulerMaruyama(), Noise.ADDITIVE),
        (EulerMaruyama(), Noise.DIAGONAL),
        (FREE, Noise.DIAGONAL),
        (Heun(), Noise.NONE),
    ],
    ids=repr,
)
def test_the_estimate_shrinks_as_it_says_and_has_the_size_of_the_error(solver, noise):
    drift, geometric_noise = -0.5, 0.8
    if noise is Noise.NONE:
        sde = ODE(lambda t, x: drift * x)
    elif noise is Noise.ADDITIVE:
        sde = ItoSDE(lambda t, x: drift * x, lambda t, x: torch.ones_like(x), noise)
    else:
        sde = ItoSDE(lambda t, x: drift * x, lambda t, x: geometric_noise * x, noise)
    w = torch.randn(2, 4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.full((4000, 1), 1.5, dtype=torch.float64)
    sizes = [2.0**-k for k in range(6, 11)]
    estimates = [_estimate(sde, solver, h, x, w).error.square().mean().sqrt() for h in sizes]
    slope = np.polyfit(np.log(sizes), torch.stack(estimates).log().numpy(), 1)[0]
    assert abs(slope - Halving(solver).error_order[noise]) < 0.1
    if noise is Noise.ADDITIVE:
        return
    h, step = sizes[-1], _estimate(sde, solver, sizes[-1], x, w)
    total = (w[0] + w[1]) * (h / 2) ** 0.5
    growth = drift * h if noise is Noise.NONE else (drift - geometric_noise**2 / 2) * h + geometric_noise * total
    error = (step.x - x * torch.exp(torch.as_tensor(growth, dtype=torch.float64))).square().mean().sqrt()
    # for Milstein's scheme the terms that mix drift and noise make it 1/√3 at least
    assert (0.57 if solver is FREE else 0.9) < float(estimates[-1] / error) < 1.1


def test_adaptive_steps_of_an_ode_meet_the_tolerance_with_any_solver():
    ode = ODE(lambda t, x: -x + torch.cos(t))
    x0 = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    exact = 0.5 * (math.cos(2) + math.sin(2)) + (x0 - 0.5) * math.exp(-2)
    for solver in (EulerMaruyama(), RK4(), SRA1()):
        x = solve(ode, x0, 0.0, 2.0, solver=Halving(solver), steps=Adaptive(rtol=0.0, atol=1e-4)).x
        assert float((x - exact).abs().max()) < 5e-3


def test_euler_with_adaptive_steps_converges_although_its_estimate_sees_the_noise():
    problem = geometric()[0]
    errors = []
    for atol in (3e-2, 1e-3):
        x0, path = problem.x0(400), _tree(problem, 400, Levy.W)
        solution = solve(
            problem.sde, x0, 0.0, 1.0, solver=Halving(EulerMaruyama()), steps=Adaptive(rtol=0.0, atol=atol), path=path
        )
        assert int(solution.stats.rejected.sum()) == 0
        errors.append(float((solution.x - torch.exp(path(0.0, 1.0).W)).abs().mean()))
    # refusing steps for their error would choose the noise, and leave an error of 0.25 at any tolerance
    assert errors[1] < 0.4 * errors[0] < 0.11


@pytest.mark.parametrize("solver", [Halving(FREE), SRIW1(), SRI()], ids=repr)
@pytest.mark.parametrize(
    ("problem", "atol"),
    [(geometric()[0], 1e-3), (wave()[0], 3e-4), (wave(5.0)[0], 1e-2)],
    ids=["geometric", "wave", "bursts"],
)
def test_adaptive_steps_are_more_accurate_than_fixed_ones_at_equal_evaluations(solver, problem, atol):
    batch = 500
    path, x0 = _tree(problem, batch), problem.x0(batch)
    truth = problem.exact(_EndOnly(path), x0, 1.0)

    def error(method, steps):
        solution = solve(problem.sde, x0, 0.0, 1.0, solver=method, steps=steps, path=path)
        return float((solution.x - truth).square().mean().sqrt()), float(solution.stats.evaluations.double().mean())

    adaptive, evaluations = error(solver, Adaptive(rtol=0.0, atol=atol))
    plain, cost = (FREE, 1) if isinstance(solver, Halving) else (solver, 2 if isinstance(solver, SRIW1) else 3)
    fixed, spent = error(plain, FixedSteps(math.ceil(evaluations / cost)))
    assert spent >= evaluations
    assert adaptive < fixed


class _EndOnly:
    """The one value of a path that an exact solution asks for."""

    def __init__(self, tree):
        self.w = lambda s: tree(0.0, s).W


def test_a_sample_does_not_depend_on_its_batch():
    problem, steps = wave()[0], Adaptive(rtol=0.0, atol=1e-2)
    whole = solve(problem.sde, problem.x0(6), 0.0, 1.0, solver=Halving(FREE), steps=steps, seed=3)
    part = solve(problem.sde, problem.x0(1), 0.0, 1.0, solver=Halving(FREE), steps=steps, seed=3, first=4)
    assert torch.equal(whole.x[4:5], part.x)


def test_what_is_wrong_is_said():
    with pytest.raises(TypeError, match=r"write Halving\(EulerMaruyama\(\)\)"):
        Halving(EulerMaruyama)
    with pytest.raises(ValueError, match="call it through `solve`"):
        Halving(EulerMaruyama()).step(
            geometric()[0].sde, Span(_time(0.0), _time(0.1), 0.1), torch.ones(1, 1), Increment(torch.ones(1, 1)), None
        )
    problem = geometric()[0]
    with pytest.raises(
        Incompatible, match=r"EulerMaruyama has none\. Use FixedSteps\(n\) or Halving\(EulerMaruyama\(\)\)\."
    ):
        solve(problem.sde, problem.x0(1), 0.0, 1.0, solver=EulerMaruyama(), steps=Adaptive(1e-2, 1e-2))
