"""Random ill-formed calls: each is answered by an error that was written for it, or by a correct result.

A call is a well-formed one with one to three of its arguments replaced by something else. An answer is good if it is

* a ValueError, TypeError or SolveFailed raised by a `raise` statement of sdekit, with a message of some words; or what
  Python itself says of a wrong number or name of arguments; or
* a result that passes the entry's own check: finite, of the shape and dtype asked for.

Anything else is a complaint: an error from the depths of torch, a NaN without a word, a call that hangs. `python -O` runs
this file as a script, since nothing here may depend on assert statements.
"""

from __future__ import annotations

import linecache
import math
import os
import random
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import sdekit as sk
from sdekit.girsanov import path_kl
from sdekit.gradients import Checkpointed, ReversibleAdjoint
from sdekit.solvers import ALL, STRUCTURED

SECONDS = 20  # a call that takes longer hangs


# --- what may be passed -----------------------------------------------------------------------------


def _drift(t, x):
    return -x


def _noise(t, x):
    return 0.5 * torch.ones_like(x)


def _score(t, x):
    return -x


class _NotAnSDE:
    pass


class _HalfAnSDE:
    noise, calculus, direction = sk.Noise.DIAGONAL, sk.Calculus.ITO, sk.Direction.FORWARD
    drift = staticmethod(_drift)


def _x(*shape, dtype=torch.float32):
    return torch.full(shape, 0.5, dtype=dtype)


ANYTHING = [
    None, True, 0, 1, -1, 2.5, math.nan, math.inf, -math.inf, 1e300, "", "x", b"", [], [0.1, "a"], (), {}, object(), _NotAnSDE,
    torch.tensor(0.5), torch.tensor([]), torch.tensor(math.nan), torch.ones(3), torch.ones(2, 2, 2), 1j, lambda: 1,
]  # fmt: skip
STATES = [
    _x(2), _x(), _x(0, 3), _x(2, 0), _x(4, 1), _x(2, 3, 4, 4), _x(4, 3, dtype=torch.float64), _x(4, 3).half(),
    _x(4, 3).bfloat16(), torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 3, dtype=torch.complex64),
    torch.ones(4, 3, dtype=torch.bool), _x(4, 3).numpy(), [[0.5]], _x(4, 3) * math.nan, _x(4, 3) / 0, _x(4, 3).to_sparse(),
    torch.empty(4, 3, device="meta"), _x(3, 4).T, _x(1, 3).expand(4, 3), torch.nn.Parameter(_x(4, 3)),
]  # fmt: skip
TIMES = [
    0.0, 1.0, -1.0, 0, "0", math.nan, math.inf, 1e-300, 1e300, None, True, torch.tensor(0.3), torch.tensor([0.3]),
    torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.1, -0.2, 0.3, 0.4]), torch.tensor([0.1, math.nan, 0.3, 0.4]),
    torch.tensor([1, 1, 1, 1]), torch.zeros(4, 1), [0.1, 0.2], [0.1, 0.2, 0.3, 0.4], 1j,
]  # fmt: skip
DRIFTS = [
    lambda t, x: None, lambda t, x: 1.0, lambda t, x: x[:1], lambda t, x: x.double().half(), lambda t, x: x.sum(),
    lambda t, x: x * math.nan, lambda t, x: x.flatten(), lambda t, x: (x,), lambda t, x: x.long(), lambda x: x,
    lambda t, x: x[:, :1], lambda t, x: sk.Dense(x), lambda t, x: x.unsqueeze(-1), lambda t, x: x.numpy(),
    lambda t, x: x / 0, lambda t, x: x**9 * 1e9, torch.nn.Linear(3, 3), 0.5, None, "drift",
]  # fmt: skip
DIFFUSIONS = [
    *DRIFTS, lambda t, x: sk.Dense(torch.ones(2, 5)), lambda t, x: sk.Dense(None), lambda t, x: torch.ones(7),
    lambda t, x: sk.Dense(torch.ones(*x.shape, 2)), lambda t, x: sk.Dense(torch.ones(*x.shape, 2).double()),
    lambda t, x: sk.Dense(torch.ones(*x.shape, 0)), lambda t, x: torch.tensor(0.3), lambda t, x: -torch.ones_like(x),
]  # fmt: skip
CLASSES = [*sk.Noise, *sk.Calculus, *sk.Direction, *sk.Levy, "diagonal", "ito"]
SDES = [
    sk.ODE(_drift), sk.ItoSDE(_drift, _noise, sk.Noise.ADDITIVE), sk.StratonovichSDE(_drift, _noise, sk.Noise.DIAGONAL),
    sk.ItoSDE(_drift, lambda t, x: sk.Dense(torch.ones(*x.shape, 2) * 0.1), sk.Noise.GENERAL),
    sk.ItoSDE(_drift, _noise, sk.Noise.SCALAR), sk.VP(), sk.VP, sk.reverse(sk.VP(), _score), sk.ItoSDE,
    sk.probability_flow(sk.VP(), _score), sk.LinearSDE(torch.eye(3)), sk.LinearSDE(torch.eye(5)), _NotAnSDE(), _HalfAnSDE(),
    _drift, torch.nn.Linear(3, 3), sk.OrnsteinUhlenbeck(), sk.CIR(), sk.GeometricBrownianMotion(),
]  # fmt: skip
SOLVERS = [*(kind() for kind in ALL), *(kind() for kind in STRUCTURED[:6]), sk.EulerMaruyama, sk.Langevin(), "euler"]
STEPS = [
    sk.FixedSteps(3), sk.FixedSteps(dt=0.4), sk.FixedSteps(dt=1e-300), sk.FixedSteps(dt=1e9), sk.TimeGrid([0.0, 0.5, 1.0]),
    sk.TimeGrid([1.0, 0.0]), sk.TimeGrid([0.0, 2.0]), sk.Adaptive(rtol=1e-2, atol=1e-2, max_steps=40), sk.FixedSteps, 10, 0.1,
    sk.Adaptive(rtol=1e-300, atol=0.0, max_steps=40), sk.Adaptive(rtol=0.0, atol=1e300, max_steps=40),
    sk.Adaptive(rtol=1e-2, atol=1e-2, min_step=10.0, max_step=20.0), sk.Adaptive(rtol=1.0, atol=0, first_step=1e9),
    sk.Adaptive(rtol=1e-2, atol=1e-2, max_steps=40, jump_times=[0.5, 0.5, 9.0, -1.0]),
]  # fmt: skip
SAVES = [
    sk.SaveAt(times=[0.5]), sk.SaveAt(times=[0.0, 0.3, 1.0]), sk.SaveAt(times=[0.7, 0.3]), sk.SaveAt(times=[2.0]),
    sk.SaveAt(every=1), sk.SaveAt(every=1000), sk.SaveAt(dense=True), sk.SaveAt(times=[0.5], fn=lambda t, x: None),
    sk.SaveAt(times=[0.2, 0.5], fn=lambda t, x: x.mean()), sk.SaveAt(times=[0.5], fn=lambda t, x: x[:, 0]), [0.5], sk.SaveAt,
    sk.SaveAt(times=[0.5], fn=lambda x: x), sk.SaveAt(times=[0.5], fn=lambda t, x: x.long()),
]  # fmt: skip
PATHS = [
    sk.BrownianTree(0.0, 1.0, (4, 3), levy=sk.Levy.K), sk.BrownianTree(0.0, 1.0, (2, 3)), sk.BrownianTree(0.2, 0.6, (4, 3)),
    sk.BrownianGrid([0.0, 0.5, 1.0], (4, 3)), sk.FreshIncrements(sk.KeyedDraws(0)), sk.BrownianTree, sk.Replay({}),
    sk.BrownianTree(-9.0, 9.0, (4, 1)),
]  # fmt: skip
EVENTS = [
    sk.Event(lambda t, x: x[:, 0] - 0.4), sk.Event(lambda t, x: x), sk.Event(lambda t, x: 1.0), sk.Event(lambda x: x),
    sk.Event(lambda t, x: x[:, 0] * math.nan), sk.Event(lambda t, x: x[:, 0].detach().numpy()), sk.Event,
    sk.Event(lambda t, x: x[:, 0] > 0.4),
]  # fmt: skip
SEEDS = [0, -5, 2**70, 1.5, "0", True, None, sk.KeyedDraws(3), sk.Replay({}), torch.tensor(3), object()]
GRADIENTS = [Checkpointed(), Checkpointed(segments=2), ReversibleAdjoint(), Checkpointed, "adjoint"]
DATA = [
    sk.GaussianMixture(means=torch.zeros(1, 3), stds=1.0), sk.GaussianMixture(means=torch.zeros(2, 5), stds=1.0),
    sk.GaussianData(mean=torch.zeros(3), std=0.5), sk.IsotropicGaussian(1.0),
]  # fmt: skip
PROCESSES = [
    sk.VP(),
    sk.VE(),
    sk.EDM(),
    sk.SubVP(),
    sk.Cosine(),
    sk.RectifiedFlow(),
    sk.OrnsteinUhlenbeck(),
    sk.VP,
    None,
]


# --- what may be called -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A call with well-formed arguments, what may stand in their place, and what a result must be."""

    name: str
    call: Callable[..., Any]
    good: dict[str, Callable[[], Any]]
    check: Callable[[dict[str, Any], Any], str | None]
    pools: dict[str, list[Any]]
    weight: int = 1


def _finite(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and bool(torch.isfinite(x.detach()).all())


def _check_solution(given: dict[str, Any], sol: Any) -> str | None:
    x0 = given["x0"]
    ended = (sol.status == sk.Status.OK) | (sol.status == sk.Status.EVENT)
    if given.get("on_failure", "raise") == "raise" and not bool(ended.all()):
        return "returned failed samples without being asked to"
    shape = tuple(sol.x.shape)
    if given.get("save") is None and shape != tuple(x0.shape):
        return f"gave a state of shape {shape} for {tuple(x0.shape)}"
    if given.get("save") is None and sol.x.dtype != x0.dtype:
        return f"gave {sol.x.dtype} for {x0.dtype}"
    stopped = bool((sol.status == sk.Status.EVENT).any())
    if bool(ended.all()) and not stopped and not _finite(sol.x):
        return "gave numbers that are not finite, with status OK"
    return None


def _check_use(given: dict[str, Any], result: Any) -> str | None:
    tensors = result if isinstance(result, tuple) else (result,)
    return None if all(_finite(t) for t in tensors) else f"gave {result!r}"


def _check_density(given: dict[str, Any], result: Any) -> str | None:
    """A log-density may be −∞, where a state lies too far out for its dtype."""
    good = isinstance(result, torch.Tensor) and not bool((result.isnan() | (result == math.inf)).any())
    return None if good else f"gave {result!r}"


def _check_none(given: dict[str, Any], result: Any) -> str | None:
    return None


def _solve_entry(sde: Any, solver: Any, weight: int) -> Entry:
    good = {
        "sde": lambda: sde,
        "x0": lambda: _x(4, 3),
        "t0": lambda: 0.0,
        "t1": lambda: 1.0,
        "solver": lambda: solver,
        "steps": lambda: sk.FixedSteps(4),
    }
    pools = {
        "sde": SDES, "x0": STATES, "t0": TIMES, "t1": TIMES, "solver": SOLVERS, "steps": STEPS, "save": SAVES, "path": PATHS,
        "event": EVENTS, "seed": SEEDS, "first": [0, 3, -1, 1.5, "a", None, 2**40], "gradient": GRADIENTS,
        "on_failure": ["return", "raise", "ignore", None, 0], "progress": ["bar", 3, lambda f: None], "solvr": [1],
    }  # fmt: skip
    return Entry("solve", sk.solve, good, _check_solution, pools, weight)


def _solve_function(kind: Any) -> Callable[..., Any]:
    def call(drift: Any, diffusion: Any, noise: Any, direction: Any, solver: Any, x0: Any) -> Any:
        sde = kind(drift) if kind is sk.ODE else kind(drift, diffusion, noise, direction)
        t = (0.0, 1.0) if direction is sk.Direction.FORWARD else (1.0, 0.0)
        return sk.solve(sde, x0, *t, solver=solver, steps=sk.FixedSteps(3))

    return call


def _walk(sde: Any) -> Any:
    x = torch.full((3, 2), 0.4, dtype=torch.float64)
    t0, t1 = getattr(sde, "t_min", 0.1), getattr(sde, "t_max", 0.6)
    if not hasattr(sde, "t_min"):
        t0, t1 = 0.1, 0.6
    return sk.solve(sde, x, t0, t1, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(64)).x


def _made(kind: Any, use: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda **arguments: use(kind(**arguments))


def _stepped(steps: Any) -> Any:
    return sk.solve(sk.ODE(_drift), _x(2, 2), 0.0, 1.0, solver=sk.Dopri5(), steps=steps).x


def _saved(save: Any) -> Any:
    x = sk.solve(sk.ODE(_drift), _x(2, 2), 0.0, 1.0, solver=sk.Dopri5(), steps=sk.FixedSteps(3), save=save).x
    return x.to(torch.float64)


def _eventful(event: Any) -> Any:
    return sk.solve(sk.ODE(_drift), _x(2, 2), 0.0, 1.0, solver=sk.RK4(), steps=sk.FixedSteps(3), event=event).x


def _asked(tree: Any, ta: Any, tb: Any) -> Any:
    return tuple(part for part in tree(ta, tb)[:3] if part is not None)


def _drawn(seed: Any, first: Any) -> Any:
    return sk.KeyedDraws(seed, first).normal(sk.Purpose.USER, 3, (2, 3), torch.float64, torch.device("cpu"))


def _sampled(data: Any) -> Any:
    return data.sample(5, seed=1), data.score(sk.VP())(0.5, _x(2, 3))


def _gridded(grid: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **arguments: torch.tensor(grid(**arguments).times)


def _reversed(process: Any, score: Any, churn: Any, x0: Any) -> Any:
    sde = sk.reverse(process, score, churn)
    solver = sk.Dopri5() if sde.noise is sk.Noise.NONE else sk.EulerMaruyama()
    return sk.solve(sde, x0, 0.9, 0.1, solver=solver, steps=sk.FixedSteps(3))


def _corrected(**arguments: Any) -> Any:
    sampler = sk.PredictorCorrector(arguments.pop("predictor"), sk.Langevin(**arguments.pop("langevin")), **arguments)
    return sk.solve(sk.reverse(sk.VP(), _score), _x(4, 3), 1.0, 1e-3, solver=sampler, steps=sk.FixedSteps(3)).x


def _constructor(
    kind: Any, use: Callable[[Any], Any], good: dict[str, Any], pools: dict[str, list[Any]] | None = None
) -> Entry:
    makers = {name: (lambda value=value: value) for name, value in good.items()}
    check = _check_none if kind is sk.SaveAt else _check_use  # what a function of the user's gives is saved as it is
    return Entry(kind.__name__, _made(kind, use), makers, check, pools or {})


def _function_pools() -> dict[str, list[Any]]:
    return {
        "drift": DRIFTS,
        "diffusion": DIFFUSIONS,
        "noise": CLASSES,
        "direction": CLASSES,
        "solver": SOLVERS,
        "x0": STATES,
    }


def entries() -> list[Entry]:
    """All of them; built anew for every run, so that nothing is carried over."""
    additive = sk.ItoSDE(_drift, _noise, sk.Noise.ADDITIVE)
    diagonal = sk.ItoSDE(_drift, lambda t, x: 0.2 * x, sk.Noise.DIAGONAL)
    dense = sk.ItoSDE(_drift, lambda t, x: sk.Dense(0.1 * torch.stack((x, x), -1)), sk.Noise.GENERAL)
    found = [
        _solve_entry(sk.ODE(_drift), sk.Dopri5(), 8),
        _solve_entry(additive, sk.SRA1(), 6),
        _solve_entry(diagonal, sk.ItoMilstein(), 6),
        _solve_entry(dense, sk.EulerMaruyama(), 4),
        _solve_entry(sk.StratonovichSDE(_drift, _noise, sk.Noise.DIAGONAL), sk.Heun(), 4),
    ]
    for kind, solver in ((sk.ItoSDE, sk.EulerMaruyama()), (sk.StratonovichSDE, sk.Heun()), (sk.ODE, sk.RK4())):
        good = {
            "drift": lambda: _drift,
            "diffusion": lambda: _noise,
            "noise": lambda: sk.Noise.DIAGONAL,
            "direction": lambda: sk.Direction.FORWARD,
            "solver": lambda solver=solver: solver,
            "x0": lambda: _x(4, 3),
        }
        found.append(Entry(kind.__name__, _solve_function(kind), good, _check_solution, _function_pools(), 5))
    found += [
        _constructor(sk.FixedSteps, _stepped, {"n": 4}, {"n": [0, -1, 2.5, 10**4], "dt": [0.0, -0.1, 0.3, 1e-320]}),
        _constructor(
            sk.TimeGrid, _stepped, {"times": [0.0, 0.4, 1.0]}, {"times": [[1.0, 0.0], [0.0, 0.0, 1.0], [0.0], TIMES]}
        ),
        _constructor(
            sk.SaveAt,
            _saved,
            {"times": [0.3, 0.9]},
            {"times": [TIMES, [0.9, 0.1], *TIMES], "fn": DRIFTS, "every": [1, 5]},
        ),
        _constructor(sk.Event, _eventful, {"condition": lambda t, x: x[:, 0] - 0.4}, {"condition": DRIFTS}),
        _constructor(
            sk.Adaptive,
            _stepped,
            {"rtol": 1e-3, "atol": 1e-3, "max_steps": 60},
            {
                "rtol": [0.0, -1.0, 1e-300],
                "atol": [0.0, -1.0],
                "jump_times": [[0.5], [0.5, 0.5], "ab", [[1]]],
                "pid": [(0, 0, 0), (1, 2), "pid"],
            },
        ),
        _constructor(sk.VP, _walk, {"beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3, "t_max": 1.0}),
        _constructor(sk.SubVP, _walk, {"beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3, "t_max": 1.0}),
        _constructor(sk.VE, _walk, {"sigma_min": 0.01, "sigma_max": 50.0, "t_min": 1e-5, "t_max": 1.0}),
        _constructor(sk.EDM, _walk, {"sigma_min": 0.002, "sigma_max": 80.0}),
        _constructor(sk.Cosine, _walk, {"t_min": 1e-3, "t_max": 0.999}),
        _constructor(sk.RectifiedFlow, _walk, {"t_min": 1e-3, "t_max": 0.999}),
        _constructor(
            sk.LinearSDE,
            _walk,
            {"A": -torch.eye(2), "b": 0.0, "L": 1.0},
            {"A": [torch.ones(2, 3), torch.eye(7)], "L": [torch.ones(3, 2)]},
        ),
        _constructor(
            sk.OrnsteinUhlenbeck, _walk, {"theta": 1.0, "mu": 0.0, "sigma": 1.0}, {"theta": [torch.ones(2, 3)]}
        ),
        _constructor(sk.GeometricBrownianMotion, _walk, {"mu": 0.1, "sigma": 0.2}),
        _constructor(sk.CIR, _walk, {"kappa": 1.0, "theta": 1.0, "sigma": 0.5}),
        _constructor(sk.DoubleWell, _walk, {"height": 1.0, "width": 1.0, "temperature": 0.5}),
        _constructor(sk.FitzHughNagumo, _walk, {"a": 0.7, "sigma1": 0.1}),
        _constructor(sk.LotkaVolterra, _walk, {"alpha": 1.0, "sigma1": 0.1}),
        _constructor(
            sk.GaussianData,
            _sampled,
            {"mean": torch.zeros(3), "std": 0.5},
            {"cov": [torch.eye(3), torch.eye(2), -torch.eye(3)]},
        ),
        _constructor(
            sk.GaussianMixture,
            _sampled,
            {"means": torch.zeros(2, 3), "stds": 0.5},
            {
                "weights": [torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0]), [1.0, 2.0]],
                "stds": [torch.ones(3), -1.0],
                "covs": [torch.eye(3)],
            },
        ),
        Entry(
            "KeyedDraws",
            _drawn,
            {"seed": lambda: 1, "first": lambda: 0},
            _check_use,
            {"seed": SEEDS, "first": [3, -1, 1.5, 2**40]},
        ),
        Entry(
            "BrownianTree",
            lambda ta, tb, **a: _asked(sk.BrownianTree(**a), ta, tb),
            {"ta": lambda: 0.2, "tb": lambda: 0.7, "t0": lambda: 0.0, "t1": lambda: 1.0, "shape": lambda: (3, 2)},
            _check_use,
            {
                "ta": TIMES,
                "tb": TIMES,
                "t0": TIMES,
                "t1": TIMES,
                "shape": [(), (0, 2), (-1, 2), "ab", 3, (2.5,)],
                "seed": SEEDS,
                "levy": CLASSES,
                "tol": [0.0, -1.0, 1e-300, 5.0, "a"],
                "first": [-1, 2.5, "a"],
                "dtype": ["float", None, torch.int64],
            },
            3,
        ),
        Entry(
            "BrownianGrid",
            lambda **a: (
                sk.solve(
                    additive,
                    _x(4, 3),
                    0.0,
                    1.0,
                    solver=sk.EulerMaruyama(),
                    steps=sk.FixedSteps(2),
                    path=sk.BrownianGrid(**a),
                ).x
            ),
            {"times": lambda: [0.0, 0.5, 1.0], "shape": lambda: (4, 3)},
            _check_use,
            {
                "times": [[0.0], [1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0], [0.0, math.nan], "ab"],
                "shape": [(4,), (2, 3), ()],
                "levy": CLASSES,
                "seed": SEEDS,
            },
        ),
        Entry(
            "reverse",
            _reversed,
            {"process": lambda: sk.VP(), "score": lambda: _score, "churn": lambda: 1.0, "x0": lambda: _x(4, 3)},
            _check_solution,
            {"process": [*SDES, *PROCESSES], "score": DRIFTS, "churn": [0.0, -1.0, 0.5, "a", None], "x0": STATES},
            4,
        ),
        Entry(
            "log_likelihood",
            lambda **a: sk.log_likelihood(**a).log_prob,
            {
                "process": lambda: sk.VP(),
                "score": lambda: _score,
                "x": lambda: _x(4, 3),
                "solver": lambda: sk.RK4(),
                "steps": lambda: sk.FixedSteps(3),
            },
            _check_density,
            {
                "process": [*SDES, *PROCESSES],
                "score": [*DRIFTS, lambda t, x: -x.detach()],
                "x": STATES,
                "solver": SOLVERS,
                "steps": STEPS,
                "divergence": [sk.Exact(), sk.Hutchinson(2), sk.Exact, 3],
                "t_min": TIMES,
                "t_max": TIMES,
                "prior": [*DATA, 3],
                "seed": SEEDS,
            },
            4,
        ),
        Entry(
            "path_kl",
            lambda **a: path_kl(**a).kl,
            {
                "posterior": lambda: additive,
                "prior": lambda: additive,
                "x0": lambda: _x(4, 3),
                "t0": lambda: 0.0,
                "t1": lambda: 1.0,
                "solver": lambda: sk.EulerMaruyama(),
                "steps": lambda: sk.FixedSteps(3),
            },
            _check_use,
            {
                "posterior": SDES,
                "prior": SDES,
                "x0": STATES,
                "t0": TIMES,
                "t1": TIMES,
                "solver": SOLVERS,
                "steps": STEPS,
                "save": SAVES,
                "seed": SEEDS,
            },
            4,
        ),
        Entry(
            "PredictorCorrector",
            _corrected,
            {"predictor": lambda: sk.ReverseDiffusion(), "langevin": lambda: {"snr": 0.16}},
            _check_use,
            {
                "predictor": [*SOLVERS, sk.Ancestral(), None],
                "order": ["pc", "cp", "xx", None],
                "langevin": [{"snr": s} for s in (0.0, -1.0, math.nan, "a", None)]
                + [{"steps": s} for s in (0, -1, 1.5, "a")],
            },
        ),
        _constructor(
            sk.Hutchinson, lambda d: torch.tensor(d.probes), {"probes": 2}, {"kind": ["gaussian", "uniform", 3]}
        ),
        Entry(
            "Halving",
            lambda solver: _stepped_by(sk.Halving(solver)),
            {"solver": lambda: sk.RK4()},
            _check_use,
            {"solver": SOLVERS},
        ),
        Entry("to_ito", lambda sde: _walk(sk.to_ito(sde)), {"sde": lambda: additive}, _check_use, {"sde": SDES}),
        Entry(
            "measured_noise",
            lambda **a: sk.measured_noise(**a),
            {"sde": lambda: diagonal, "t": lambda: torch.tensor(0.5), "x": lambda: _x(4, 3)},
            _check_none,
            {"sde": SDES, "t": TIMES, "x": STATES},
        ),
    ]
    for grid in (
        sk.uniform_grid,
        sk.karras_grid,
        sk.log_snr_grid,
        sk.quadratic_grid,
        sk.polyexponential_grid,
        sk.angle_grid,
    ):
        good = {"process": lambda: sk.VP(), "n": lambda: 5}
        pools = {
            "process": [*SDES, *PROCESSES],
            "n": [0, -1, 1, 2.5, "a"],
            "t0": TIMES,
            "t1": TIMES,
            "final": ["stop", "zero", 3],
        }
        found.append(Entry(grid.__name__, _gridded(grid), good, _check_use, pools))
    return found


def _stepped_by(solver: Any) -> Any:
    return sk.solve(sk.ODE(_drift), _x(2, 2), 0.0, 1.0, solver=solver, steps=sk.FixedSteps(3)).x


# --- the examination --------------------------------------------------------------------------------


class Hang(BaseException):
    """The time for one call is up."""


@contextmanager
def _limited(seconds: int) -> Any:
    def ring(number: int, frame: Any) -> None:
        raise Hang

    # of the process's own time: a machine that is busy makes no call hang
    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


PACKAGE = os.path.dirname(os.path.abspath(sk.__file__))


def _raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` statement of the package, or of a function passed to it, made this error."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    if tb is None:
        return False
    code, line = tb.tb_frame.f_code, linecache.getline(tb.tb_frame.f_code.co_filename, tb.tb_lineno).strip()
    return os.path.abspath(code.co_filename).startswith(PACKAGE + os.sep) and line.startswith("raise ")


def _raised_by_the_users_function(error: BaseException) -> bool:
    """Whether a function passed as an argument failed by itself."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return len(frames) > 1 and frames[-1].co_name == "<lambda>" and frames[-1].co_filename == __file__


def _complaint(entry: Entry, given: dict[str, Any]) -> str | None:
    try:
        with _limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = entry.call(**given)
            return entry.check(given, result)
    except Hang:
        return "hangs"
    except (ValueError, TypeError, sk.SolveFailed) as error:
        message = str(error)
        if _raised_by_us(error) and len(message.split()) >= 4:
            return None
        if isinstance(error, TypeError) and "argument" in message and "()" in message:
            return None  # Python's own word on a wrong call of a function of ours, or of the user's
        return f"{type(error).__name__}: {message[:150]}" + _where(error)
    except Exception as error:
        if _raised_by_the_users_function(error):
            return None
        return f"{type(error).__name__}: {str(error)[:150]}" + _where(error)


def _where(error: BaseException) -> str:
    tb, place = error.__traceback__, ""
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        if name.startswith(PACKAGE):
            place = f" [{os.path.relpath(name, PACKAGE)}:{tb.tb_lineno}]"
        tb = tb.tb_next
    return place


def _show(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor{tuple(value.shape)}:{str(value.dtype)[6:]}"
    text = getattr(value, "__name__", None) or repr(value)
    return text[:60].replace("\n", " ")


def examine(count: int, seed: int) -> list[str]:
    """The complaints of `count` random calls."""
    dice, found = random.Random(seed), []
    choices = entries()
    weights = [entry.weight for entry in choices]
    for _ in range(count):
        entry = dice.choices(choices, weights)[0]
        given = {name: make() for name, make in entry.good.items()}
        names = sorted({*entry.good, *entry.pools})
        changed = dice.sample(names, min(len(names), dice.choice([1, 1, 1, 2, 2, 3])))
        for name in changed:
            pool = entry.pools.get(name, [])
            given[name] = dice.choice(pool if pool and dice.random() < 0.75 else ANYTHING)
        complaint = _complaint(entry, given)
        if complaint is not None:
            found.append(f"{entry.name}({', '.join(f'{name}={_show(given[name])}' for name in changed)}): {complaint}")
    return found


def _report(found: list[str]) -> str:
    return f"{len(found)} calls were badly answered:\n" + "\n".join(found[:400])


@pytest.mark.parametrize("seed", range(3))
def test_ill_formed_calls_are_answered_by_an_error_that_teaches_or_a_correct_result(seed):
    found = examine(250, seed)
    assert not found, _report(found)


@pytest.mark.slow
def test_ten_thousand_ill_formed_calls():
    found = examine(10_000, 1000)
    assert not found, _report(found)


def test_nothing_depends_on_assert_statements():
    run = subprocess.run(
        [sys.executable, "-O", __file__, "150", "7"], capture_output=True, text=True, timeout=500, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_examination_notices_bad_answers():
    def bad(**arguments):
        return arguments["x"] if isinstance(arguments["x"], torch.Tensor) else {}["missing"]

    entry = Entry("bad", bad, {"x": lambda: _x(2)}, _check_use, {})
    assert "KeyError" in _complaint(entry, {"x": 3})
    assert "nan" in _complaint(entry, {"x": torch.tensor(math.nan)})
    assert _complaint(entry, {"x": _x(2)}) is None


if __name__ == "__main__":
    complaints = examine(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(_report(complaints) + "\n")
    sys.exit(len(complaints) > 0)
