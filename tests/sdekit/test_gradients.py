"""Gradients of solves against closed forms, and what they cost in memory."""

import itertools
import math
import weakref

import pytest
import torch

import sdekit.solvers as solvers
from sdekit.brownian import BrownianTree
from sdekit.errors import Incompatible
from sdekit.events import Event
from sdekit.gradients import Checkpointed, ReversibleAdjoint
from sdekit.protocols import Calculus, Dense, Levy, Noise, Order, Step, apply
from sdekit.save import SaveAt
from sdekit.scores.reverse import reverse
from sdekit.sdes.diffusion import VP
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.sdes.process import AffineProcess
from sdekit.solve import solve
from sdekit.solvers import RK4, SRA1, Dopri5, EulerMaruyama, Heun, ItoMilstein
from sdekit.steps import Adaptive, FixedSteps

GRADIENTS = [None, Checkpointed(), Checkpointed(segments=3)]


def _leaf(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


# --- plain backpropagation against closed forms --------------------------------------------------------


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_an_ornstein_uhlenbeck_path_has_the_gradients_of_its_formula(gradient):
    # x = e^−θT x0 + σ ∫ e^−θ(T − s) dW: linear in x0 and σ; θ enters the mean as −T e^−θT x0
    theta, sigma, x0 = _leaf(0.8), _leaf(0.3), torch.full((4000, 1), 2.0, dtype=torch.float64, requires_grad=True)
    sde = ItoSDE(lambda t, x: -theta * x, lambda t, x: sigma * torch.ones_like(x), Noise.ADDITIVE)
    x = solve(sde, x0, 0.0, 1.5, solver=SRA1(), steps=FixedSteps(32), seed=1, gradient=gradient).x
    mean = x.mean()
    g_theta, g_sigma, g_x0 = torch.autograd.grad(mean, (theta, sigma, x0))
    decay = math.exp(-0.8 * 1.5)
    noise = float(mean.detach()) - 2.0 * decay
    torch.testing.assert_close(g_x0 * 4000, torch.full_like(x0, decay), rtol=1e-3, atol=0)
    assert float(g_sigma) == pytest.approx(noise / 0.3, abs=1e-3)
    assert float(g_theta) == pytest.approx(-1.5 * decay * 2.0, abs=4 * 0.3 * 1.5 / math.sqrt(4000))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_geometric_brownian_motion_has_the_gradients_of_its_formula_on_every_path(gradient):
    # Stratonovich x = x0 exp(a T + b W): ∂x/∂a = T x, ∂x/∂b = W x, ∂x/∂x0 = x/x0
    a, b, x0 = _leaf(0.5), _leaf(0.4), torch.full((64, 1), 1.5, dtype=torch.float64, requires_grad=True)
    sde = StratonovichSDE(lambda t, x: a * x, lambda t, x: b * x, Noise.DIAGONAL)
    tree = BrownianTree(0.0, 1.0, (64, 1), seed=2, levy=Levy.W, dtype=torch.float64)
    x = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=FixedSteps(256), path=tree, gradient=gradient).x
    w = tree(0.0, 1.0).W
    exact = 1.5 * torch.exp(0.5 + 0.4 * w)
    g_a, g_b, g_x0 = torch.autograd.grad((x * torch.cos(w)).sum(), (a, b, x0))
    assert float(g_a) == pytest.approx(float((exact * torch.cos(w)).sum()), rel=1e-3)
    assert float(g_b) == pytest.approx(float((w * exact * torch.cos(w)).sum()), rel=2e-3)
    torch.testing.assert_close(g_x0, exact / 1.5 * torch.cos(w), rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("per_sample", [False, True])
def test_times_have_gradients(gradient, per_sample):
    # x' = −t x: x(t1) = exp(−(t1² − t0²)/2), so ∂/∂t0 = t0 x and ∂/∂t1 = −t1 x
    t0, t1 = (_leaf([0.3, 0.5]), _leaf([1.2, 1.7])) if per_sample else (_leaf(0.3), _leaf(1.2))
    x0 = torch.ones(2, 1, dtype=torch.float64)
    x = solve(ODE(lambda t, x: -t * x), x0, t0, t1, solver=RK4(), steps=FixedSteps(40), gradient=gradient).x
    g0, g1 = torch.autograd.grad(x.sum(), (t0, t1))
    exact = torch.exp(-(t1**2 - t0**2) / 2).detach() * (1.0 if per_sample else 2.0)
    torch.testing.assert_close(g0, (t0 * exact).detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(g1, (-t1 * exact).detach(), rtol=1e-6, atol=0)


def test_the_end_time_of_a_noisy_path_has_the_gradient_of_the_scaled_path():
    # fresh increments scale as √h, so x = σ √T z and ∂x/∂T = x/(2T)
    t1 = _leaf(2.0)
    sde = ItoSDE(lambda t, x: torch.zeros_like(x), lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    x = solve(sde, torch.zeros(8, 1, dtype=torch.float64), 0.0, t1, solver=EulerMaruyama(), steps=FixedSteps(10)).x
    (g,) = torch.autograd.grad(x.square().sum(), t1)
    assert float(g) == pytest.approx(float(x.detach().square().sum()) / 2.0, rel=1e-12)


@pytest.mark.parametrize("gradient", [None, Checkpointed()])
def test_adaptive_solves_have_gradients(gradient):
    a = _leaf(-0.7)
    sde = ODE(lambda t, x: a * x)
    x0 = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    steps = Adaptive(rtol=1e-9, atol=1e-9)
    x = solve(sde, x0, 0.0, 2.0, solver=Dopri5(), steps=steps, gradient=gradient).x
    g_a, g_x0 = torch.autograd.grad(x.sum(), (a, x0))
    assert float(g_a) == pytest.approx(3 * 2 * math.exp(-1.4), rel=1e-6)
    torch.testing.assert_close(g_x0, torch.full_like(x0, math.exp(-1.4)), rtol=1e-6, atol=0)


# --- letting go of steps changes nothing but memory ---------------------------------------------------


def _problem(kind):
    weights = [torch.nn.Parameter(torch.linspace(-0.5, 0.5, 9, dtype=torch.float64).reshape(3, 3)), _leaf(0.3)]
    drift = lambda t, x: torch.tanh(x @ weights[0]) - t * x  # noqa: E731
    if kind == "dense":
        g = lambda t, x: Dense(weights[1] * torch.stack((torch.cos(x), torch.sin(x)), -1))  # noqa: E731
        return ItoSDE(drift, g, Noise.GENERAL), weights
    if kind == "ode":
        return ODE(drift), weights
    calculus = ItoSDE if kind == "ito" else StratonovichSDE
    return calculus(drift, lambda t, x: weights[1] * torch.cos(x), Noise.DIAGONAL), weights


CASES = [
    ("ito", EulerMaruyama(), FixedSteps(13), {}),
    ("ito", ItoMilstein(), FixedSteps(13), {}),
    ("dense", EulerMaruyama(), FixedSteps(13), {}),
    ("stratonovich", Heun(), FixedSteps(13), {}),
    ("stratonovich", Heun(), Adaptive(rtol=1e-2, atol=1e-2), {}),
    ("ode", Dopri5(), FixedSteps(13), {}),
    ("ode", Dopri5(), Adaptive(rtol=1e-4, atol=1e-4), {}),
    ("stratonovich", Heun(), FixedSteps(13), {"save": SaveAt(times=[0.0, 0.11, 0.5, 0.77, 1.0])}),
    ("stratonovich", Heun(), FixedSteps(13), {"save": SaveAt(every=3)}),
    ("stratonovich", Heun(), Adaptive(rtol=1e-2, atol=1e-2), {"save": SaveAt(times=[0.11, 0.5, 0.77])}),
    ("ode", Dopri5(), Adaptive(rtol=1e-4, atol=1e-4), {"save": SaveAt(times=[0.11, 0.5, 0.77])}),
    ("stratonovich", Heun(), FixedSteps(13), {"event": Event(lambda t, x: x[:, 0] - 0.55)}),
]


WAYS = [Checkpointed(), Checkpointed(segments=4), Checkpointed(segments=1)]


@pytest.mark.parametrize(
    ("kind", "solver", "steps", "more", "gradient"),
    [(*case, way) for case, way in itertools.product(CASES, WAYS) if way.segments is None or not case[2].adaptive],
)
def test_checkpointing_gives_bit_for_bit_the_gradient_of_backpropagation(kind, solver, steps, more, gradient):
    results = []
    for way in (None, gradient):
        sde, weights = _problem(kind)
        x0 = torch.linspace(0.1, 1.0, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
        sol = solve(sde, x0, 0.0, 1.0, solver=solver, steps=steps, seed=4, gradient=way, **more)
        used = [x0, *(weights if kind != "ode" else weights[:1])]
        results.append((sol.x.detach(), *torch.autograd.grad((sol.x.nan_to_num() ** 2).sum(), used)))
        results[-1] += (sol.stats.evaluations, sol.stats.accepted)
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


class _Counting:
    """A drift that knows how many of its inner tensors are still alive."""

    def __init__(self):
        self.weight, self.alive, self.peak = _leaf(0.1), 0, 0

    def _gone(self):
        self.alive -= 1

    def __call__(self, t, x):
        inner = torch.sin(self.weight * x)
        self.alive += 1
        self.peak = max(self.peak, self.alive)
        weakref.finalize(inner, self._gone)
        return inner * inner  # the product remembers `inner` for the way back


def _peak(gradient, steps, solver=None):
    drift = _Counting()
    sde = StratonovichSDE(drift, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    x0, solver = torch.ones(2, 1, dtype=torch.float64), solver or EulerMaruyama()
    x = solve(sde, x0, 0.0, 1.0, solver=solver, steps=steps, gradient=gradient).x
    x.sum().backward()
    return drift.peak


def test_memory_grows_as_the_root_of_the_number_of_steps_with_checkpoints():
    plain = [_peak(None, FixedSteps(n)) for n in (64, 256)]
    check = [_peak(Checkpointed(), FixedSteps(n)) for n in (64, 256)]
    assert plain == [64, 256]
    for n, peak in zip((64, 256), check, strict=True):
        assert peak <= 1.5 * math.sqrt(n) + 2
    steps = [Adaptive(rtol=1e-2, atol=1e-2, first_step=1 / n, max_step=1 / n) for n in (32, 512)]
    adaptive = [_peak(Checkpointed(), s, Heun()) for s in steps]
    assert adaptive[1] <= 5 * adaptive[0]  # sixteen times the steps: a root of it is four


@pytest.mark.parametrize("process", [VP(), AffineProcess(lambda t: 1 - t**2 / 2, lambda t: t)])
def test_reversed_diffusions_may_be_checkpointed(process):
    gradients = []
    for way in (None, Checkpointed()):
        a = _leaf(1.0)
        sde = reverse(process, lambda t, x, a=a: -a * x)
        x0 = torch.ones(3, 2, dtype=torch.float64)
        x = solve(sde, x0, 0.9, 0.1, solver=EulerMaruyama(), steps=FixedSteps(7), gradient=way).x
        gradients.append(torch.autograd.grad(x.square().sum(), a)[0])
    assert torch.equal(*gradients)


def test_a_second_way_back_is_possible():
    a = _leaf(-0.7)
    x0 = torch.ones(1, 1, dtype=torch.float64)
    x = solve(ODE(lambda t, x: a * x), x0, 0.0, 1.0, solver=RK4(), steps=FixedSteps(10), gradient=Checkpointed()).x
    first = torch.autograd.grad(x.sum(), a, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(x.sum(), a)[0])


@torch.no_grad()
def test_without_gradients_nothing_is_remembered():
    drift, x0 = _Counting(), torch.ones(2, 1, dtype=torch.float64)
    solve(ODE(drift), x0, 0.0, 1.0, solver=RK4(), steps=FixedSteps(50), gradient=Checkpointed())
    assert drift.peak <= 2


def test_segments_are_a_number_and_need_known_steps():
    with pytest.raises(ValueError, match="1 or more"):
        Checkpointed(segments=0)
    with pytest.raises(TypeError, match="integer"):
        Checkpointed(segments=2.5)
    steps = Adaptive(rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"use Checkpointed\(\)"):
        solve(ODE(lambda t, x: -x), torch.ones(1, 1), 0.0, 1.0, solver=Dopri5(), steps=steps, gradient=Checkpointed(3))


# --- undoing steps ------------------------------------------------------------------------------------


class _Reversible:
    """The reversible Heun method, in the form that the adjoint asks for.

    Reference: Kidger et al. (2021), algorithm 1.
    """

    orders = {noise: Order(0.5, 1.0) for noise in Noise}
    calculus, levy, error_order = Calculus.STRATONOVICH, Levy.W, None

    def init(self, sde, t, x):
        return (x, *self._fields(sde, t, x))

    @staticmethod
    def _fields(sde, t, x):
        f = sde.drift(t, x)
        return (f,) if sde.noise is Noise.NONE else (f, sde.diffusion(t, x))

    @staticmethod
    def _move(h, dw, fields):
        return fields[0] * h if dw is None else fields[0] * h + apply(fields[1], dw.W)

    def step(self, sde, span, x, dw, state):
        z, *old = state
        z1 = 2 * x - z + self._move(span.h, dw, old)
        new = self._fields(sde, span.t1, z1)
        x1 = x + 0.5 * (self._move(span.h, dw, old) + self._move(span.h, dw, new))
        return Step(x1, state=(z1, *new))

    def undo(self, sde, span, x1, dw, state1):
        z1, *new = state1
        z = 2 * x1 - z1 - self._move(span.h, dw, new)
        old = self._fields(sde, span.t0, z)
        return x1 - 0.5 * (self._move(span.h, dw, old) + self._move(span.h, dw, new)), (z, *old)


REVERSIBLE = getattr(solvers, "ReversibleHeun", _Reversible)


@pytest.mark.parametrize("make", sorted({_Reversible, REVERSIBLE}, key=lambda c: c.__name__))
@pytest.mark.parametrize("kind", ["stratonovich", "ode"])
@pytest.mark.parametrize("save", [None, SaveAt(times=[0.11, 0.5, 0.77]), SaveAt(every=5)])
def test_the_reversible_adjoint_gives_the_gradient_of_backpropagation(make, kind, save):
    results = []
    for way in (None, ReversibleAdjoint()):
        sde, weights = _problem(kind)
        x0 = torch.linspace(0.1, 1.0, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
        t1 = _leaf(1.0)
        end = t1 if save is None else 1.0
        sol = solve(sde, x0, 0.0, end, solver=make(), steps=FixedSteps(40), seed=4, gradient=way, save=save)
        used = [x0, *(weights if kind != "ode" else weights[:1]), *([t1] if save is None else [])]
        results.append((sol.x.detach(), *torch.autograd.grad((sol.x**2).sum(), used, retain_graph=True)))
        again = torch.autograd.grad((sol.x**2).sum(), used)
        for first, second in zip(results[-1][1:], again, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-13)
    assert torch.equal(results[0][0], results[1][0])
    for plain, undone in zip(*results, strict=True):
        torch.testing.assert_close(undone, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", sorted({_Reversible, REVERSIBLE}, key=lambda c: c.__name__))
def test_the_memory_of_the_reversible_adjoint_does_not_grow(make):
    peaks = [_peak(ReversibleAdjoint(), FixedSteps(n), make()) for n in (32, 256)]
    assert peaks[0] == peaks[1] <= 4


def test_what_cannot_be_undone_is_refused():
    sde, _ = _problem("stratonovich")
    x0 = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(Incompatible, match=r"Heun cannot\. Use ReversibleHeun\(\)"):
        solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=FixedSteps(4), gradient=ReversibleAdjoint())
    event = Event(lambda t, x: x[:, 0])
    with pytest.raises(Incompatible, match=r"Use Checkpointed\(\)"):
        solve(sde, x0, 0.0, 1.0, solver=_Reversible(), steps=FixedSteps(4), gradient=ReversibleAdjoint(), event=event)


@pytest.mark.parametrize("steps", [FixedSteps(40), Adaptive(rtol=1e-8, atol=1e-8)])
def test_saved_states_of_an_ode_have_derivatives_by_their_times(steps):
    x0, times = (
        torch.ones(2, 1, dtype=torch.float64),
        torch.tensor([0.33, 0.71], dtype=torch.float64, requires_grad=True),
    )
    x = solve(ODE(lambda t, x: -2.0 * x), x0, 0.0, 1.0, solver=RK4() if steps == FixedSteps(40) else Dopri5(), steps=steps,
              save=SaveAt(times=times)).x  # fmt: skip
    slope = torch.autograd.grad(x[:, 0, 0].sum(), times)[0]
    torch.testing.assert_close(slope, -2.0 * torch.exp(-2.0 * times.detach()), rtol=1e-4, atol=0.0)


def test_the_transforms_of_torch_func_go_through_solves():
    x, rate = torch.linspace(0.5, 1.0, 6, dtype=torch.float64).reshape(3, 2), torch.tensor(0.7, dtype=torch.float64)

    def decay(x, rate):
        steps = Adaptive(rtol=1e-9, atol=1e-9)
        return solve(ODE(lambda t, x: -rate * x), x, 0.0, 1.0, solver=Dopri5(), steps=steps).x

    fall = math.exp(-0.7)
    _, tangent = torch.func.jvp(decay, (x, rate), (x, torch.zeros_like(rate)))
    torch.testing.assert_close(tangent, x * fall, rtol=1e-7, atol=0.0)
    slope = torch.func.grad(lambda rate: decay(x, rate).sum())(rate)
    torch.testing.assert_close(slope, -x.sum() * fall, rtol=1e-7, atol=0.0)

    def growth(x):
        sde = ItoSDE(lambda t, x: 0.1 * x, lambda t, x: 0.3 * x, noise=Noise.DIAGONAL)
        save = SaveAt(times=[0.55, 1.0])
        return solve(sde, x, 0.0, 1.0, solver=EulerMaruyama(), steps=FixedSteps(10), seed=1, save=save).x

    # the solution is linear in where it begins
    torch.testing.assert_close(torch.func.jvp(growth, (x,), (x,))[1], growth(x), rtol=1e-12, atol=0.0)
