"""torchsde on the problems and paths of `benchmarks.convergence`, forward in time, with its evaluations counted."""

from __future__ import annotations

from typing import Any

import torch
import torchsde
from torch import Tensor

from sdekit.convergence import Errors, Experiment
from sdekit.interop.torchsde import to_torchsde
from sdekit.protocols import Calculus, Dense, Direction, Levy, Noise, Span, as_time

_ITO = ("euler", "milstein", "srk")
_STRATONOVICH = ("euler_heun", "heun", "midpoint", "reversible_heun", "milstein")


def methods(noise: Noise, calculus: Calculus) -> tuple[str, ...]:
    """Methods of torchsde for this noise; to it commutative noise is general."""
    if noise is Noise.NONE:
        return ()
    general = noise in (Noise.COMMUTATIVE, Noise.GENERAL)
    chosen = _ITO if calculus is Calculus.ITO else _STRATONOVICH
    return tuple(m for m in chosen if not (general and m in ("milstein", "srk")))


class _Counted:
    """An SDE as torchsde takes it, counting calls; additive noise as the matrix its additive methods want."""

    def __init__(self, sde: Any, dense: bool) -> None:
        self._inner = to_torchsde(sde, dense=dense)
        self._additive = sde.noise is Noise.ADDITIVE and self._inner.noise_type == "diagonal"
        self.noise_type = "additive" if self._additive else self._inner.noise_type
        self.sde_type = self._inner.sde_type
        self.drift_calls = self.diffusion_calls = 0

    def f(self, t: Any, y: Tensor) -> Tensor:
        self.drift_calls += 1
        return self._inner.f(t, y)

    def g(self, t: Any, y: Tensor) -> Tensor:
        self.diffusion_calls += 1
        g = self._inner.g(t, y)
        return torch.diag_embed(g.expand_as(y)) if self._additive else g


class _Path:
    """A recorded path as torchsde's `bm`: W, and U = h (W/2 + H)."""

    levy_area_approximation = "space-time"

    def __init__(self, trial: Experiment) -> None:
        self.path, self.like = trial.path, torch.empty(trial.path.shape, dtype=torch.float64)
        self.shape, self.dtype, self.device = self.like.shape, self.like.dtype, self.like.device

    def __call__(self, ta: Any, tb: Any, return_U: bool = False, return_A: bool = False) -> Any:
        h = float(tb) - float(ta)
        step = self.path.increment(Span(as_time(float(ta)), as_time(float(tb)), h), self.like, Levy.H)
        return (step.W, h * (0.5 * step.W + step.H)) if return_U and step.H is not None else step.W


def torchsde_errors(trial: Experiment, method: str) -> Errors:
    """Strong errors of one of torchsde's methods along the experiment's paths, at the end."""
    problem = trial.problem
    if problem.direction is not Direction.FORWARD:
        raise ValueError("torchsde runs forward in time only")
    dense = isinstance(problem.sde.diffusion(as_time(problem.t0), trial.x0), Dense)
    sdeint: Any = torchsde.sdeint  # takes more than its types say
    ends, f_calls, g_calls = [], [], []
    for n in trial.steps:
        sde = _Counted(problem.sde, dense)
        ts = torch.tensor([problem.t0, problem.t1], dtype=torch.float64)
        with torch.no_grad():
            ys = sdeint(sde, trial.x0, ts, bm=_Path(trial), method=method, dt=problem.length / n)
        ends.append((ys[-1] - trial.truth[-1]).flatten(1).norm(dim=1))
        # one call of each is torchsde's check of the SDE, made once a solve
        f_calls.append(sde.drift_calls - 1)
        g_calls.append(sde.diffusion_calls - 1)
    h = torch.tensor([problem.length / n for n in trial.steps], dtype=torch.float64)
    scale = float(trial.truth[-1].abs().mean())
    return Errors(trial.steps, h, torch.stack(ends), None, tuple(f_calls), tuple(g_calls), scale)
