"""Implicit methods on stiff equations: orders, stability where explicit steps explode, and failures that stay alone."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit.convergence import Problem, fit_order, problems, reflected, strong_errors
from sdekit.errors import Incompatible, Status
from sdekit.protocols import Calculus, Noise, Solver
from sdekit.save import SaveAt
from sdekit.sdes.functions import ODE, ItoSDE
from sdekit.solve import solve
from sdekit.solvers.euler import EulerMaruyama
from sdekit.solvers.implicit import DriftImplicitEuler, SplitStepEuler
from sdekit.solvers.jacobian import linearize
from sdekit.solvers.rosenbrock import Rodas5P
from sdekit.solvers.runge_kutta import Dopri5
from sdekit.steps import Adaptive, FixedSteps

STIFF_SDE = [DriftImplicitEuler(), DriftImplicitEuler(theta=0.5), SplitStepEuler()]
CLASSES = [Noise.ADDITIVE, Noise.DIAGONAL, Noise.SCALAR, Noise.COMMUTATIVE, Noise.GENERAL]


def van_der_pol(mu: float) -> ODE:
    return ODE(lambda t, x: torch.stack((x[:, 1], mu * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]), dim=1))


def robertson(t: Tensor, x: Tensor) -> Tensor:
    a = -0.04 * x[:, 0] + 1e4 * x[:, 1] * x[:, 2]
    c = 3e7 * x[:, 1] ** 2
    return torch.stack((a, -a - c, c), dim=1)


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (2, 1, 2)])
@pytest.mark.parametrize("per_sample_time", [False, True])
def test_jacobians_are_those_of_each_sample(shape: tuple[int, ...], per_sample_time: bool) -> None:
    x = torch.linspace(-1, 2, 4 * math.prod(shape), dtype=torch.float64).reshape(4, *shape)
    t = torch.tensor(0.7, dtype=torch.float64)
    t = t + torch.arange(4, dtype=torch.float64).reshape(4, *(1,) * len(shape)) if per_sample_time else t

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return torch.sin(t * x) * x.flatten(1).square().sum(1).reshape(-1, *(1,) * len(shape))

    found = linearize(ODE(drift), t, x, timed=True)
    for i in range(4):
        here = t[i] if per_sample_time else t
        exact = torch.func.jacrev(lambda y, s=here: drift(s, y[None])[0])(x[i]).reshape(found.jacobian[i].shape)  # type: ignore[operator]
        assert torch.allclose(found.jacobian[i], exact, atol=1e-13)
    assert found.time is not None
    shift = (drift(t + 1e-6, x) - drift(t - 1e-6, x)) / 2e-6
    assert torch.allclose(found.time, shift, atol=1e-7)


# --- ordinary differential equations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("problem", problems(Noise.NONE, Calculus.ITO), ids=lambda p: p.name)
def test_rodas5p_has_order_5(problem: Problem, backward: bool) -> None:
    errors = strong_errors(reflected(problem) if backward else problem, Rodas5P(), (16, 32, 64), batch=1)
    assert fit_order(errors).order > 4.85


@pytest.mark.parametrize(
    ("solver", "order"), [(DriftImplicitEuler(), 1.0), (DriftImplicitEuler(theta=0.5), 2.0), (SplitStepEuler(), 1.0)]
)
@pytest.mark.parametrize("problem", problems(Noise.NONE, Calculus.ITO), ids=lambda p: p.name)
def test_implicit_euler_has_the_order_of_its_rule_without_noise(problem: Problem, solver: object, order: float) -> None:
    errors = strong_errors(problem, solver, (64, 128, 256), batch=1)  # type: ignore[arg-type]
    assert fit_order(errors).order > order - 0.15


def test_van_der_pol_with_mu_1000_is_solved_in_some_hundred_steps() -> None:
    x0 = torch.tensor([[2.0, 0.0], [1.5, 0.0]], dtype=torch.float64)
    steps = Adaptive(rtol=1e-6, atol=1e-6)
    solution = solve(van_der_pol(1000.0), x0, 0.0, 2000.0, solver=Rodas5P(), steps=steps)
    # by an implicit Runge–Kutta method of another library at a tolerance of 1e-11
    assert torch.allclose(solution.x[0], torch.tensor([1.70616773, -8.92809701e-04], dtype=torch.float64), rtol=2e-5)
    assert int((solution.stats.accepted + solution.stats.rejected).max()) < 1000


def test_robertson_conserves_mass_and_reaches_the_known_state() -> None:
    x0 = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    steps = Adaptive(rtol=1e-7, atol=1e-12)
    save = SaveAt(times=[40.0, 4e5])
    solution = solve(ODE(robertson), x0, 0.0, 4e5, solver=Rodas5P(), steps=steps, save=save)
    # Hairer, Wanner (1996), §IV.10, gives the first; the second is a tight implicit solve elsewhere
    known = torch.tensor([[0.715827069, 9.18553476e-6, 0.284163746], [4.93827452e-3, 1.98499409e-8, 0.995061706]])
    assert torch.allclose(solution.x[:, 0].float(), known, rtol=1e-5)
    assert torch.allclose(solution.x.sum(-1), torch.ones(2, 1, dtype=torch.float64), atol=1e-10)
    assert int(solution.stats.accepted) < 600


def test_a_stiff_step_size_is_set_by_accuracy_and_not_by_stability() -> None:
    # Prothero–Robinson: x = cos t attracts at rate 10⁶
    ode = ODE(lambda t, x: -1e6 * (x - torch.cos(t)) - torch.sin(t))
    x0, steps = torch.ones(1, 1, dtype=torch.float64), Adaptive(rtol=1e-6, atol=1e-6, max_steps=1000)
    solution = solve(ode, x0, 0.0, 2.0, solver=Rodas5P(), steps=steps)
    assert abs(float(solution.x) - math.cos(2.0)) < 1e-6
    assert int(solution.stats.accepted) < 60
    explicit = solve(ode, x0, 0.0, 2.0, solver=Dopri5(), steps=steps, on_failure="return")
    assert int(explicit.status) == Status.MAX_STEPS


def test_rodas5p_calls_f_at_its_nodes_and_keeps_float32() -> None:
    called: list[float] = []

    def drift(t: Tensor, x: Tensor) -> Tensor:
        called.append(float(t.detach()))
        return -x + t

    solution = solve(ODE(drift), torch.ones(2, 3), 0.0, 1.0, solver=Rodas5P(), steps=FixedSteps(1))
    # the first state is visited twice, for f and for its Jacobian
    assert called == pytest.approx([0.0, *Rodas5P().tableau.alpha], abs=1e-15)
    assert solution.stats.drift_calls == 9
    assert solution.x.dtype is torch.float32
    assert not solution.x.requires_grad
    assert torch.allclose(solution.x, torch.full((2, 3), 2 * math.exp(-1.0)), atol=1e-5)


def test_gradients_of_a_rosenbrock_step_are_exact() -> None:
    def end(rate: Tensor, x0: Tensor) -> Tensor:
        ode = ODE(lambda t, x: -rate * x**3 + torch.sin(rate * t))
        return solve(ode, x0, 0.0, 1.0, solver=Rodas5P(), steps=FixedSteps(2)).x

    rate = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[1.0, 0.5], [-2.0, 0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (rate, x0), atol=1e-6)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_implicit_steps_work_where_gradients_are_switched_off(context: Any) -> None:
    with context():
        x0 = torch.ones(2, 1)
        assert torch.isfinite(solve(ODE(lambda t, x: -x), x0, 0.0, 1.0, solver=Rodas5P(), steps=FixedSteps(2)).x).all()
        x = solve(ODE(lambda t, x: 0 * x + 1), x0, 0.0, 1.0, solver=DriftImplicitEuler(), steps=FixedSteps(2)).x
        assert torch.equal(x, torch.full((2, 1), 2.0))
        x = solve(ODE(lambda t, x: torch.ones_like(x)), x0, 0.0, 1.0, solver=Rodas5P(), steps=FixedSteps(2)).x
        assert torch.allclose(x, torch.full((2, 1), 2.0))


@pytest.mark.parametrize("backward", [False, True])
def test_rodas5p_keeps_order_4_between_steps(backward: bool) -> None:
    problem = problems(Noise.NONE, Calculus.ITO)[2]
    problem = reflected(problem) if backward else problem
    times = [problem.t0 + (k + 0.37) / 40 * (problem.t1 - problem.t0) for k in range(40)]
    errors = strong_errors(problem, Rodas5P(), (8, 16, 32), batch=1, save_times=times)
    assert errors.saved is not None
    worst = errors.saved.flatten(1).amax(1)
    assert float(torch.log2(worst[0] / worst[-1]) / 2) > 4.7  # one step's interpolant errs by h⁵


# --- stiff SDEs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("noise", CLASSES, ids=lambda n: n.name)
@pytest.mark.parametrize("solver", [DriftImplicitEuler(), SplitStepEuler()], ids=repr)
def test_strong_orders_are_the_claimed_ones(solver: Solver, noise: Noise, backward: bool) -> None:
    listed = problems(noise, Calculus.ITO)
    for problem in (listed[0], next(p for p in listed if not p.autonomous)):
        problem = reflected(problem) if backward else problem
        errors = strong_errors(problem, solver, (8, 16, 32, 64), batch=200, seed=1)
        assert fit_order(errors).order > solver.orders[noise].strong - 0.15, problem.name


def _ornstein(rate: float) -> ItoSDE:
    return ItoSDE(lambda t, x: -rate * x, lambda t, x: torch.ones_like(x) * math.sqrt(2 * rate), Noise.ADDITIVE)


def test_additive_noise_with_a_fast_drift_stays_bounded_where_euler_explodes() -> None:
    # |1 + λh| = 99 a step for Euler; the stationary variance is 1
    x0 = torch.ones(2000, 1, dtype=torch.float64)
    args: Any = {"steps": FixedSteps(20), "seed": 3}
    exploded = solve(_ornstein(1e3), x0, 0.0, 2.0, solver=EulerMaruyama(), **args)
    assert float(exploded.x.abs().min()) > 1e30
    implicit = solve(_ornstein(1e3), x0, 0.0, 2.0, solver=DriftImplicitEuler(), **args)
    # backward Euler has the variance 2λh/((1 + λh)² − 1)
    assert float(implicit.x.var()) == pytest.approx(200 / (101**2 - 1), rel=5 * math.sqrt(2 / 2000))
    # the noise of a split step is added after the damping
    split = solve(_ornstein(1e3), x0, 0.0, 2.0, solver=SplitStepEuler(), **args)
    assert float(split.x.var()) == pytest.approx(200 / (1 - 1 / 101**2), rel=5 * math.sqrt(2 / 2000))
    # and the trapezoidal rule the right one, once its slow oscillation has died out
    slow = solve(_ornstein(30.0), x0, 0.0, 4.0, solver=DriftImplicitEuler(theta=0.5), steps=FixedSteps(40), seed=3)
    assert float(slow.x.var()) == pytest.approx(1.0, rel=5 * math.sqrt(2 / 2000))


@pytest.mark.parametrize("solver", [DriftImplicitEuler(), SplitStepEuler()], ids=repr)
def test_second_moments_decay_where_those_of_the_sde_do(solver: DriftImplicitEuler) -> None:
    # 2λ + μ² = −100 < 0, h λ = −100
    rate, mu = 1e3, math.sqrt(1900.0)
    sde = ItoSDE(lambda t, x: -rate * x, lambda t, x: mu * x, Noise.DIAGONAL)
    x0 = torch.ones(4000, 1, dtype=torch.float64)
    solution = solve(sde, x0, 0.0, 4.0, solver=solver, steps=FixedSteps(40), seed=5)
    assert float(solution.x.square().mean()) < 1e-3


@pytest.mark.parametrize("solver", [DriftImplicitEuler(), SplitStepEuler()], ids=repr)
def test_a_cubic_drift_is_solved_from_far_away(solver: DriftImplicitEuler) -> None:
    sde = ItoSDE(lambda t, x: x - x**3, lambda t, x: 0.5 * torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.tensor([[30.0], [-30.0], [0.1]])
    steps = FixedSteps(40)
    solution = solve(sde, x0, 0.0, 10.0, solver=solver, steps=steps, seed=1)
    assert float(solution.x.abs().max()) < 3.0
    explicit = solve(sde, x0, 0.0, 10.0, solver=EulerMaruyama(), steps=steps, seed=1, on_failure="return")
    assert explicit.status.tolist()[:2] == [Status.NONFINITE, Status.NONFINITE]


@pytest.mark.parametrize(("dtype", "decades"), [(torch.float32, 3), (torch.float64, 6)])
def test_a_steady_state_is_kept_although_its_drift_is_rounding(dtype: torch.dtype, decades: int) -> None:
    # eigenvalues from −1 to −10³ or −10⁶ in a rotated basis, and the state at rest where A x = b
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    a = -(basis * torch.logspace(0, decades, 6, dtype=torch.float64)) @ basis.T
    rest = torch.linspace(1, 2, 6, dtype=torch.float64)
    matrix, force, x0 = a.to(dtype), (a @ rest).to(dtype), rest.to(dtype).expand(3, 6)
    ode = ODE(lambda t, x: x @ matrix.T - force)
    solution = solve(ode, x0, 0.0, 10.0, solver=DriftImplicitEuler(), steps=FixedSteps(10))
    assert torch.allclose(solution.x, x0, rtol=1e-8 if dtype is torch.float64 else 1e-3)


def test_a_sample_without_a_solution_fails_alone() -> None:
    # y = x + h (y² + 1) has no real solution for large x
    sde = ItoSDE(lambda t, x: x.square() + 1.0, lambda t, x: 0.01 * torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.tensor([[0.0], [50.0], [-0.5]], dtype=torch.float64)
    solution = solve(sde, x0, 0.0, 0.5, solver=DriftImplicitEuler(), steps=FixedSteps(20), on_failure="return")
    assert solution.status.tolist() == [Status.OK, Status.NONFINITE, Status.OK]
    alone = solve(sde, x0[2:], 0.0, 0.5, solver=DriftImplicitEuler(), steps=FixedSteps(20), first=2)
    assert torch.equal(solution.x[2:], alone.x)


@pytest.mark.parametrize("solver", STIFF_SDE, ids=repr)
def test_gradients_through_the_iteration_are_those_of_the_step(solver: DriftImplicitEuler) -> None:
    def end(rate: Tensor, x0: Tensor) -> Tensor:
        sde = ItoSDE(lambda t, x: -rate * x**3, lambda t, x: 0.3 * torch.ones_like(x), Noise.ADDITIVE)
        return solve(sde, x0, 0.0, 1.0, solver=solver, steps=FixedSteps(4), seed=2).x

    rate = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[1.0, 0.5], [-2.0, 0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (rate, x0), atol=1e-6)


def test_images_are_states_too() -> None:
    sde = ItoSDE(lambda t, x: -50.0 * x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.linspace(0, 1, 24).reshape(2, 2, 2, 3)
    image = solve(sde, x0, 0.0, 1.0, solver=DriftImplicitEuler(), steps=FixedSteps(4)).x
    flat = solve(sde, x0.reshape(2, 12), 0.0, 1.0, solver=DriftImplicitEuler(), steps=FixedSteps(4)).x
    assert image.shape == x0.shape
    assert torch.allclose(image.reshape(2, 12), flat)


def test_misuse_is_taught() -> None:
    with pytest.raises(ValueError, match=r"theta must lie in \[0.5, 1\]"):
        DriftImplicitEuler(theta=0.2)
    with pytest.raises(Incompatible, match="Jacobian of 5000 x 5000"):
        solve(ODE(lambda t, x: -x), torch.ones(1, 5000), 0.0, 1.0, solver=Rodas5P(), steps=FixedSteps(1))
