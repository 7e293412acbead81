"""A compiled solve gives the numbers of the plain loop, to rounding, and says so where it cannot."""

import math
import subprocess
import sys
import warnings

import pytest
import torch

import sdekit as sk
from sdekit.compiled import adaptive, fixed, graphs
from sdekit.errors import Incompatible
from sdekit.protocols import Calculus, Dense, Noise
from sdekit.solvers import ALL

GBM = sk.ItoSDE(lambda t, x: 0.5 * x, lambda t, x: 0.3 * x, noise=Noise.DIAGONAL)


@pytest.fixture(autouse=True)
def _few_steps_a_graph(monkeypatch):
    # graphs of few steps are compiled in seconds, and go through the same code
    for module, name, value in ((fixed, "_STEPS", 4), (fixed, "_SMALL_STEPS", 4), (adaptive, "_ATTEMPTS", 1)):
        monkeypatch.setattr(module, name, value)


def _both(sde, x0, t0=0.0, t1=1.0, **arguments):
    plain = sk.solve(sde, x0, t0, t1, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a solve that is not compiled warns
        return plain, sk.solve(sde, x0, t0, t1, compile=True, **arguments)


def _agree(plain, graph, tolerance=1e-5):
    torch.testing.assert_close(graph.x, plain.x, rtol=tolerance, atol=tolerance)
    assert torch.equal(graph.t, plain.t)
    assert graph.stats.model_calls == plain.stats.model_calls
    assert torch.equal(graph.stats.evaluations, plain.stats.evaluations)
    assert torch.equal(graph.stats.accepted, plain.stats.accepted)


@pytest.mark.parametrize(("shape", "dtype"), [((3, 1), torch.float64), ((40, 4), torch.float32)], ids=["few", "many"])
def test_euler_takes_the_same_path(shape, dtype):
    x0, steps = torch.ones(shape, dtype=dtype), sk.FixedSteps(19)
    plain, graph = _both(GBM, x0, solver=sk.EulerMaruyama(), steps=steps, seed=3)
    _agree(plain, graph, 1e-5 if dtype is torch.float32 else 1e-13)


@pytest.mark.slow
def test_samples_do_not_depend_on_their_batch():
    arguments = {"solver": sk.EulerMaruyama(), "steps": sk.FixedSteps(16), "seed": 5, "compile": True}
    whole = sk.solve(GBM, torch.ones(40, 4), 0.0, 1.0, **arguments).x
    part = sk.solve(GBM, torch.ones(3, 4), 0.0, 1.0, first=20, **arguments).x
    torch.testing.assert_close(part, whole[20:23], rtol=1e-5, atol=1e-6)


def test_saved_states_are_those_of_the_plain_loop_on_the_grid_and_off_it():
    for save in (
        sk.SaveAt(times=[0.0, 0.25, 0.3, 0.71, 0.95, 1.0]),
        sk.SaveAt(every=3),
        sk.SaveAt(times=torch.linspace(0, 1, 41, dtype=torch.float64).tolist(), fn=lambda t, x: x * t),
    ):
        x0, steps = torch.ones(5, 2, dtype=torch.float64), sk.FixedSteps(20)
        plain, graph = _both(GBM, x0, solver=sk.EulerMaruyama(), steps=steps, seed=3, save=save)
        _agree(plain, graph, 1e-12)
        bare = sk.solve(GBM, x0, 0.0, 1.0, solver=sk.EulerMaruyama(), steps=steps, seed=3, compile=True)
        torch.testing.assert_close(plain.x[-1] if save.every is None and save.fn is None else bare.x, bare.x)


@pytest.mark.slow
def test_a_solver_that_draws_for_itself_and_a_backward_law():
    process = sk.VP()
    score = sk.GaussianData(torch.zeros(3, dtype=torch.float64), std=0.5).score(process)
    solver = sk.PredictorCorrector(sk.ReverseDiffusion(), sk.Langevin(snr=0.1))
    x0 = process.prior_sample((6, 3), seed=0, dtype=torch.float64)
    plain, graph = _both(sk.reverse(process, score), x0, 1.0, 0.01, solver=solver, steps=sk.FixedSteps(26), seed=2)
    _agree(plain, graph, 1e-10)
    torch.testing.assert_close(graph.mean, plain.mean, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_spans_of_a_sample_s_own_and_paths_that_are_given():
    x0 = torch.ones(5, 2, dtype=torch.float64)
    ends = torch.linspace(0.5, 1.0, 5, dtype=torch.float64)
    _agree(*_both(GBM, x0, 0.0, ends, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(8), seed=3), 1e-12)
    path = sk.BrownianTree(0.0, 1.0, (5, 2), seed=4, dtype=torch.float64)
    _agree(*_both(GBM, x0, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(8), path=path), 1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's tracer looks at it
def test_modules_and_their_gradients():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    sde = sk.ItoSDE(lambda t, x: net(x), lambda t, x: 0.2 * torch.ones_like(x), noise=Noise.ADDITIVE)
    x0 = torch.ones(4, 2, dtype=torch.float64)

    def gradient(**how):
        net.zero_grad()
        x = sk.solve(sde, x0, 0.0, 1.0, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(8), seed=1, **how).x
        x.square().sum().backward()
        return [p.grad.clone() for p in net.parameters()]

    for ours, plain in zip(gradient(compile=True), gradient(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        net[0].weight.mul_(2.0)  # a graph must see the new weights
    _agree(*_both(sde, x0, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(8), seed=1), 1e-12)


@pytest.mark.slow
def test_a_graph_is_made_once_for_the_same_objects():
    solver, steps = sk.EulerMaruyama(), sk.FixedSteps(8)
    sde = sk.ItoSDE(lambda t, x: 0.1 * x, lambda t, x: 0.2 * x, noise=Noise.DIAGONAL)
    sk.solve(sde, torch.ones(2, 2), 0.0, 1.0, solver=solver, steps=steps, compile=True)
    kept = dict(graphs._graphs)
    sk.solve(sde, torch.ones(2, 2), 0.0, 2.0, solver=solver, steps=steps, seed=7, compile=True)
    assert dict(graphs._graphs) == kept


def test_what_cannot_be_compiled_is_solved_with_one_warning():
    def drift(t, x):
        return -x if float(x.sum()) > 0 else x  # depends on a value: no graph holds that

    sde = sk.ODE(drift)
    arguments = {"solver": sk.Euler(), "steps": sk.FixedSteps(12)}
    plain = sk.solve(sde, torch.ones(2, 2), 0.0, 1.0, **arguments)
    with pytest.warns(UserWarning, match="was not compiled, and goes on step by step") as record:
        graph = sk.solve(sde, torch.ones(2, 2), 0.0, 1.0, compile=True, **arguments)
    assert len(record) == 1
    _agree(plain, graph, 0.0)


def test_without_a_compiler_there_is_one_warning():
    # in a process of its own, with no cache and no compiler
    script = """
import warnings, torch, sdekit as sk
sde = sk.ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * x, noise=sk.Noise.DIAGONAL)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    sol = sk.solve(sde, torch.ones(2, 2), 0.0, 1.0, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(128), compile=True)
ours = [w for w in caught if "not compiled" in str(w.message)]
assert len(ours) == 1, [str(w.message) for w in caught]
print("fine", sol.ok)
"""
    nowhere = {"CXX": "/nonexistent/c++", "PATH": "/nonexistent"}
    environment = {**nowhere, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "fine True", done.stderr[-2000:]


def test_events_interpolants_and_other_gradients_are_refused():
    arguments = {"solver": sk.Dopri5(), "steps": sk.FixedSteps(8), "compile": True}
    ode, x0 = sk.ODE(lambda t, x: -x), torch.ones(2, 1)
    with pytest.raises(Incompatible, match="event"):
        sk.solve(ode, x0, 0.0, 1.0, event=sk.Event(lambda t, x: x[:, 0] - 0.5), **arguments)
    with pytest.raises(Incompatible, match="interpolants"):
        sk.solve(ode, x0, 0.0, 1.0, save=sk.SaveAt(dense=True), **arguments)
    with pytest.raises(Incompatible, match="gradient"):
        sk.solve(ode, x0, 0.0, 1.0, gradient=sk.Checkpointed(), **arguments)


def _problem(noise, calculus):
    """An SDE of this class, in two components."""
    if noise is Noise.NONE:
        return sk.ODE(lambda t, x: -0.7 * x + torch.sin(t))
    make = sk.StratonovichSDE if calculus is Calculus.STRATONOVICH else sk.ItoSDE
    matrix = torch.tensor([[0.3, 0.1], [0.0, 0.2]], dtype=torch.float64)
    forms = {
        Noise.ADDITIVE: lambda t, x: (0.3 + 0.1 * t) * torch.ones_like(x),
        Noise.DIAGONAL: lambda t, x: 0.3 * torch.cos(x),
        Noise.SCALAR: lambda t, x: 0.3 * torch.cos(x),
    }
    form = forms.get(noise, lambda t, x: Dense(0.2 * torch.cos(x).unsqueeze(-1) * matrix))
    return make(lambda t, x: -0.7 * x + torch.sin(t), form, noise=noise)


STEP_BY_STEP = {"Adams", "Rodas5P", "DriftImplicitEuler", "SplitStepEuler", "BAOAB", "QUICSORT", "ExponentialEuler"}
"""Solvers of special equations, or that decide by values: they may answer with a warning."""


@pytest.mark.slow
@pytest.mark.parametrize("solver", [s for s in ALL if s.__name__ not in STEP_BY_STEP], ids=lambda s: s.__name__)
def test_every_solver_takes_the_same_path(solver):
    noises = [n for n in (Noise.DIAGONAL, Noise.GENERAL) if n in solver().orders] or [list(solver().orders)[-1]]
    for noise in noises:
        sde = _problem(noise, solver().calculus or Calculus.ITO)
        x0 = torch.full((3, 2), 0.5, dtype=torch.float64)
        _agree(*_both(sde, x0, solver=solver(), steps=sk.FixedSteps(10), seed=1), 1e-10)


@pytest.mark.slow
def test_the_order_holds_on_the_compiled_path():
    # GBM on one path, whose solution is x₀ exp((μ − σ²/2) T + σ W)
    count, errors = 2000, []
    x0 = torch.ones(count, 1, dtype=torch.float64)
    path = sk.BrownianGrid(torch.linspace(0, 1, 129, dtype=torch.float64), (count, 1), seed=0)
    whole = path.increment(sk.Span(torch.tensor(0.0), torch.tensor(1.0), 1.0), x0, sk.Levy.W).W
    exact = torch.exp(0.5 - 0.5 * 0.3**2 + 0.3 * whole)
    for n in (32, 64, 128):
        x = sk.solve(GBM, x0, 0.0, 1.0, solver=sk.ItoMilstein(), steps=sk.FixedSteps(n), path=path, compile=True).x
        errors.append(float((x - exact).square().mean().sqrt()))
    assert abs(math.log2(errors[0] / errors[2]) / 2 - 1.0) < 0.1


def test_adaptive_steps_are_those_of_the_plain_loop():
    ode = sk.ODE(lambda t, x: -x * torch.cos(20 * t))
    x0 = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)[:, None].expand(40, 2)
    plain, graph = _both(ode, x0, t1=2.0, solver=sk.Dopri5(), steps=sk.Adaptive(rtol=1e-6, atol=1e-8))
    torch.testing.assert_close(graph.x, plain.x, rtol=1e-10, atol=1e-10)
    for name in ("evaluations", "accepted", "rejected"):
        assert torch.equal(getattr(graph.stats, name), getattr(plain.stats, name))


@pytest.mark.slow
def test_adaptive_steps_with_noise_are_those_of_the_plain_loop():
    sde = sk.ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * torch.ones_like(x), noise=Noise.ADDITIVE)
    x0 = torch.ones(6, 2, dtype=torch.float64)
    plain, graph = _both(sde, x0, solver=sk.Halving(sk.SRA1()), steps=sk.Adaptive(rtol=1e-2, atol=1e-2), seed=3)
    torch.testing.assert_close(graph.x, plain.x, rtol=1e-10, atol=1e-10)
    assert torch.equal(graph.stats.accepted, plain.stats.accepted)


@pytest.mark.slow
def test_one_stiff_sample_costs_the_easy_ones_nothing():
    rates = torch.ones(33, 1, dtype=torch.float64)
    rates[7] = 500.0
    ode = sk.ODE(lambda t, x: -x[:, 1:] * torch.tensor([1.0, 0.0], dtype=x.dtype) * x)
    x0 = torch.cat((torch.ones_like(rates), rates), 1)
    steps = sk.Adaptive(rtol=1e-5, atol=1e-7)
    _, graph = _both(ode, x0, solver=sk.Dopri5(), steps=steps)
    easy = sk.solve(ode, x0[:1], 0.0, 1.0, solver=sk.Dopri5(), steps=steps)
    assert torch.equal(graph.stats.evaluations[:7], easy.stats.evaluations.expand(7))
    assert int(graph.stats.evaluations[7]) > 5 * int(easy.stats.evaluations[0])


def test_adaptive_solves_that_are_watched_go_step_by_step_and_say_so():
    ode, x0 = sk.ODE(lambda t, x: -x), torch.ones(2, 1, dtype=torch.float64)
    arguments = {"solver": sk.Dopri5(), "steps": sk.Adaptive(rtol=1e-6, atol=1e-8), "save": sk.SaveAt(times=[0.3, 1.0])}
    with pytest.warns(UserWarning, match="looked at step by step"):
        graph = sk.solve(ode, x0, 0.0, 1.0, compile=True, **arguments)
    assert torch.equal(graph.x, sk.solve(ode, x0, 0.0, 1.0, **arguments).x)
