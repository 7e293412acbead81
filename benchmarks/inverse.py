"""Methods for inverse problems against posteriors in closed form: `python -m benchmarks.inverse [--fast] [--out DIR]`.

Two priors over 4 × 4 images with exact scores, float64: a Gaussian whose pixels are correlated over 1.2 pixels, and a
mixture of four such Gaussians about random means. Their posteriors given y = A x + σ_y n are mixtures too. Every method
samples the same posteriors by the same sampler (the reverse SDE in 100 steps of DPM-Solver++ 2M), and is compared with
exact samples of them:

    mean        RMS error of the posterior mean, over the posterior's standard deviation
    covariance  Frobenius norm of the error of the covariance, over that of the covariance
    distance    sliced Wasserstein distance to exact samples, over the posterior's standard deviation
    ranks       truth and observation are drawn anew 128 times: the rank of the truth among 15 samples, along random
                directions, must be uniform; total variation distance from that, and the histogram
    calls       evaluations of the score, and derivatives of it, for one sample

The figures of exact samples, which are no more than their own noise, stand beside them. Particle filters have as many
particles in all as other methods have samples, in clouds of 64; what more in a cloud gain is measured apart. Writes
inverse.json, inverse.md and inverse_*.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from benchmarks.inverse_report import draw, write_tables
from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.random import Purpose
from sdekit.scores.reverse import reverse
from sdekit.sdes.diffusion import VP
from sdekit.solvers import DPMSolverPP
from sdekit.steps import angle_grid
from sdekit_generative.inverse import (
    DDNM,
    DPS,
    MMPS,
    TMPD,
    CompressedSensing,
    DiffPIR,
    Downsample,
    GaussianBlur,
    Inpaint,
    Linear,
    Measurement,
    Method,
    PiGDM,
    RePaint,
    Replacement,
    TwistedSMC,
    exact_posterior,
    observe,
    sample_posterior,
)
from sdekit_generative.samplers import Route

RESULTS = Path(__file__).parent / "results"
SHAPE, SIZE = (1, 4, 4), 16
STEPS, T_END = 100, 1e-3
NOISES = (0.05, 0.3)
RANKED = 15  # samples among which the truth is ranked

OPERATORS: dict[str, Linear] = {
    "inpaint half": Inpaint(torch.tensor([[1, 1, 0, 0]] * 4)),
    "4× fewer pixels": Downsample(2),
    "blur": GaussianBlur(0.8),
    "50 % sensing": CompressedSensing(SHAPE, 0.5),
}
METHODS: dict[str, Method] = {
    "Replacement": Replacement(),
    "RePaint, 5 jumps": RePaint(jumps=5),
    "DDNM+": DDNM(),
    "DiffPIR": DiffPIR(),
    "DPS, ζ = 1": DPS(),
    "DPS, ζ = 5": DPS(zeta=5.0),
    "ΠGDM": PiGDM(),
    "TMPD": TMPD(),
    "MMPS, 5 steps": MMPS(steps=5),
    "MMPS, to convergence": MMPS(steps=SIZE, tolerance=1e-4),
    "TwistedSMC, 64 each": TwistedSMC(particles=64),
}
EXACT = "exact samples"


class Size(NamedTuple):
    """How much is measured."""

    samples: int = 1024
    observations: int = 2
    ranked: int = 128
    particles: tuple[int, ...] = (4, 16, 64, 256, 1024, 4096)
    clouds: int = 4096  # particles at every point of the convergence plot, over all clouds


FAST = Size(samples=256, observations=1, ranked=32, particles=(4, 16), clouds=256)


class Prior:
    """A law of images with its exact score."""

    def __init__(self, components: int) -> None:
        line = torch.arange(4, dtype=torch.float64)
        place = torch.cartesian_prod(line, line)
        square = (place[:, None] - place[None]).square().sum(-1)
        variance = 0.5 if components == 1 else 0.15
        cov = variance * torch.exp(-0.5 * square / 1.2**2) + 0.01 * torch.eye(SIZE, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        means = 0.8 * torch.randn(components, *SHAPE, dtype=torch.float64, generator=generator)
        self.parts = (means, cov.expand(components, SIZE, SIZE).contiguous(), torch.ones(components))
        self.law = GaussianMixture(means, covs=self.parts[1]) if components > 1 else GaussianData(means[0], cov=cov)
        self.process = VP()

    def route(self) -> Route:
        """From the prior to the data."""
        equation = reverse(self.process, self.law.score(self.process))
        grid = angle_grid(self.process, STEPS, sigma_data=0.7, t1=T_END)
        return Route(equation, DPMSolverPP(2), grid, self.process.t_max, T_END, denoise=True)


PRIORS = {"Gaussian": Prior(1), "mixture of 4": Prior(4)}


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 128) -> float:
    """The 2-Wasserstein distance of equal numbers of points `(n, S)`, RMS over random directions."""
    axes = torch.randn(x.shape[1], directions, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    axes = axes / axes.norm(dim=0)
    return float(((x @ axes).sort(0).values - (y @ axes).sort(0).values).square().mean().sqrt())


def errors(x: Tensor, truth: GaussianMixture, exact: Tensor) -> dict[str, float]:
    """What samples `(n, S)` get wrong about a posterior."""
    covariance = truth.covariance
    spread = float(covariance.trace() / SIZE) ** 0.5
    return {
        "mean": float((x.mean(0) - truth.mean.flatten()).square().mean().sqrt()) / spread,
        "covariance": float((x.T.cov() - covariance).norm() / covariance.norm()),
        "distance": sliced_wasserstein(x[: len(exact)], exact) / spread,
    }


def histogram(samples: Tensor, truths: Tensor) -> list[float]:
    """How often the truth `(N, S)` has each rank among samples `(N, RANKED, S)`, over random directions."""
    axes = torch.randn(SIZE, 32, dtype=truths.dtype, generator=torch.Generator().manual_seed(2))
    rank = (samples @ axes < (truths @ axes)[:, None]).sum(1)
    return (torch.bincount(rank.flatten(), minlength=RANKED + 1).double() / rank.numel()).tolist()


def variation(shares: list[float]) -> float:
    """Total variation distance of a histogram from the uniform one."""
    return 0.5 * sum(abs(share - 1.0 / len(shares)) for share in shares)


def draw_exact(
    prior: Prior, operator: Linear, y: Tensor, noise: float, n: int, seed: int
) -> tuple[GaussianMixture, Tensor]:
    """The posterior of one observation, and samples of it `(n, S)`."""
    truth = exact_posterior(*prior.parts, operator, y, noise)
    return truth, truth.sample(n, seed=seed).flatten(1)


class Cell:
    """One prior, operator and noise level: its observations, and what methods make of them."""

    def __init__(self, prior: Prior, operator: Linear, noise: float, size: Size) -> None:
        self.prior, self.operator, self.noise, self.size = prior, operator, noise, size
        self.few = observe(operator, prior.law.sample(size.observations, seed=10), noise, seed=11)
        self.truths = prior.law.sample(size.ranked, seed=12)
        self.many = observe(operator, self.truths, noise, seed=13)
        self.exact = [draw_exact(prior, operator, y, noise, size.samples, 14 + i) for i, y in enumerate(self.few)]

    def judge(self, samples: list[Tensor], ranked: Tensor) -> dict[str, Any]:
        """Figures of samples `(n, S)` of every observation, and of few of every one to be ranked."""
        each = [errors(x, *exact) for x, exact in zip(samples, self.exact, strict=True)]
        figures: dict[str, Any] = {key: math.sqrt(sum(e[key] ** 2 for e in each) / len(each)) for key in each[0]}
        shares = histogram(ranked, self.truths.flatten(1))
        return {**figures, "ranks": variation(shares), "histogram": [round(s, 5) for s in shares]}

    def of_exact_samples(self) -> dict[str, Any]:
        """What exact samples score, from their noise alone."""
        samples = [truth.sample(self.size.samples, seed=100 + i).flatten(1) for i, (truth, _) in enumerate(self.exact)]
        ranked = [
            draw_exact(self.prior, self.operator, y, self.noise, RANKED, 200 + i)[1] for i, y in enumerate(self.many)
        ]
        return {**self.judge(samples, torch.stack(ranked)), "calls": 0, "gradients": 0, "seconds": 0.0}

    def of_method(self, method: Method) -> dict[str, Any]:
        """What a method's samples score."""
        n, clouds = self.size.samples, getattr(method, "particles", None)
        few, start = Measurement.of(self.operator, self.few, self.noise, SHAPE), time.perf_counter()
        if clouds is None:
            found = sample_posterior(self.prior.route(), few, method, n=n, seed=3, batch=n)
            samples = found.samples
        else:
            # as many clouds as make n particles, all of which count
            found = sample_posterior(
                self.prior.route(), few.repeat(max(1, n // clouds)), method, n=clouds, seed=3, batch=n
            )
            samples = found.samples.reshape(len(self.few), -1, *SHAPE)
        seconds = time.perf_counter() - start
        many = Measurement.of(self.operator, self.many, self.noise, SHAPE)
        if clouds is not None:
            method = dataclasses.replace(cast(Any, method), particles=min(clouds, 64))
        ranked = sample_posterior(self.prior.route(), many, method, n=RANKED, seed=5, batch=4096)
        return {
            **self.judge([x.flatten(1) for x in samples], ranked.samples.flatten(2)),
            "calls": found.network_evaluations,
            "gradients": found.gradients,
            "seconds": round(seconds, 2),
        }


def measure(
    size: Size, methods: dict[str, Method], done: set[tuple[str, str, float]]
) -> Iterator[list[dict[str, Any]]]:
    """The methods on every problem that is not done yet, a problem at a time."""
    for operator_name, operator in OPERATORS.items():
        for prior_name, prior in PRIORS.items():
            for noise in NOISES:
                where, rows = (prior_name, operator_name, noise), []
                if where in done:
                    continue
                cell = Cell(prior, operator, noise, size)
                for name, method in methods.items():
                    figures = cell.of_method(method)
                    print(*where, name, f"{figures['mean']:.3f} {figures['covariance']:.3f}", flush=True)
                    rows.append({**_place(*where), "method": name, **figures})
                if methods is METHODS:
                    rows.append({**_place(*where), "method": EXACT, **cell.of_exact_samples()})
                yield rows


_PLACE = ("prior", "operator", "noise")


def _place(prior: str, operator: str, noise: float) -> dict[str, Any]:
    return {"prior": prior, "operator": operator, "noise": noise}


class Units:
    """Draws of which every row is 0 but for one number, another in every row; the last row is 0 throughout.

    What is affine in all its random numbers is so laid bare: the last row ends at the mean, the others lie off it by the
    columns of a matrix L, and the covariance is L Lᵀ, with no noise from sampling.
    """

    def __init__(self, steps: int) -> None:
        self.rows = (steps + 1) * SIZE + 1

    def normal(
        self, purpose: Purpose, step: int | Tensor, shape: Any, dtype: torch.dtype, device: torch.device, part: int = 0
    ) -> Tensor:
        """Unit vectors in the rows of this step, zeros elsewhere."""
        start = 0 if purpose is Purpose.PRIOR else (int(step) + 1) * SIZE
        found = torch.zeros(self.rows, SIZE, dtype=dtype, device=device)
        found[start : start + SIZE] = torch.eye(SIZE, dtype=dtype, device=device)
        return found.reshape(shape)

    uniform = sign = normal


def precise() -> list[dict[str, Any]]:
    """Mean and covariance that the method exact for Gaussian data gives on every Gaussian problem, without sampling."""
    prior, rows, draws = PRIORS["Gaussian"], [], Units(STEPS)
    for name, operator in OPERATORS.items():
        for noise in NOISES:
            y = observe(operator, prior.law.sample(1, seed=10), noise, seed=11)
            truth = exact_posterior(*prior.parts, operator, y[0], noise)
            measurement, method = Measurement.of(operator, y, noise, SHAPE), METHODS["MMPS, to convergence"]
            units: Any = draws  # in place of a seed
            found = sample_posterior(prior.route(), measurement, method, n=draws.rows, seed=units, batch=draws.rows)
            x = found.samples[0].flatten(1)
            columns = x[:-1] - x[-1]
            covariance = columns.mT @ columns
            rows.append(
                {
                    "operator": name,
                    "noise": noise,
                    "mean": float((x[-1] - truth.mean.flatten()).norm() / truth.mean.norm()),
                    "covariance": float((covariance - truth.covariance).norm() / truth.covariance.norm()),
                }
            )
            print(rows[-1], flush=True)
    return rows


def convergence(size: Size) -> list[dict[str, Any]]:
    """The particle filter's error of the posterior mean and second moment, of one cloud, against its particles."""
    rows = []
    for prior_name, prior in PRIORS.items():
        operator, noise = OPERATORS["inpaint half"], 0.3
        y = observe(operator, prior.law.sample(1, seed=10), noise, seed=11)
        truth = exact_posterior(*prior.parts, operator, y[0], noise)
        mean, covariance = truth.mean.flatten(), truth.covariance
        one = Measurement.of(operator, y, noise, SHAPE)
        for particles in size.particles:
            clouds = max(2, size.clouds // particles)
            method = TwistedSMC(particles=particles)
            found = sample_posterior(prior.route(), one.repeat(clouds), method, n=particles, seed=7, batch=4096)
            x = found.samples.flatten(2)
            off = (x.mean(1) - mean).square().sum(1).mean().sqrt() / covariance.trace().sqrt()
            about = x - mean
            second = torch.einsum("cpi,cpj->cij", about, about) / particles
            worse = (second - covariance).square().sum((1, 2)).mean().sqrt() / covariance.norm()
            rows.append({"prior": prior_name, "particles": particles, "mean": float(off), "covariance": float(worse)})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="few samples: a look at whether it runs")
    parser.add_argument("--resume", action="store_true", help="go on from the inverse.json in the folder")
    parser.add_argument("--only", choices=METHODS, help="measure one method anew, on the problems of that inverse.json")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    size, file = FAST if arguments.fast else Size(), arguments.out / "inverse.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = json.loads(file.read_text()) if arguments.resume or arguments.only else _begun(size)
    places = {(row["prior"], row["operator"], row["noise"]) for row in record["rows"]}
    if arguments.only:
        every = {(p, o, n) for p in PRIORS for o in OPERATORS for n in NOISES}
        for rows in measure(size, {arguments.only: METHODS[arguments.only]}, every - places):
            for new in rows:
                old = next(r for r in record["rows"] if all(r[k] == new[k] for k in (*_PLACE, "method")))
                old.update(_short(new))
    else:
        for rows in measure(size, METHODS, places):
            record["rows"] += rows
            file.write_text(json.dumps(_short(record), indent=1) + "\n")
    file.write_text(json.dumps(_short(record), indent=1) + "\n")
    print(write_tables(record, arguments.out / "inverse.md"))
    draw(record, arguments.out)


def _begun(size: Size) -> dict[str, Any]:
    settings = {
        "size": size._asdict(),
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return {"settings": settings, "precise": precise(), "convergence": convergence(size), "rows": []}


def _short(value: Any) -> Any:
    """Floats with five digits: more are noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(v) for key, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    main()
