"""Ensembles of paths on several processes: `python -m benchmarks.ensemble [--fast] [--processes 1 2] [--out DIR]`.

For each number of processes it starts `torchrun` on this same file, which may also be started by hand, on one machine or
on several:

    torchrun --nproc-per-node=2 -m benchmarks.ensemble

Measured: seconds of a fixed number of paths (strong scaling) and of a number that grows with the processes (weak), the
share of the reductions, and, which must be the same on any number of processes, a SHA-256 of all paths. Means, variances
and quantiles of geometric Brownian motion are compared with their closed forms. Every process has one thread.

Writes ensemble.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

import torch

from sdekit import EulerMaruyama, FixedSteps, GeometricBrownianMotion, ItoMilstein
from sdekit.ensemble import Ensemble, ensemble
from sdekit.processes import Processes, processes

RESULTS = Path(__file__).parent / "results"
MU, SIGMA, DIMENSION, STEPS, BATCH, SEED = 0.1, 0.4, 16, 100, 4096, 0
LEVELS = (0.05, 0.5, 0.95)


def paths(n: int, levels: tuple[float, ...] = (), keep: bool = False) -> Ensemble:
    """N paths of geometric Brownian motion in 16 independent dimensions over [0, 1]."""
    sde, x0 = GeometricBrownianMotion(mu=MU, sigma=SIGMA), torch.ones(1, DIMENSION)
    steps, solver = FixedSteps(STEPS), ItoMilstein() if keep else EulerMaruyama()
    return ensemble(sde, x0, 0.0, 1.0, n, solver=solver, steps=steps, seed=SEED, levels=levels, keep=keep, batch=BATCH)


def digest(found: Ensemble, group: Processes) -> str:
    """SHA-256 of all paths in their order, from one of every block."""
    held = found.paths
    assert held is not None
    blocks = [hashlib.sha256(block.contiguous().numpy().tobytes()).hexdigest() for block in held.split(BATCH)]
    return hashlib.sha256("".join(word for part in group.gather(blocks) for word in part).encode()).hexdigest()


def errors(found: Ensemble) -> dict[str, float]:
    """How many standard errors the reduced figures are from the closed forms, the largest of the dimensions."""
    n, moments, law = found.count, found.moments, NormalDist()
    mean, variance = math.exp(MU), math.exp(2 * MU) * math.expm1(SIGMA**2)
    w = math.exp(SIGMA**2)
    excess = w**4 + 2 * w**3 + 3 * w**2 - 6  # of the lognormal law, for the standard error of the variance
    worst = {
        "mean": float(((moments.mean - mean) / moments.standard_error).abs().max()),
        "variance": float((moments.variance - variance).abs().max()) / (variance * math.sqrt((excess + 2) / n)),
    }
    for level, at in zip(LEVELS, found.quantiles, strict=True):
        z = law.inv_cdf(level)
        exact = math.exp(MU - SIGMA**2 / 2 + SIGMA * z)
        error = math.sqrt(level * (1 - level) / n) * SIGMA * exact / law.pdf(z)
        worst[f"quantile {level}"] = float((at - exact).abs().max()) / error
    return {name: round(value, 2) for name, value in worst.items()}


def timed(n: int, levels: tuple[float, ...], repeats: int, group: Processes) -> float:
    """Median seconds from a common start until the last process is done."""
    seconds = []
    for _ in range(repeats):
        group.wait()
        start = time.perf_counter()
        paths(n, levels)
        group.wait()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def measure(n: int, repeats: int) -> dict[str, Any]:
    """What one launch finds."""
    torch.set_num_threads(1)
    with processes() as group:
        found = paths(n, LEVELS, keep=True)
        row = {
            "processes": group.size,
            "paths": n,
            "sha256_of_paths": digest(found, group),
            "standard_errors_from_closed_form": errors(found),
            "strong_seconds": timed(n, (), repeats, group),
            "strong_seconds_with_quantiles": timed(n, LEVELS, repeats, group),
            "weak_paths": n * group.size,
            "weak_seconds": timed(n * group.size, (), repeats, group),
        }
        hosts = sorted(set(group.gather(platform.node())))
        return {**row, "machines": len(hosts)} if group.leads else {}


def sweep(counts: list[int], n: int, repeats: int) -> list[dict[str, Any]]:
    """The measurement at every number of processes, each under its own `torchrun`."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "row.json"
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
            what = ["-m", "benchmarks.ensemble", "--paths", str(n), "--repeats", str(repeats), "--row", str(file)]
            subprocess.run([sys.executable, *launch, *what], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            rows.append(json.loads(file.read_text()))
    return rows


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows with their ratios to the first."""
    base = rows[0]
    for row in rows:
        factor = row["processes"] / base["processes"]
        row["strong_efficiency"] = round(base["strong_seconds"] / row["strong_seconds"] / factor, 3)
        row["weak_efficiency"] = round(base["weak_seconds"] / row["weak_seconds"], 3)
    return {
        "problem": f"geometric Brownian motion, {DIMENSION} dimensions, float32, {STEPS} steps, blocks of {BATCH}",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "paths_bitwise_equal": len({row["sha256_of_paths"] for row in rows}) == 1,
        "rows": rows,
    }


def main() -> None:
    """The sweep, or this process's part of one measurement where `torchrun` started it."""
    parser = argparse.ArgumentParser(description="Ensembles of paths on several processes.")
    parser.add_argument("--fast", action="store_true", help="an eighth of the paths, once")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--paths", type=int, default=1 << 18)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    n, repeats = (chosen.paths // 8, 1) if chosen.fast else (chosen.paths, chosen.repeats)
    if "WORLD_SIZE" in os.environ:
        row = measure(n, repeats)
        if row:
            text = json.dumps(row, indent=2)
            print(text) if chosen.row is None else chosen.row.write_text(text)
        return
    found = report(sweep(chosen.processes, n, repeats))
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "ensemble.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
