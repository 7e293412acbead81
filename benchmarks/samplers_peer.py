"""Schedulers of diffusers on the exact score of the benchmark's target.

A scheduler is given the exact noise at its own noise level, from starts with the same standard normals as ours, and judged
against the converged flow from its own start to σ = 0, where its last step ends. Thresholding and clipping are off.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from sdekit.analytic import GaussianMixture
from sdekit.scores.reverse import probability_flow
from sdekit.sdes.diffusion import EDM
from sdekit.solve import solve
from sdekit.solvers import AngularAdams, denoise
from sdekit.steps.fixed import TimeGrid
from sdekit.steps.grids import angle_grid

_TABLE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
_EDM = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}


def schedulers() -> dict[tuple[str, str], Callable[[], Any]]:
    """(name, grid) -> a new scheduler."""
    d: Any = import_module("diffusers")

    spaced = {**_TABLE, "timestep_spacing": "trailing"}
    plus = {**spaced, "algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}
    made: dict[tuple[str, str], Callable[[], Any]] = {
        ("DDIM", "trailing"): lambda: d.DDIMScheduler(**spaced, clip_sample=False, set_alpha_to_one=True),
        ("PNDM", "trailing"): lambda: d.PNDMScheduler(**spaced, skip_prk_steps=True, set_alpha_to_one=True),
        ("Heun", "trailing"): lambda: d.HeunDiscreteScheduler(**spaced),
    }
    for order in (2, 3):
        made |= {
            (f"DPM++ {order}M", "trailing"): lambda o=order: d.DPMSolverMultistepScheduler(**plus, solver_order=o),
            (f"DPM++ {order}M", "log-SNR"): lambda o=order: d.DPMSolverMultistepScheduler(
                **plus, solver_order=o, use_lu_lambdas=True
            ),
            (f"DPM++ {order}M", "Karras"): lambda o=order: d.DPMSolverMultistepScheduler(
                **plus, solver_order=o, use_karras_sigmas=True
            ),
            (f"UniPC {order}", "trailing"): lambda o=order: d.UniPCMultistepScheduler(**spaced, solver_order=o),
            (f"DEIS {order}", "trailing"): lambda o=order: d.DEISMultistepScheduler(**spaced, solver_order=o),
            (f"EDM DPM++ {order}M", "Karras"): lambda o=order: d.EDMDPMSolverMultistepScheduler(**_EDM, solver_order=o),
        }
    made["EDM Euler", "Karras"] = lambda: d.EDMEulerScheduler(**_EDM)
    return made


class Exact:
    """Denoised data and converged flow in x̃, for all noise levels; counts its calls."""

    def __init__(self, law: GaussianMixture) -> None:
        self.process = EDM(sigma_min=1e-4, sigma_max=1e3)
        self.score, self.calls = law.score(self.process), 0

    def noise(self, x: Tensor, sigma: float) -> Tensor:
        """ε of x̃ at σ."""
        self.calls += 1
        return (x - denoise(self.process, self.score, sigma, x)) / sigma

    def end(self, x: Tensor, sigma: float) -> Tensor:
        """The flow's end at σ = 0 from x̃ at σ."""
        times = cast(tuple[float, ...], angle_grid(self.process, 1500, t0=sigma).times)
        grid = TimeGrid([*times[:-1], 0.0])
        flow = probability_flow(self.process, self.score)
        return solve(flow, x, sigma, 0.0, solver=AngularAdams(4), steps=grid).x


def run(scheduler: Any, exact: Exact, z: Tensor, n: int) -> tuple[Tensor, Tensor, float]:
    """(x̃ at the end, x̃ at the start, σ at the start) of one scheduler with n steps."""
    scheduler.set_timesteps(n)
    scaled = not any(word in type(scheduler).__name__ for word in ("EDM", "Heun"))  # does its state shrink, as VP's
    x = start = top = None
    for i, t in enumerate(scheduler.timesteps):
        sigma = _level(scheduler, i, t)
        s = 1.0 / math.sqrt(1.0 + sigma**2) if scaled else 1.0
        if x is None:
            start, top, x = sigma * z, sigma, s * sigma * z
        if not scaled:
            scheduler.scale_model_input(x, t)  # moves its counter on
        noise = exact.noise(x / s, sigma)
        x = scheduler.step(_wanted(scheduler, x, noise, sigma), t, x).prev_sample.double()
    assert x is not None
    assert start is not None
    assert top is not None
    return x, start, top


def _level(scheduler: Any, i: int, t: Tensor) -> float:
    """σ = std/s at the scheduler's i-th evaluation."""
    levels = getattr(scheduler, "sigmas", None)
    if levels is not None:
        return float(levels[i])
    kept = float(scheduler.alphas_cumprod[int(t)])
    return math.sqrt((1.0 - kept) / kept)


def _wanted(scheduler: Any, x: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """What the scheduler takes for the network's output: ε, or for EDM's the F of its preconditioning."""
    if "EDM" not in type(scheduler).__name__:
        return noise
    c = _EDM["sigma_data"]
    data = x - sigma * noise
    return (data - c**2 / (c**2 + sigma**2) * x) * math.sqrt(c**2 + sigma**2) / (c * sigma)


def peer_rows(law: GaussianMixture, starts: int, budgets: tuple[int, ...]) -> list[dict[str, Any]]:
    """Rows of the benchmark's table."""
    exact, rows, ends = Exact(law), [], {}
    z = EDM().prior_sample((starts, 16), seed=1, dtype=torch.float64) / EDM().prior_std()
    for (name, grid), make in schedulers().items():
        for budget in budgets:
            steps = (budget + 1) // 2 if name == "Heun" else budget
            exact.calls = 0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    x, start, top = run(make(), exact, z, steps)
                except (ValueError, IndexError, AssertionError) as error:
                    print(f"diffusers {name} ({grid}) fails with {steps} steps: {error}")
                    continue
            calls, key = exact.calls, round(top, 9)
            if key not in ends:
                ends[key] = exact.end(start, top)
            rmse = (x - ends[key]).square().mean(1).sqrt()
            rows.append(
                {
                    "process": "EDM" if "EDM" in name else "VP",
                    "sampler": name,
                    "grid": grid,
                    "calls": calls,
                    "error": float(rmse.median()),
                    "far": float((rmse > 0.25).double().mean()),
                    "package": "diffusers",
                }
            )
    return rows
