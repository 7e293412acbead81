"""Adaptive ODE solves at equal error: `python -m benchmarks.adaptive [--fast] [--out DIR]`.

Every solver runs over a range of tolerances on the same problems, each a batch of 64 samples of different stiffness, in
float64; errors are against a solution converged far below them. What is compared is the number of evaluations of the
right-hand side that one sample's answer needs, and the wall time of the batch, at errors of 1e-3 and 1e-5 read off
the curves. SciPy solves sample by sample, torchdiffeq with one step for the whole batch, sdekit with steps of each sample's
own in one batch; the count is the mean over samples.

Writes adaptive.json, adaptive.md and adaptive.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

import sdekit as sk
from benchmarks.style import curve

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

RESULTS = Path(__file__).parent / "results"
TARGETS = (1e-3, 1e-5)
BATCH = 64
MOST_CALLS = 20_000  # a solve that asks for more is taken to have no end


class Problem(NamedTuple):
    """`x' = f(t, x; rate)` over [0, end], a rate for every sample."""

    name: str
    field: Callable[[Tensor, Tensor, Tensor], Tensor]
    start: tuple[float, ...]
    end: float
    rates: tuple[float, float]


def _volterra(t: Tensor, x: Tensor, rate: Tensor) -> Tensor:
    a, b = x[:, :1], x[:, 1:]
    return rate * torch.cat((1.5 * a - a * b, a * b - 3.0 * b), 1)


def _van_der_pol(t: Tensor, x: Tensor, rate: Tensor) -> Tensor:
    a, b = x[:, :1], x[:, 1:]
    return torch.cat((b, rate * (1.0 - a * a) * b - a), 1)


def _forced(t: Tensor, x: Tensor, rate: Tensor) -> Tensor:
    return -x * torch.cos(rate * t)


PROBLEMS = (
    Problem("Lotka–Volterra, one to eight times the speed", _volterra, (1.0, 1.0), 2.0, (1.0, 8.0)),
    Problem("van der Pol, μ from 1 to 30", _van_der_pol, (2.0, 0.0), 6.0, (1.0, 30.0)),
    Problem("forced decay, frequencies from 1 to 40", _forced, (1.0, 2.0), 10.0, (1.0, 40.0)),
)


class Point(NamedTuple):
    """One solve: root-mean-square error, evaluations a sample, seconds of the batch."""

    tolerance: float
    error: float
    evaluations: float
    seconds: float


class Bench:
    """One problem with its converged solution."""

    def __init__(self, problem: Problem) -> None:
        low, high = (math.log(rate) for rate in problem.rates)
        self.problem, self.end = problem, problem.end
        self.rates = torch.linspace(low, high, BATCH, dtype=torch.float64).exp()[:, None]
        self.x0 = torch.tensor([problem.start], dtype=torch.float64).repeat(BATCH, 1)
        self.exact = self._sdekit(sk.Dopri8(), 1e-13).x

    def field(self, t: Tensor, x: Tensor) -> Tensor:
        """For the whole batch."""
        return self.problem.field(t, x, self.rates)

    def _sdekit(self, solver: Any, tolerance: float, compile: bool = False) -> Any:
        steps = sk.Adaptive(rtol=tolerance, atol=tolerance)
        return sk.solve(self.ode, self.x0, 0.0, self.end, solver=solver, steps=steps, compile=compile)

    @property
    def ode(self) -> sk.ODE:
        """The same object every time, so that what is compiled for it is found again."""
        if not hasattr(self, "_ode"):
            self._ode = sk.ODE(self.field)
        return self._ode

    def sdekit(self, solver: Any, compile: bool = False) -> Callable[[float], tuple[Tensor, float]]:
        def run(tolerance: float) -> tuple[Tensor, float]:
            found = self._sdekit(solver, tolerance, compile)
            return found.x, float(found.stats.evaluations.double().mean())

        return run

    def torchdiffeq(self, method: str) -> Callable[[float], tuple[Tensor, float]]:
        import torchdiffeq

        def run(tolerance: float) -> tuple[Tensor, float]:
            calls = [0]

            def counted(t: Tensor, x: Tensor) -> Tensor:
                calls[0] += 1
                if calls[0] > MOST_CALLS:
                    raise RuntimeError(f"torchdiffeq {method} at {tolerance:g}: no end after {MOST_CALLS} calls")
                return self.field(t, x)

            ts = torch.tensor([0.0, self.end], dtype=torch.float64)
            x: Any = torchdiffeq.odeint(counted, self.x0, ts, method=method, rtol=tolerance, atol=tolerance)
            return x[-1], float(calls[0])

        return run

    def scipy(self, method: str) -> Callable[[float], tuple[Tensor, float]]:
        from scipy.integrate import solve_ivp

        def run(tolerance: float) -> tuple[Tensor, float]:
            ends, calls = [], 0
            for i in range(BATCH):
                rate = self.rates[i : i + 1]

                def one(t: float, x: np.ndarray, rate: Tensor = rate) -> np.ndarray:
                    return self.problem.field(torch.tensor(t), torch.from_numpy(x)[None], rate)[0].numpy()

                found = solve_ivp(
                    one, (0.0, self.end), self.x0[i].numpy(), method=method, rtol=tolerance, atol=tolerance
                )
                ends.append(torch.from_numpy(found.y[:, -1]))
                calls += found.nfev
            return torch.stack(ends), calls / BATCH

        return run

    def curve(self, run: Callable[[float], tuple[Tensor, float]], tolerances: list[float], rounds: int) -> list[Point]:
        """Over the tolerances."""
        run(tolerances[-2])
        points = []
        for tolerance in tolerances:
            try:
                x, evaluations = run(tolerance)
            except RuntimeError as problem:
                print(problem, flush=True)
                continue
            times: list[float] = []
            for _ in range(rounds):
                begin = time.perf_counter()
                run(tolerance)
                times.append(time.perf_counter() - begin)
            error = float((x - self.exact).square().mean().sqrt())
            points.append(Point(tolerance, error, evaluations, statistics.median(times)))
        return points


def at_error(points: list[Point], target: float, field: str) -> float | None:
    """Evaluations or seconds at an error, between the points around it, linear in the logarithms."""
    for a, b in itertools.pairwise(points):
        if a.error >= target >= b.error > 0:
            share = math.log(a.error / target) / math.log(a.error / b.error)
            u, v = getattr(a, field), getattr(b, field)
            return math.exp(math.log(u) * (1 - share) + math.log(v) * share)
    return None


def contenders(bench: Bench) -> dict[str, Callable[[float], tuple[Tensor, float]]]:
    """All solvers by name."""
    found = {
        "sdekit Dopri5": bench.sdekit(sk.Dopri5()),
        "sdekit Dopri5, compiled": bench.sdekit(sk.Dopri5(), compile=True),
        "sdekit Tsit5": bench.sdekit(sk.Tsit5()),
        "sdekit Dopri8": bench.sdekit(sk.Dopri8()),
        "torchdiffeq dopri5": bench.torchdiffeq("dopri5"),
        "torchdiffeq dopri8": bench.torchdiffeq("dopri8"),
        "SciPy RK45": bench.scipy("RK45"),
        "SciPy DOP853": bench.scipy("DOP853"),
    }
    return found


def table(report: dict[str, Any]) -> str:
    """Evaluations (and milliseconds) at the errors."""
    lines = [
        "| problem | solver | " + " | ".join(f"error {t:g}" for t in TARGETS) + " |",
        "|" + "---|" * (len(TARGETS) + 2),
    ]
    for row in report["rows"]:
        cells = [
            "–" if e is None or s is None else f"{e:.0f} ({1e3 * s:.0f} ms)"
            for e, s in zip(row["evaluations_at"], row["seconds_at"], strict=True)
        ]
        lines.append(f"| {row['problem']} | {row['solver']} | " + " | ".join(cells) + " |")
    head = (
        f"Evaluations of the right-hand side for one of {BATCH} samples, and the time of the batch, at equal error "
        f"({report['threads']} threads, float64)."
    )
    return head + "\n\n" + "\n".join(lines)


def draw(report: dict[str, Any], file: Path) -> None:
    """Error against evaluations."""
    fig, axes = plt.subplots(1, len(PROBLEMS), figsize=(13, 4.2), constrained_layout=True)
    for axis, problem in zip(axes, PROBLEMS, strict=True):
        for i, row in enumerate(r for r in report["rows"] if r["problem"] == problem.name):
            points = [Point(*p) for p in row["points"]]
            axis.loglog([p.evaluations for p in points], [p.error for p in points], label=row["solver"], **curve(i))
        axis.set(xlabel="evaluations a sample", ylabel="error", title=problem.name)
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].legend(fontsize=7)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few tolerances, one round")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    tolerances = [10.0**-k for k in ((2, 5, 8) if options.fast else (2, 4, 6, 8))]
    rows: list[dict[str, Any]] = []
    start = time.time()
    for problem in PROBLEMS:
        bench = Bench(problem)
        for name, run in contenders(bench).items():
            points = bench.curve(run, tolerances, 1 if options.fast or name.startswith("SciPy") else 2)
            row = {
                "problem": problem.name,
                "solver": name,
                "points": points,
                "evaluations_at": [at_error(points, target, "evaluations") for target in TARGETS],
                "seconds_at": [at_error(points, target, "seconds") for target in TARGETS],
            }
            rows.append(row)
            print(problem.name, name, row["evaluations_at"], flush=True)
    report = {
        "rows": rows,
        "targets": TARGETS,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "seconds": time.time() - start,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "adaptive.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.out / "adaptive.md").write_text(table(report) + "\n", encoding="utf-8")
    draw(report, options.out / "adaptive.png")


if __name__ == "__main__":
    main()
