"""What a step calls, draws and remembers: found by making one, and letting it go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from ..protocols import Increment, Span
from ..random import Purpose, Shape

if TYPE_CHECKING:
    from ..random import Draws
    from ..solve import Run


class Request(NamedTuple):
    """What a step asked of the source of draws."""

    kind: str
    purpose: Purpose
    shape: Shape
    part: int


class Noting:
    """A source of draws that notes what it is asked for."""

    def __init__(self, draws: Draws | None) -> None:
        self.draws, self.requests = draws, list[Request]()

    def __getattr__(self, kind: str) -> Callable[..., Tensor]:
        if kind not in ("normal", "uniform", "sign"):
            raise AttributeError(kind)

        def draw(
            purpose: Purpose, step: int | Tensor, shape: Shape, dtype: torch.dtype, device: torch.device, part: int = 0
        ) -> Tensor:
            self.requests.append(Request(kind, purpose, tuple(shape), part))
            return getattr(self.draws, kind)(purpose, step, shape, dtype, device, part=part)

        return draw


class Given:
    """A source of draws that gives what was drawn before, in order."""

    def __init__(self, values: tuple[Tensor, ...]) -> None:
        self.values, self.used = values, 0

    def normal(self, *_: Any, **__: Any) -> Tensor:
        self.used += 1
        return self.values[self.used - 1]

    uniform = normal
    sign = normal


Calls = tuple[int, int, int]


def added(calls: Calls, more: Calls, times: int = 1) -> Calls:
    """Calls of drift, diffusion and score, and as many more."""
    return (calls[0] + times * more[0], calls[1] + times * more[1], calls[2] + times * more[2])


def try_step(run: Run, span: Span, dw: Increment | None) -> tuple[Calls, list[Request], Any]:
    """Make a step and let it go: what it calls, what it asks for, and the solver's memory after it."""
    before, draws = run.sde.calls, Noting(run.draws)
    step = run.solver.step(run.sde, span._replace(draws=draws), run.x, dw, run.state)
    calls = added(run.sde.calls, before, -1)
    run.sde.calls = before
    return calls, draws.requests, step.state


def draw(run: Run, request: Request, step: int | Tensor) -> Tensor:
    """What a step draws."""
    source = getattr(run.draws, request.kind)
    return source(request.purpose, step, request.shape, run.x.dtype, run.x.device, part=request.part)


def has_parameters(sde: Any) -> bool:
    """Whether an SDE holds a module, whose calls may cost more than a graph saves."""
    parts = [sde, *(getattr(sde, name, None) for name in ("score", "drift", "diffusion", "network"))]
    return any(isinstance(part, torch.nn.Module) for part in parts)


def form_of(value: Any) -> Any:
    """What a nest of tensors looks like."""
    if isinstance(value, tuple):
        return tuple(form_of(part) for part in cast(tuple[Any, ...], value))
    return None if value is None else (value.shape, value.dtype)
