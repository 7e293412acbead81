"""What a step costs: `python -m benchmarks.throughput [--fast] [--device cuda] [--threads 2] [--out DIR]`.

Everything is measured in one process, on the same problems and threads, in rounds that take every contender in turn, so
that a busy minute of the machine is shared by all; the figures are medians over rounds, with the quartiles beside them.
Contenders: `torch.randn` filling the numbers that the steps need (the floor), a bare Python loop, sdekit as it is and
compiled, torchsde with its default Brownian interval and with a hint of dt, diffrax with its unsafe path and its tree,
torchdiffeq and torchode for ODEs. Peers that are not installed are left out. Compilation is not counted; its time is
given by itself.

Writes throughput.json, throughput.md and throughput.png (with the device's name, where it is not the CPU).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sdekit as sk
from benchmarks import throughput_peers as peers
from benchmarks.throughput_report import write_all

RESULTS = Path(__file__).parent / "results"
Run = Callable[[], Any]


class Case(NamedTuple):
    """One thing to measure: contenders that do the same, each a function that makes `steps` steps."""

    name: str
    shape: tuple[int, ...]
    steps: int
    solver: str
    contenders: dict[str, Run]


class Problem(NamedTuple):
    """An SDE of the benchmark, for sdekit and for others. diffusion: element-wise, or a matrix where `noises` is given."""

    name: str
    drift: Callable[[Any, Any], Any]
    diffusion: Callable[[Any, Any], Any]
    noise: sk.Noise
    noises: int | None = None


def matrix(x: Tensor) -> Tensor:
    """A diffusion matrix `(B, 10, 10)` that does not commute."""
    mixing = torch.arange(100, dtype=x.dtype, device=x.device).reshape(10, 10).sin() * 0.1
    return torch.cos(x).unsqueeze(-1) * mixing


def problems(device: torch.device) -> dict[str, Problem]:
    """The problems by name."""
    net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 16)).to(device)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    found = (
        Problem("GBM", lambda t, x: 0.5 * x, lambda t, x: 0.3 * x, sk.Noise.DIAGONAL),
        Problem("OU, diagonal", lambda t, x: -x, lambda t, x: 0.3 + 0.0 * x, sk.Noise.DIAGONAL),
        Problem("OU, additive", lambda t, x: -x, lambda t, x: torch.full_like(x, 0.3), sk.Noise.ADDITIVE),
        Problem("general, 10 noises", lambda t, x: -x, lambda t, x: sk.Dense(matrix(x)), sk.Noise.GENERAL, 10),
        Problem("MLP drift", lambda t, x: net(x), lambda t, x: torch.full_like(x, 0.3), sk.Noise.ADDITIVE),
    )
    return {problem.name: problem for problem in found}


def bare_loop(problem: Problem, x0: Tensor, steps: int) -> Run:
    """Euler–Maruyama as one would write it by hand, with the same arithmetic."""
    h = 1.0 / steps
    root, generator = math.sqrt(h), torch.Generator(x0.device)

    def run() -> Tensor:
        x, t = x0, torch.tensor(0.0, dtype=torch.float64)
        shape = x0.shape if problem.noises is None else (len(x0), problem.noises)
        for k in range(steps):
            w = torch.randn(shape, device=x0.device, generator=generator) * root
            g = problem.diffusion(t, x)
            noise = g * w if isinstance(g, Tensor) else (g.matrix * w[:, None]).sum(-1)
            x = x + problem.drift(t, x) * h + noise
            t = torch.tensor((k + 1) * h, dtype=torch.float64)
        return x

    return run


def floor(x0: Tensor, problem: Problem, steps: int) -> Run:
    """`torch.randn` and nothing else."""
    shape = x0.shape if problem.noises is None else (len(x0), problem.noises)
    generator = torch.Generator(x0.device)

    def run() -> None:
        for _ in range(steps):
            torch.randn(shape, device=x0.device, generator=generator)

    return run


def ours(sde: Any, x0: Tensor, solver: Any, steps: Any, **options: Any) -> Run:
    """A solve over [0, 1]."""
    return lambda: sk.solve(sde, x0, 0.0, 1.0, solver=solver, steps=steps, **options)


def sde_case(
    problem: Problem,
    shape: tuple[int, ...],
    steps: int,
    device: torch.device,
    solver: str = "Euler",
    others: bool = True,
) -> Case:
    """One problem, size and method."""
    x0 = torch.ones(shape, device=device)
    sde = sk.ItoSDE(problem.drift, problem.diffusion, noise=problem.noise)
    scheme = {"Euler": sk.EulerMaruyama(), "Milstein": sk.ItoMilstein(), "SRK": sk.SRI()}[solver]
    fixed = sk.FixedSteps(steps)
    contenders: dict[str, Run] = {"randn": floor(x0, problem, steps)}
    if solver == "Euler":
        contenders["bare loop"] = bare_loop(problem, x0, steps)
    contenders["sdekit"] = ours(sde, x0, scheme, fixed)
    contenders["sdekit compiled"] = ours(sde, x0, scheme, fixed, compile=True)
    if others:
        contenders |= peers.torchsde_runs(problem, x0, steps, solver)
        if solver == "Euler" and device.type == "cpu" and problem.name == "GBM":
            contenders |= peers.diffrax_runs(shape, steps)
    return Case(problem.name, shape, steps, solver, contenders)


def ode_case(shape: tuple[int, ...], device: torch.device) -> Case:
    """An adaptive solve of a trivial ODE; `steps` is filled in from what is counted."""
    x0 = torch.ones(shape, device=device)
    ode, steps = sk.ODE(lambda t, x: -x * torch.cos(20.0 * t)), sk.Adaptive(rtol=1e-5, atol=1e-5)
    end, solver = 10.0, sk.Dopri5()

    def run(**options: Any) -> Any:
        return sk.solve(ode, x0, 0.0, end, solver=solver, steps=steps, **options)

    stats = run().stats
    contenders: dict[str, Run] = {"sdekit": run, "sdekit compiled": lambda: run(compile=True)}
    taken = int((stats.accepted + stats.rejected).max())
    return Case("ODE, adaptive", shape, taken, "Dopri5", contenders | peers.ode_runs(x0, end, 1e-5))


def saving_case(shape: tuple[int, ...], device: torch.device) -> Case:
    """1,000 steps with 100 saved times, on the grid and off it."""
    problem = problems(device)["GBM"]
    sde, x0 = sk.ItoSDE(problem.drift, problem.diffusion, noise=problem.noise), torch.ones(shape, device=device)
    on, off = [k / 100 for k in range(1, 101)], [k / 100 - 0.0005 for k in range(1, 101)]
    contenders: dict[str, Run] = {}
    for name, options in (("", {}), (" compiled", {"compile": True})):
        for save, times in (("none", None), ("on the grid", on), ("off the grid", off)):
            at = {} if times is None else {"save": sk.SaveAt(times=times)}
            run = ours(sde, x0, sk.EulerMaruyama(), sk.FixedSteps(1000), **options, **at)
            contenders[f"sdekit{name}, saved {save}"] = run
    return Case("saving 100 of 1,000", shape, 1000, "Euler", contenders)


def cases(fast: bool, device: torch.device) -> Iterator[Case]:
    """All cases, small ones first."""
    every = problems(device)
    sizes = (
        ((1, 1), (1024, 16))
        if fast
        else ((1, 1), (16, 16), (256, 16), (1024, 16), (8192, 16), (65_536, 1), (65_536, 16))
    )
    for shape in sizes:
        steps = 192 if fast or math.prod(shape) > 2e4 else 960
        yield sde_case(every["GBM"], shape, steps, device, others=not fast or shape == (1024, 16))
    for name in ("OU, diagonal", "OU, additive", "general, 10 noises", "MLP drift"):
        shape = (1024, 10) if every[name].noises else (1024, 16)
        yield sde_case(every[name], shape, 96 if fast else 480, device)
    for solver in ("Milstein", "SRK"):
        yield sde_case(every["GBM"], (1024, 16), 96 if fast else 480, device, solver)
    for shape in ((1, 1), (1024, 16)):
        yield ode_case(shape, device)
        yield saving_case(shape, device)
    for steps in (100, 1000) if fast else (100, 1000, 10_000):
        for shape in ((1, 1), (1024, 16)):
            yield sde_case(every["GBM"], shape, steps, device, others=False)


def measure(case: Case, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """One row for every contender: µs a step in every round, and the first call's seconds."""
    first: dict[str, float] = {}
    repeats: dict[str, int] = {}
    for name, run in case.contenders.items():
        start = time.perf_counter()
        run()
        first[name] = time.perf_counter() - start
        start = time.perf_counter()
        run()
        repeats[name] = max(1, round(0.1 / (time.perf_counter() - start)))
    found: dict[str, list[float]] = {name: [] for name in case.contenders}
    for _ in range(rounds):
        gc.collect()
        for name, run in case.contenders.items():
            run()  # what ran between has taken its place in the caches
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            found[name].append((time.perf_counter() - start) / (repeats[name] * case.steps) * 1e6)
    return [
        {
            "problem": case.name,
            "shape": list(case.shape),
            "steps": case.steps,
            "solver": case.solver,
            "contender": name,
            "us_per_step": statistics.median(values),
            "quartiles": statistics.quantiles(values, n=4)[::2] if len(values) > 1 else values * 2,
            "rounds": values,
            "first_call_seconds": first[name],
        }
        for name, values in found.items()
    ]


def stiff_neighbour(device: torch.device) -> dict[str, Any]:
    """Evaluations of 1,024 easy samples beside a stiff one, and alone."""
    x = torch.ones(1025, 2, device=device, dtype=torch.float64)
    x[-1, 1] = 1000.0
    sde = sk.ODE(lambda t, x: torch.stack((-x[:, 1] * x[:, 0], torch.zeros_like(x[:, 1])), 1))
    steps, solver = sk.Adaptive(rtol=1e-5, atol=1e-7), sk.Dopri5()
    both = sk.solve(sde, x, 0.0, 1.0, solver=solver, steps=steps).stats.evaluations
    alone = sk.solve(sde, x[:1024], 0.0, 1.0, solver=solver, steps=steps).stats.evaluations
    return {"easy_beside_stiff": int(both[:1024].max()), "easy_alone": int(alone.max()), "stiff": int(both[-1])}


def versions() -> dict[str, str]:
    """Of what was measured."""
    from importlib.metadata import version

    names = ("torch", "torchsde", "torchdiffeq", "torchode", "diffrax", "jax")
    return {name: version(name) for name in names if importlib.util.find_spec(name) is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few sizes, steps and rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, start = torch.device(options.device), time.time()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rounds, rows = options.rounds or (3 if options.fast else 5), list[dict[str, Any]]()
    with torch.no_grad():
        for case in cases(options.fast, device):
            rows += measure(case, rounds, device)
            figures = ", ".join(f"{row['contender']} {row['us_per_step']:.3g}" for row in rows[-len(case.contenders) :])
            print(f"{case.name} {case.solver} {case.shape} × {case.steps}: {figures}", flush=True)
    report = {
        "device": name,
        "threads": options.threads,
        "rounds": rounds,
        "machine": platform.processor() or platform.machine(),
        "versions": versions(),
        "seconds": time.time() - start,
        "stiff_neighbour": stiff_neighbour(device),
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_all(report, options.out)
    print(json.dumps({"seconds": report["seconds"], "out": str(options.out)}))


if __name__ == "__main__":
    main()
