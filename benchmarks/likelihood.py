"""Densities on exact scores: `python -m benchmarks.likelihood [--fast] [--out DIR]`.

The densities of a Gaussian and of a mixture of four Gaussians in R¹⁶ under VE, VP and sub-VP, at t_min = 1e-5, with the
exact law at t_max as prior: what is left is the solver's error, in bits per dimension. Three ways to solve the
probability-flow equation with its exact divergence:

    SciPy RK45       as the published code does: state and log-densities of the whole batch in one vector, in time t,
                     one error norm and one step for all; rtol = atol = 1e-5 is its setting
    torchdiffeq      dopri5 on the same vector
    sdekit           `log_likelihood` in the angle for data of standard deviation c; adaptive steps of every sample's own
                     with c that of the data, or a number of equal steps with that or three quarters of it

For each, tolerances or numbers of steps are swept: calls of the score against the mean error of the batch. Value and
divergence count as one call everywhere; the published code evaluates the network twice for them. The comparison is at
equal error: the fewest calls of sdekit whose error is at most that of SciPy with the published setting. `each` is what a
sample needed by itself, which is less than the batch's calls where steps are of its own.

Writes likelihood.json, likelihood.md and likelihood.png.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.likelihood_report import draw, write_tables
from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.scores.coordinates import Angle
from sdekit.scores.divergence import Exact
from sdekit.scores.likelihood import log_likelihood
from sdekit.scores.reverse import probability_flow
from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.solvers import Adams, Bosh3, Dopri5, Dopri8, Tsit5
from sdekit.steps.adaptive import Adaptive

RESULTS = Path(__file__).parent / "results"
PROCESSES: dict[str, Any] = {"VE": VE(), "VP": VP(t_min=1e-5), "SubVP": SubVP(t_min=1e-5)}
DIMENSION = 16
PUBLISHED = 1e-5
TOLERANCES = tuple(10.0 ** (-k / 3) for k in range(8, 22))
STEPS = tuple(range(12, 54, 2))
SOLVERS: dict[str, Any] = {
    "Adams()": Adams(),
    "Bosh3()": Bosh3(),
    "Dopri5()": Dopri5(),
    "Tsit5()": Tsit5(),
    "Dopri8()": Dopri8(),
    "Adams(6)": Adams(6),
}
ADAPTIVE = ("Adams()", "Bosh3()", "Dopri5()", "Tsit5()", "Dopri8()")
SHARES = (1.0, 0.75)


class Row(NamedTuple):
    """One figure. setting: tolerance or number of steps.  calls: of the score, by the batch; each: mean over samples of
    their own; error: mean over samples, in bits/dim.
    """

    process: str
    law: str
    package: str
    solver: str
    setting: float
    calls: int
    each: float
    error: float
    worst: float
    seconds: float


def laws() -> dict[str, Any]:
    """The data, of standard deviation about 1, with covariances that are not diagonal."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.eye(DIMENSION, dtype=torch.float64)
    mix += 0.6 * torch.randn(DIMENSION, DIMENSION, dtype=torch.float64, generator=generator) / DIMENSION**0.5
    means = torch.randn(4, DIMENSION, dtype=torch.float64, generator=generator)
    return {"Gaussian": GaussianData(0.5 * means[0], cov=0.3 * mix @ mix.T), "mixture": GaussianMixture(means, 0.25)}


class At(NamedTuple):
    """The exact law at t."""

    law: Any
    process: Any
    t: float

    def log_prob(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x, self.process, self.t)


class Problem:
    """One law under one process: points, their exact log-densities, and the flow with its divergence in time t."""

    def __init__(self, process: str, law: str, samples: int) -> None:
        self.names, self.process, self.law = (process, law), PROCESSES[process], laws()[law]
        self.score = self.law.score(self.process)
        self.x = self.law.at(self.process, self.process.t_min).sample(samples, seed=3)
        self.exact = self.law.log_prob(self.x, self.process, self.process.t_min)
        self.prior = At(self.law, self.process, self.process.t_max)
        self.flow = probability_flow(self.process, self.score)
        self.width = float(self.law.covariance.diagonal().mean().sqrt())

    def rate(self, t: float | Tensor, y: Tensor) -> Tensor:
        """Of the vector [x flattened, ∫ ∇·v]."""
        x = y[: self.x.numel()].reshape(self.x.shape)
        time = torch.as_tensor(t, dtype=torch.float64)
        with torch.no_grad():
            value, divergence = Exact()(lambda z: self.flow.drift(time, z), x)
        return torch.cat((value.reshape(-1), divergence[0]))

    @property
    def start(self) -> Tensor:
        return torch.cat((self.x.reshape(-1), self.x.new_zeros(len(self.x))))

    def row(self, package: str, solver: str, tolerance: float, found: Tensor, calls: int, each: float, s: float) -> Row:
        error = (found - self.exact).abs() / (DIMENSION * math.log(2.0))
        return Row(*self.names, package, solver, tolerance, calls, each, float(error.mean()), float(error.max()), s)

    def of_end(self, y: Tensor) -> Tensor:
        """Log-densities of the vector at t_max."""
        size = self.x.numel()
        return self.prior.log_prob(y[:size].reshape(self.x.shape)) + y[size:]


def scipy_row(problem: Problem, tolerance: float) -> Row:
    """SciPy's RK45 as in the published code."""
    from scipy.integrate import solve_ivp

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        return problem.rate(t, torch.from_numpy(y)).numpy()

    ends, start = (problem.process.t_min, problem.process.t_max), time.perf_counter()
    found = solve_ivp(rate, ends, problem.start.numpy(), method="RK45", rtol=tolerance, atol=tolerance)
    spent = time.perf_counter() - start
    log_prob = problem.of_end(torch.from_numpy(found.y[:, -1].copy()))
    return problem.row("SciPy", "RK45", tolerance, log_prob, found.nfev, float(found.nfev), spent)


def torchdiffeq_row(problem: Problem, tolerance: float) -> Row:
    """Torchdiffeq's dopri5 on the same vector."""
    from torchdiffeq import odeint

    calls = 0

    def rate(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return problem.rate(t, y)

    ends, start = torch.tensor([problem.process.t_min, problem.process.t_max], dtype=torch.float64), time.perf_counter()
    found = cast(Tensor, odeint(rate, problem.start, ends, rtol=tolerance, atol=tolerance, method="dopri5"))
    spent = time.perf_counter() - start
    return problem.row("torchdiffeq", "dopri5", tolerance, problem.of_end(found[-1]), calls, float(calls), spent)


def sdekit_row(problem: Problem, solver: str, setting: float, share: float = 1.0) -> Row:
    """`log_likelihood` with one of the solvers, to a tolerance or with a number of steps; c is this share of the std."""
    angle, equal = Angle(share * problem.width), setting > 1
    steps = angle.grid(problem.process, int(setting), first=3.0) if equal else Adaptive(rtol=setting, atol=setting)
    start = time.perf_counter()
    found = log_likelihood(
        problem.process,
        problem.score,
        problem.x,
        solver=SOLVERS[solver],
        steps=steps,
        prior=problem.prior,
        coordinates=angle,
    )
    spent = time.perf_counter() - start
    each = float(found.stats.evaluations.double().mean())
    name = f"{solver}, equal steps, c = {share:g} std" if equal else solver
    return problem.row("sdekit", name, setting, found.log_prob, found.stats.model_calls, each, spent)


def measure(samples: int, tolerances: tuple[float, ...]) -> list[Row]:
    rows: list[Row] = []
    for process in PROCESSES:
        for law in laws():
            problem = Problem(process, law, samples)
            ways: list[Callable[[float], Row]] = [
                lambda tolerance, p=problem: scipy_row(p, tolerance),
                lambda tolerance, p=problem: torchdiffeq_row(p, tolerance),
                *(lambda tolerance, p=problem, s=s: sdekit_row(p, s, tolerance) for s in ADAPTIVE),
            ]
            for way in ways:
                way(tolerances[0])  # the first call of anything is slow
                rows += [way(tolerance) for tolerance in tolerances]
            rows += [sdekit_row(problem, "Adams(6)", n, share) for share in SHARES for n in STEPS]
            print(f"{process}, {law}: done", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few samples and tolerances")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = 8 if options.fast else 64
    rows = measure(samples, (1e-3, 1e-4, PUBLISHED, 1e-6) if options.fast else TOLERANCES)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {
        "samples": samples,
        "dimension": DIMENSION,
        "published setting": PUBLISHED,
        "processes": {name: repr(process) for name, process in PROCESSES.items()},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    record = {"settings": settings, "rows": [row._asdict() for row in rows]}
    (options.out / "likelihood.json").write_text(json.dumps(record, indent=0) + "\n")
    print(write_tables(record, options.out / "likelihood.md"))
    draw(record, options.out)


if __name__ == "__main__":
    main()
