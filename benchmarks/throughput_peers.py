"""The other libraries of `benchmarks.throughput`: each function gives the runs of one, or none where it is not installed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], Any]


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def torchsde_runs(problem: Any, x0: Tensor, steps: int, solver: str) -> dict[str, Run]:
    """torchsde with its default Brownian interval, and with one that is told dt."""
    if not _installed("torchsde"):
        return {}
    import torchsde

    kinds = {"ADDITIVE": "diagonal", "DIAGONAL": "diagonal", "GENERAL": "general"}
    methods = {"Euler": "euler", "Milstein": "milstein", "SRK": "srk"}

    class Sde(torch.nn.Module):
        noise_type = kinds[problem.noise.name]
        sde_type = "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return problem.drift(t, y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            value = problem.diffusion(t, y)
            return value if isinstance(value, Tensor) else value.matrix

    sde, dt = Sde(), 1.0 / steps
    ts = torch.tensor([0.0, 1.0], device=x0.device)
    size = (len(x0), problem.noises or x0.shape[1])

    def run(**options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torchsde.sdeint(sde, x0, ts, dt=dt, method=methods[solver], **options)

    def hinted() -> Any:
        levy = "space-time" if solver == "SRK" else "none"
        path = torchsde.BrownianInterval(
            t0=0.0, t1=1.0, size=size, dt=dt, device=x0.device, dtype=x0.dtype, levy_area_approximation=levy
        )
        return run(bm=path)

    return {"torchsde": run, "torchsde, dt hint": hinted}


def diffrax_runs(shape: tuple[int, ...], steps: int) -> dict[str, Run]:
    """diffrax on geometric Brownian motion, compiled, with its unsafe path and its tree."""
    if not _installed("diffrax"):
        return {}
    diffrax: Any = importlib.import_module("diffrax")
    jax: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    lineax: Any = importlib.import_module("lineax")

    dt, y0 = 1.0 / steps, jnp.ones(shape)
    noise = jax.ShapeDtypeStruct(shape, y0.dtype)

    def solve(key: Any, tree: bool) -> Any:
        if tree:
            path: Any = diffrax.VirtualBrownianTree(0.0, 1.0, tol=dt / 2, shape=noise, key=key)
        else:
            path = diffrax.UnsafeBrownianPath(shape=noise, key=key)
        control: Any = diffrax.ControlTerm(lambda t, y, args: lineax.DiagonalLinearOperator(0.3 * y), path)
        terms = diffrax.MultiTerm(diffrax.ODETerm(lambda t, y, args: 0.5 * y), control)
        solution = diffrax.diffeqsolve(
            terms,
            diffrax.Euler(),
            0.0,
            1.0,
            dt,
            y0,
            max_steps=None if not tree else steps + 2,
            adjoint=diffrax.ForwardMode() if not tree else diffrax.RecursiveCheckpointAdjoint(),
        )
        return solution.ys

    def run(tree: bool) -> Run:
        compiled = jax.jit(lambda key: solve(key, tree))
        key = jax.random.PRNGKey(0)
        return lambda: jax.block_until_ready(compiled(key))

    found: dict[str, Run] = {"diffrax, unsafe path": run(False)}
    numbers = steps
    for n in shape:
        numbers *= n
    if numbers <= 32_000_000:  # beyond that the tree takes minutes
        found["diffrax, tree"] = run(True)
    return found


def ode_runs(x0: Tensor, end: float, tolerance: float) -> dict[str, Run]:
    """torchdiffeq and torchode on `x' = −x cos 20t`, Dormand–Prince 5(4)."""
    found: dict[str, Run] = {}
    if _installed("torchdiffeq"):
        import torchdiffeq

        ts = torch.tensor([0.0, end], device=x0.device)
        found["torchdiffeq"] = lambda: torchdiffeq.odeint(
            lambda t, x: -x * torch.cos(20.0 * t), x0, ts, method="dopri5", rtol=tolerance, atol=tolerance
        )
    if _installed("torchode"):
        torchode: Any = importlib.import_module("torchode")
        term = torchode.ODETerm(lambda t, y: -y * torch.cos(20.0 * t)[:, None])
        control = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
        times = torch.tensor([0.0, end], device=x0.device).expand(len(x0), 2)
        found["torchode"] = lambda: solver.solve(torchode.InitialValueProblem(y0=x0, t_eval=times))
    return found
