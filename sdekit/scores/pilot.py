"""Pilot paths: a few converged solutions of the probability flow, by which samplers and grids are judged.

Notation and shapes
    x        states `(P, *shape)` of P pilots
    F, φ     Karras's preconditioned quantity and the angle atan(σ/c), see `sdekit.solvers.exponential`; c is the pilots'
             own standard deviation at the end
    error    geometric mean over pilots of the root mean square over components, so that a pilot that ends in another
             basin counts once and not for all
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_state
from ..protocols import Score, match
from ..save import SaveAt
from ..solve import solve
from ..solvers.exponential import VelocityForm
from ..solvers.exponential_multistep import AngularAdams
from ..steps.fixed import TimeGrid
from ..steps.grids import angle_grid, interpolate
from .reverse import ReverseSDE, probability_flow

NODES = 256  # nodes of a converged path: at order 5 its error is far below that of any sampler that is judged by it


@dataclass(frozen=True)
class Pilots:
    """Converged paths of the probability flow from the prior to t_min.

    starts: `(P, *shape)` at t_max.  path: `(NODES + 1, P, *shape)`.  grid: the times of the path.
    """

    process: Any
    score: Score
    starts: Tensor
    path: Tensor
    grid: TimeGrid

    @classmethod
    def of(cls, process: Any, score: Score, starts: Tensor) -> Pilots:
        """Solve from these starts. A first, coarse solve finds the width of the data, which the fine one is fitted to."""
        check_state("starts", starts)
        starts = starts.detach()
        flow, width = probability_flow(process, score), 1.0
        for nodes in (32, NODES):
            grid = angle_grid(process, nodes, width, tail=0.2)
            path = _path(flow, starts, AngularAdams(4, sigma_data=width), grid)
            width = _width(process, path[-1])
        return cls(process, score, starts, path, grid)

    @property
    def flow(self) -> ReverseSDE:
        """The probability flow that the pilots follow."""
        return probability_flow(self.process, self.score)

    @property
    def ends(self) -> Tensor:
        """The converged states at t_min."""
        return self.path[-1]

    @cached_property
    def width(self) -> float:
        """Standard deviation of the data, by the pilots' ends."""
        return _width(self.process, self.ends)

    def error(self, solver: Any, grid: TimeGrid) -> float:
        """Error at t_min of the solver on the grid; infinite where it does not get there."""
        times: Any = grid.times
        x = solve(self.flow, self.starts, times[0], times[-1], solver=solver, steps=grid, on_failure="return").x
        rmse = (x - self.ends).square().flatten(1).mean(1).sqrt().clamp_min(torch.finfo(x.dtype).eps)
        value = float(rmse.log().mean().exp())
        return value if math.isfinite(value) else math.inf

    def local_error_density(self, order: int) -> tuple[Tensor, Tensor]:
        """(ln σ, density of nodes over ln σ), increasing in ln σ, that equidistributes the local error of this order.

        A method of order p makes the error |dᵖF/dφᵖ| Δφ^(p+1) in a step, in units that the flow of data of width c
        carries along unchanged; it is the same in all steps where they are in proportion to its power −1/(p + 1).
        """
        angle, log_sigma, values = self._quantity
        for _ in range(order):
            slope = values.diff(dim=0) / expand_like(angle.diff(), values)
            angle, log_sigma, values = _middle(angle), _middle(log_sigma), slope
        size = values.square().flatten(1).mean(1).sqrt()
        bend = torch.cos(angle) * torch.sin(angle).abs()  # dφ/d ln σ
        density = size ** (1.0 / (order + 1)) * bend
        smooth = _smooth(log_sigma, density)
        return log_sigma.flip(0), (smooth / smooth.max()).clamp_min(0.02).flip(0)

    @cached_property
    def _quantity(self) -> tuple[Tensor, Tensor, Tensor]:
        """Angle, ln σ and F at all nodes of the path, at one call of the score each."""
        form, flow = VelocityForm(self.width), self.flow
        times = torch.tensor(self.grid.times, dtype=torch.float64)
        values = torch.stack([form.value(flow, t, x) for t, x in zip(times, self.path, strict=True)])
        return form.clock(self.process, times), self.process.log_sigma(times), values.double()


def expand_like(v: Tensor, x: Tensor) -> Tensor:
    """`(N,)` as `(N, 1, …, 1)` of x's rank, on its device."""
    return v.reshape(-1, *(1,) * (x.ndim - 1)).to(x.device)


def _middle(v: Tensor) -> Tensor:
    return 0.5 * (v[1:] + v[:-1])


def _smooth(at: Tensor, value: Tensor, width: float = 0.5) -> Tensor:
    """Average with a Gaussian of this width in ln σ: steps of a multistep method must not change size abruptly."""
    kernel = torch.exp(-0.5 * ((at[:, None] - at[None, :]) / width).square())
    kernel = kernel * torch.gradient(at)[0].abs()
    return (kernel @ value.to(kernel)) / kernel.sum(1)


def _path(flow: ReverseSDE, starts: Tensor, solver: Any, grid: TimeGrid) -> Tensor:
    times: Any = grid.times
    with torch.no_grad():
        sol = solve(flow, starts, times[0], times[-1], solver=solver, steps=grid, save=SaveAt(times=times))
    return sol.x


def _width(process: Any, ends: Tensor) -> float:
    """Root mean square of the data's components around their mean over pilots."""
    x = ends * match(1.0 / process.scale(process.t_min), ends)
    centred = x - x.mean(0) if len(x) > 4 else x
    return max(float(centred.square().mean().sqrt()), 1e-3)


def table(log_sigma: Tensor, density: Tensor) -> Any:
    """The density as a function of ln σ, for `density_grid`."""

    def at(v: Tensor) -> Tensor:
        inside = v.clamp(float(log_sigma[0]), float(log_sigma[-1]))
        return interpolate(inside, log_sigma, density)

    return at
