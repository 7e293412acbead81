"""Flows that torchdiffeq integrates, and torchdiffeq's methods as solvers of `solve`.

torchdiffeq writes func(t, y) with t 0-d, y of any shape, in either direction of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import Incompatible
from ..protocols import SDE, Increment, Levy, Noise, Order, Span, Step, as_time
from ..solvers.contract import Memoryless
from .torchsde import modules

ORDERS = {
    "euler": 1,
    "midpoint": 2,
    "heun2": 2,
    "heun3": 3,
    "rk4": 4,
    "fehlberg2": 2,
    "adaptive_heun": 2,
    "bosh3": 3,
    "dopri5": 5,
    "tsit5": 5,
    "dopri8": 8,
}
"""Orders of torchdiffeq's one-step methods. Its Adams methods would start anew in every span and are left out."""

FIXED = frozenset({"euler", "midpoint", "heun2", "heun3", "rk4"})
"""Methods that take one step a span."""


class TorchdiffeqFunction(nn.Module):
    """An ODE of sdekit as torchdiffeq's func(t, y); made by `to_torchdiffeq`."""

    def __init__(self, flow: SDE, domain: tuple[float, float] | None) -> None:
        super().__init__()
        self.flow, self.domain = flow, domain
        self.found = nn.ModuleList(dict.fromkeys(modules(flow)))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift at (t, y)."""
        time = as_time(t)
        return self.flow.drift(time if self.domain is None else time.clamp(*self.domain), y)


def to_torchdiffeq(flow: SDE, domain: tuple[float, float] | None = None) -> TorchdiffeqFunction:
    """An ODE, such as `probability_flow(process, score)`, for `torchdiffeq.odeint` and `odeint_adjoint`: func(t, y).

    It is an `nn.Module` whose parameters are those of modules among the flow's parts.

    domain: the drift outside it is taken to be that at its nearer end, since torchdiffeq looks beyond the span that it
        solves when it chooses a first step. By default (t_min, t_max) of the flow's process, where there is one.

    Raises Incompatible for an SDE with noise.
    """
    if not hasattr(flow, "drift") or not hasattr(flow, "noise"):
        raise TypeError(f"to_torchdiffeq: expected an ODE of sdekit, got {type(flow).__name__}; write ODE(function)")
    if flow.noise is not Noise.NONE:
        raise Incompatible(
            f"torchdiffeq solves ODEs and this SDE has {flow.noise.name} noise; probability_flow(sde, score) is its ODE"
        )
    process: Any = getattr(flow, "process", None)
    if domain is None and hasattr(process, "t_min") and hasattr(process, "t_max"):
        domain = (process.t_min, process.t_max)
    return TorchdiffeqFunction(flow, domain)


@dataclass(frozen=True)
class TorchdiffeqSolver(Memoryless):
    """A method of torchdiffeq as a Solver, for ODEs: every span of the step control is one call of `odeint`.

    method: "euler", "midpoint", "heun2", "heun3" and "rk4" take one step a span; "dopri5", "dopri8", "bosh3",
    "adaptive_heun" and "fehlberg2" choose steps inside it, common to all samples of the batch, to rtol and atol.
    Use it with `FixedSteps` or `TimeGrid`.  options: passed on to torchdiffeq.

    A span in which torchdiffeq gives up is tried again for every sample alone, and is NaN for those that fail again.

    Raises ValueError for a method that is unknown or keeps a memory of steps.

    Reference: Chen (2018), torchdiffeq.
    """

    method: str = "dopri5"
    rtol: float = 1e-7
    atol: float = 1e-9
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    calculus = None
    levy = Levy.W
    error_order = None

    def __post_init__(self) -> None:
        # the table has no public name, and torchdiffeq no types
        from torchdiffeq._impl.odeint import SOLVERS  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

        if self.method not in ORDERS or self.method not in SOLVERS:
            known = ", ".join(name for name in ORDERS if name in SOLVERS)
            raise ValueError(f"TorchdiffeqSolver: method must be one of {known}, got {self.method!r}")
        for name in ("rtol", "atol"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"TorchdiffeqSolver: {name} must be 0 or more, got {getattr(self, name)!r}")

    @property
    def orders(self) -> dict[Noise, Order]:
        """The order in the length of a span; methods that choose their own steps keep to their tolerances instead."""
        order = ORDERS[self.method]
        return {Noise.NONE: Order(order, order)}

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        try:
            return Step(self._integrate(sde, span.t0, span.t1, x))
        except AssertionError:  # what torchdiffeq raises for a step that underflows and for a state that is not finite
            if len(x) == 1:
                return Step(torch.full_like(x, float("nan")))
        rows = [
            self.step(sde, Span(_row(span.t0, i), _row(span.t1, i), span.h), x[i : i + 1], None, None).x
            for i in range(len(x))
        ]
        return Step(torch.cat(rows))

    def _integrate(self, sde: SDE, t0: Tensor, t1: Tensor, x: Tensor) -> Tensor:
        # torchdiffeq has no types
        from torchdiffeq import odeint  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

        if t0.ndim == t1.ndim == 0:
            if bool(t0 == t1):
                return x
            times = torch.stack((t0, t1))
            low, high = torch.minimum(t0, t1).detach(), torch.maximum(t0, t1).detach()

            # the first step is chosen by a look beyond the end, where the drift may have no meaning
            def field(t: Tensor, y: Tensor) -> Tensor:
                return sde.drift(as_time(t).clamp(low, high), y)

        else:
            # every sample at a time of its own: dy/dθ = h f(t0 + θ h, y), θ from 0 to 1
            h = t1 - t0
            times = torch.tensor([0.0, 1.0], dtype=torch.float64, device=x.device)

            def field(t: Tensor, y: Tensor) -> Tensor:
                return sde.drift(t0 + t.clamp(0.0, 1.0) * h, y) * h.to(y.dtype)

        options = dict(self.options)
        if self.method not in FIXED:
            # else the end is interpolated from a step beyond it, less accurately than the tolerance says
            options.setdefault("step_t", times[1:].detach())
        tolerances = {"rtol": self.rtol, "atol": self.atol}
        return cast(Tensor, odeint(field, x, times, method=self.method, options=options, **tolerances))[1]


def _row(t: Tensor, i: int) -> Tensor:
    return t if t.ndim == 0 else t[i : i + 1]
