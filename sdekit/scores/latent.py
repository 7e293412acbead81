"""Data and latent codes: the probability flow takes one to the other, without loss and without chance.

    encode          x(t_min) = x   →   latent x(t_max), about N(0, prior_std² I)
    decode          latent         →   x(t_min)
    interpolate     between two latents, on a line or on the sphere
    temperature     decode(τ · latent): τ < 1 moves samples towards the likely ones

Reference: Song et al. (2021), section 4.3 and appendix D.3; Shoemake (1985), SIGGRAPH, section 3.3 (spherical).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_has, check_like, check_number, check_state, floating
from ..protocols import Score, Solver, StepControl, sample_norm
from ..solution import Solution
from ..solve import solve
from .reverse import probability_flow


def encode(
    process: Any,
    score: Score,
    x: Tensor,
    *,
    solver: Solver,
    steps: StepControl,
    t_min: float | None = None,
    t_max: float | None = None,
    **options: Any,
) -> Solution:
    """The latent codes of states x at t_min: `.x` of what is returned, at t_max.

    process: with t_min and t_max (or give them here).  solver, steps: as in `solve`; a grid of `log_snr_grid(process,
    n, t0=t_min, t1=t_max)` and the like runs this way.  options: `save`, `on_failure`, … of `solve`.

    Raises ValueError unless t_min < t_max, and what `solve` raises.
    """
    check_state("x", x)
    low, high = _ends(process, t_min, t_max)
    return solve(probability_flow(process, score), x, low, high, solver=solver, steps=steps, **options)


def decode(
    process: Any,
    score: Score,
    latent: Tensor,
    *,
    solver: Solver,
    steps: StepControl,
    temperature: float = 1.0,
    t_min: float | None = None,
    t_max: float | None = None,
    **options: Any,
) -> Solution:
    """The states at t_min that have these latent codes: `.x` of what is returned.

    temperature: τ > 0, which multiplies the latent; 1 leaves it. Other arguments as for `encode`.

    Raises ValueError for a temperature that is not positive, and what `solve` raises.
    """
    check_state("latent", latent)
    check_number("temperature", temperature, above=0.0)
    low, high = _ends(process, t_min, t_max)
    flow, start = probability_flow(process, score), latent if temperature == 1.0 else temperature * latent
    return solve(flow, start, high, low, solver=solver, steps=steps, **options)


def interpolate(
    start: Tensor, end: Tensor, weight: float | Sequence[float] | Tensor, kind: str = "spherical"
) -> Tensor:
    """Between two batches of latents, sample by sample: start for weight 0, end for 1.

        linear      (1 − w) a + w b, whose norm falls half way, below what a Gaussian's samples have
        spherical   [sin((1 − w) θ) a + sin(w θ) b]/sin θ,  θ the angle between a and b

    start, end: `(B, *shape)`.  weight: a number, which gives `(B, *shape)`, or n of them, which give `(n, B, *shape)`;
    outside of [0, 1] it extrapolates.

    Raises ValueError for shapes that differ, or a kind that is none.
    """
    check_state("start", start)
    check_like("end", end, "start", start)
    if kind not in ("linear", "spherical"):
        raise ValueError(f"kind is 'linear' or 'spherical', got {kind!r}")
    w = floating("weight", weight).to(start.device, torch.float64)
    if w.ndim > 1:
        raise ValueError(f"weight is a number or a sequence of numbers, got shape {tuple(w.shape)}")
    many = w.reshape(-1, *(1,) * start.ndim)
    a, b = (1.0 - many, many) if kind == "linear" else _arcs(start, end, many)
    between = a.to(start.dtype) * start + b.to(start.dtype) * end
    return between if w.ndim else between[0]


def _arcs(start: Tensor, end: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors of the spherical interpolation, `(n, B, 1, …, 1)`."""
    a, b = (v.flatten(1).to(torch.float64) for v in (start, end))
    a, b = (v / sample_norm(v).clamp_min(torch.finfo(torch.float64).tiny) for v in (a, b))
    # 2 atan2 keeps its digits at angles near 0 and π, where the arc cosine has none
    angle = 2.0 * torch.atan2(sample_norm(a - b), sample_norm(a + b))
    angle = angle.reshape(-1, *(1,) * (start.ndim - 1))
    near = angle < 1e-6
    safe = torch.where(near, torch.ones_like(angle), angle)
    factors = (torch.sin((1.0 - w) * safe) / torch.sin(safe), torch.sin(w * safe) / torch.sin(safe))
    first, second = torch.where(near, 1.0 - w, factors[0]), torch.where(near, w, factors[1])
    return first, second


def _ends(process: Any, t_min: float | None, t_max: float | None) -> tuple[float, float]:
    for name, value in (("t_min", t_min), ("t_max", t_max)):
        if value is None:
            check_has("process", process, (name,), f"a process with {name} (or pass {name}=)")
        else:
            check_number(name, value)
    low = float(process.t_min if t_min is None else t_min)
    high = float(process.t_max if t_max is None else t_max)
    if not low < high:
        raise ValueError(f"expected t_min < t_max, got {low} and {high}")
    return low, high
