"""Exact log-densities through the probability-flow ODE.

Along the flow v of `probability_flow(process, score)`, from x(t_min) = x to the latent x(t_max),

    log p_tmin(x) = log prior(x(t_max)) + ∫ ∇·v(t, x(t)) dt     over t from t_min to t_max

For an affine process the flow is solved in the coordinates of `coordinates`, which take a third to a half of the
evaluations, and ∇·v is known but for the divergence of the score: only that is probed.

State of the solve: `[y flattened, (1/D) ∫ ∇·v for every probe]`, `(B, D + P)`. The integral is carried per dimension,
so that one tolerance means the same for both, and has an error norm of its own, so that neither hides behind the other.

Reference: Song et al. (2021), appendix D; Chen et al. (2018), "Neural ordinary differential equations", equation 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_has, check_number, check_state
from ..errors import Status
from ..protocols import Calculus, Direction, Law, Noise, Score, Solver, StepControl, expand
from ..random import Draws, as_draws
from ..solution import Stats
from ..solve import solve
from .coordinates import Coordinates, Flow, flow_of
from .divergence import Exact, Hutchinson, HutchPlusPlus
from .reverse import probability_flow
from .student import student_quantile

Estimator = Exact | Hutchinson | HutchPlusPlus


@dataclass(frozen=True)
class LogLikelihood:
    """Densities of a batch.

    log_prob `(B,)` in nats; per_probe `(P, B)`, NaN where a sample had fewer probes; latent: x(t_max) like x;
    standard_error `(B,)` of log_prob from the spread of the probes (0 for `Exact`, NaN for a single probe);
    status and stats as in `Solution`. Samples whose status is not OK have NaN throughout.
    """

    log_prob: Tensor
    per_probe: Tensor
    latent: Tensor
    standard_error: Tensor
    status: Tensor
    stats: Stats
    exact: bool = False

    @property
    def dimensions(self) -> int:
        """D, the numbers in one sample."""
        return self.latent[0].numel()

    @property
    def probes(self) -> Tensor:
        """Probes that each sample had, `(B,)`."""
        return self.per_probe.isfinite().sum(0)

    def bits_per_dim(self) -> Tensor:
        """`−log₂ p / D`, `(B,)`, of the continuous density (images add −log₂ of the bin width)."""
        return -self.log_prob / (self.dimensions * math.log(2.0))

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Ends `(B,)` of an interval that holds the exact divergence's log_prob with probability `level`.

        `log_prob ± q standard_error`, with q of Student's t law with probes − 1 degrees of freedom. What the steps of
        the solver leave of error is not in it.

        Raises ValueError where a sample has a single probe, or for a level outside (0, 1).
        """
        if self.exact:
            return self.log_prob, self.log_prob
        if bool((self.probes == 1).any()):
            raise ValueError("an interval needs two probes or more: use divergence=Hutchinson(probes=8)")
        degrees = [int(n) - 1 for n in self.probes]
        factors = [student_quantile(level, n) if n > 0 else math.nan for n in degrees]
        reach = self.standard_error * torch.tensor(factors).to(self.standard_error)
        return self.log_prob - reach, self.log_prob + reach


def log_likelihood(
    process: Any,
    score: Score,
    x: Tensor,
    *,
    solver: Solver,
    steps: StepControl,
    divergence: Estimator | None = None,
    standard_error: float | None = None,
    max_probes: int = 1024,
    t_min: float | None = None,
    t_max: float | None = None,
    prior: Law | None = None,
    coordinates: Coordinates | None = None,
    seed: int | Draws = 0,
    first: int = 0,
    on_failure: str = "raise",
) -> LogLikelihood:
    """Log-density of x under the law at t_min of the model that `score` defines.

    process: forward SDE with `t_min`, `t_max` and `prior` (or give them here).  score: `(t, x) -> ∇ log p_t(x)`,
    differentiable in x; called once for every evaluation of flow and divergence together.
    x: `(B, *shape)`, taken as states at t_min.
    divergence: `Exact()` (default), `Hutchinson(probes)` or `HutchPlusPlus(probes)`.
    standard_error: if given, samples get further probes until their standard error in nats is at most this, or until
    they have max_probes. Intervals of samples that stopped so are as good as the number of probes they began with.
    prior: the law at t_max, anything with `log_prob`; default `process.prior`, a Gaussian that stands for it.
    coordinates: for affine processes; default `Angle()`. Steps are then steps of the angle; a `TimeGrid` is still one
    of times.
    Sample i's probes depend on (seed, first + i) only, and with `Adaptive` steps so does its whole path.

    Raises SolveFailed like `solve`; ValueError for a score without a gradient or for bad arguments.
    """
    divergence = Exact() if divergence is None else divergence
    check_has("divergence", divergence, ("draw", "probes", "exact"), "Exact() or Hutchinson(probes=n)")
    start, end, law = _ends(process, x, t_min, t_max, prior)
    _check_target(standard_error, max_probes, divergence)
    flow = flow_of(probability_flow(process, score), coordinates)
    task = _Task(flow, law, start, end, solver, steps, divergence, on_failure)
    draws = as_draws(seed, first)
    result = task.run(x, divergence.draw(draws, x))
    if standard_error is not None and not divergence.exact:
        result = _refine(task, x, draws, result, standard_error, max_probes)
    return result


@dataclass(frozen=True)
class _Task:
    """All that the solves of one call share."""

    flow: Flow
    law: Any
    start: float
    end: float
    solver: Solver
    steps: StepControl
    divergence: Estimator
    on_failure: str

    def run(self, x: Tensor, probes: Tensor | None) -> LogLikelihood:
        """One solve with the given probes."""
        size, flow = x[0].numel(), self.flow
        ode = _FlowWithDivergence(flow, flow.score, self.divergence, probes, tuple(x.shape[1:]))
        low, high = flow.scale(self.start), flow.scale(self.end)
        with torch.no_grad():
            y0 = torch.cat((x.flatten(1) / low, x.new_zeros(len(x), self.divergence.probes)), dim=1)
            ends = (flow.clock(self.start), flow.clock(self.end))
            steps = flow.steps(self.steps)
            sol = solve(ode, y0, *ends, solver=self.solver, steps=steps, on_failure=self.on_failure)
            y = torch.where((sol.status == Status.OK)[:, None], sol.x, math.nan)
            latent = (y[:, :size] * high).reshape(x.shape)
            volume = size * math.log(high / low)
            per_probe = self.law.log_prob(latent) + (y[:, size:].T * size + volume)
        return _result(per_probe, latent, sol.status, sol.stats, self.divergence.exact)


@dataclass(frozen=True)
class _FlowWithDivergence:
    """The flow with its divergence as further columns."""

    flow: Flow
    score: Score
    divergence: Estimator
    probes: Tensor | None
    shape: tuple[int, ...]

    noise = Noise.NONE
    calculus = Calculus.ITO
    direction = Direction.FORWARD

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Sizes of the parts that have an error norm each."""
        return (self.size, self.divergence.probes)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.zeros((), dtype=x.dtype, device=x.device)

    def drift(self, u: Tensor, columns: Tensor) -> Tensor:
        y = columns[:, : self.size].reshape(-1, *self.shape)
        here = replace(self.flow, score=self.score).at(expand(u.reshape(-1), y) if u.ndim else u, y)
        control = getattr(self.divergence, "control", None)
        known = {} if control is None else {"diagonal": control(here.time, here.x)}
        value, divergence = self.divergence(here.field, here.x, self.probes, **known)
        velocity = here.rate * y + here.gain * value
        rate, stretch = (c.reshape(-1) if isinstance(c, Tensor) and c.ndim else c for c in (here.rate, here.stretch))
        growth = rate + stretch * divergence / self.size
        return torch.cat((velocity.flatten(1), growth.T.to(columns.dtype)), dim=1)


def _result(per_probe: Tensor, latent: Tensor, status: Tensor, stats: Stats, exact: bool) -> LogLikelihood:
    count = per_probe.isfinite().sum(0)
    mean = per_probe.nansum(0) / count
    if exact:
        error = torch.zeros_like(mean)
    else:
        spread = (per_probe - mean).square().nansum(0)
        error = torch.where(count > 1, (spread / ((count - 1) * count)).sqrt(), math.nan)
    return LogLikelihood(mean, per_probe, latent, error, status, stats, exact)


def _refine(
    task: _Task, x: Tensor, draws: Draws, result: LogLikelihood, target: float, max_probes: int
) -> LogLikelihood:
    """Further probes for the samples that fall short, in rounds, until none does or all have max_probes."""
    while True:
        have = result.probes
        rows = torch.nonzero((result.standard_error > target) & (have < max_probes)).squeeze(1)
        if len(rows) == 0:
            return result
        wanted = (have[rows] * (result.standard_error[rows] / target).square()).ceil().clamp(max=max_probes)
        most = int(have.max())
        more = replace(task.divergence, probes=max(1, int((wanted - have[rows]).max())))
        probes = more.draw(draws, x, start=most)
        part = replace(task, divergence=more).run(x[rows], None if probes is None else probes[:, rows])
        fresh = torch.full((more.probes, len(x)), math.nan).to(result.per_probe)
        fresh[:, rows] = part.per_probe
        status, stats = result.status.clone(), _added(result.stats, part.stats, rows)
        status[rows] = torch.maximum(status[rows], part.status)
        per_probe = torch.cat((result.per_probe, fresh))
        result = _result(per_probe, result.latent, status, stats, exact=False)


def _added(total: Stats, part: Stats, rows: Tensor) -> Stats:
    """The work of a whole batch and of some of its rows together."""

    def add(a: Tensor, b: Tensor) -> Tensor:
        return a.index_add(0, rows, b)

    return Stats(
        total.model_calls + part.model_calls,
        total.drift_calls + part.drift_calls,
        total.diffusion_calls + part.diffusion_calls,
        add(total.evaluations, part.evaluations),
        add(total.accepted, part.accepted),
        add(total.rejected, part.rejected),
    )


def _ends(process: Any, x: Tensor, t_min: float | None, t_max: float | None, prior: Any) -> tuple[float, float, Any]:
    check_state("x", x)
    for name, value in (("t_min", t_min), ("t_max", t_max), ("prior", prior)):
        if value is None:
            check_has("process", process, (name,), f"a process with {name} (or pass {name}=)")
        elif name != "prior":
            check_number(name, value)
    start = float(process.t_min if t_min is None else t_min)
    end = float(process.t_max if t_max is None else t_max)
    if not start < end:
        raise ValueError(f"expected t_min < t_max, got {start} and {end}")
    law = process.prior if prior is None else prior
    check_has("prior", law, ("log_prob",), "a law with log_prob(x)")
    return start, end, law


def _check_target(target: float | None, max_probes: int, divergence: Estimator) -> None:
    if target is None:
        return
    if not target > 0:
        raise ValueError(f"standard_error: expected a positive number of nats, got {target!r}")
    if not divergence.exact and divergence.probes < 2:
        raise ValueError("standard_error needs two probes to begin with, better 8: use divergence=Hutchinson(probes=8)")
    if max_probes < divergence.probes:
        raise ValueError(
            f"max_probes: expected at least the {divergence.probes} probes of divergence, got {max_probes}"
        )
