"""Coordinates in which the probability flow of an affine process is easy to integrate.

For x(t) = s (x(0) + σ z) the flow is dx/dt = (s'/s) x − ½ g² ∇log p_t(x). With (u, y) and x = scale(u) y it reads

    dy/du = rate(u) y + gain(u) ∇log p_t(x)

`Angle`:  u = atan(σ/c), y = x/√(s²c² + std²). There data N(0, c² I) do not move at all, other data move with a speed of
about their deviation from it, and both ends, σ = 0 and σ = ∞, are ordinary points.  `Clock`: u = t, y = x.

Notation: s, σ, std = s σ as in `sdekit.sdes.process`; c = sigma_data.

Reference: Salimans, Ho (2022), arXiv 2202.00512, appendix D (the angle, for c = 1); Karras et al. (2022),
arXiv 2206.00364, equation 7 (the same split of the denoiser, as a preconditioning).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..arguments import check_integer, check_number
from ..protocols import Calculus, Direction, Noise, Score, StepControl, as_time, match
from ..steps.fixed import TimeGrid
from .divergence import Field
from .reverse import ReverseSDE


class Place(NamedTuple):
    """The coefficients at one u: float64, of the shape of u."""

    t: Tensor
    scale: Tensor
    rate: Tensor
    gain: Tensor


class Coordinates(Protocol):
    """A choice of (u, y)."""

    def clock(self, process: Any, t: Tensor) -> Tensor:
        """U at time t, increasing."""
        ...

    def place(self, process: Any, u: Tensor) -> Place: ...


@dataclass(frozen=True)
class Angle:
    """The angle u = atan(σ/c), and x over the radius √(s²c² + std²).

    sigma_data: c > 0, about the standard deviation of the data in x. Too large costs less than too small.

    Raises ValueError unless sigma_data is positive and finite.
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_data < math.inf:
            raise ValueError(f"Angle: sigma_data must be positive and finite, got {self.sigma_data!r}")

    def clock(self, process: Any, t: Tensor) -> Tensor:
        t = as_time(t)
        return torch.atan2(process.std(t), self.sigma_data * process.scale(t))

    def grid(self, process: Any, n: int, first: float = 1.0) -> TimeGrid:
        """The times of n equal steps of the angle from t_min to t_max.

        first: length of the first step in units of the others; 3 suits `Adams`, which cuts its first step in pieces.

        Raises ValueError for n < 1, or first not positive.
        """
        check_integer("Angle.grid: n", n, 1)
        check_number("Angle.grid: first", first, above=0.0)
        ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
        low, high = self.clock(process, ends)
        share = (first + torch.arange(n - 1, dtype=torch.float64)) / (first + n - 1)
        inner = process.time(torch.log(self.sigma_data * torch.tan(low + share * (high - low))))
        return TimeGrid([process.t_min, *inner.tolist(), process.t_max])

    def place(self, process: Any, u: Tensor) -> Place:
        c = self.sigma_data
        t = process.time(torch.log(c * torch.tan(u)))
        s, std = process.scale(t), process.std(t)
        radius = torch.hypot(c * s, std)
        return Place(t, radius, -std / (c * s), -std * radius / (c * s))


@dataclass(frozen=True)
class Clock:
    """Time itself and x itself."""

    def clock(self, process: Any, t: Tensor) -> Tensor:
        return as_time(t)

    def place(self, process: Any, u: Tensor) -> Place:
        rate = process.drift(u, torch.ones_like(u))
        return Place(u, torch.ones_like(u), rate, -0.5 * torch.as_tensor(process.diffusion(u, torch.ones_like(u))) ** 2)


class Local(NamedTuple):
    """The flow near one (u, y): `dy/du = rate y + gain v(x)` at `x`, whose divergence is `D rate + stretch ∇·v`."""

    x: Tensor
    field: Field
    rate: Tensor | float
    gain: Tensor | float
    stretch: Tensor | float
    time: Tensor


@dataclass(frozen=True)
class Flow:
    """The probability flow as an ODE dy/du, for the whole of an interval of time.

    flow: in x and t.  score: its score, called through here so that calls are counted.  coordinates: (u, y) where the
    process is affine, None for x and t themselves.
    """

    flow: ReverseSDE
    score: Score
    coordinates: Coordinates | None

    noise = Noise.NONE
    calculus = Calculus.ITO
    direction = Direction.FORWARD

    @property
    def process(self) -> Any:
        return self.flow.process

    def clock(self, t: float) -> float:
        """U at time t."""
        if self.coordinates is None:
            return t
        return float(self.coordinates.clock(self.process, torch.tensor(t, dtype=torch.float64)))

    def scale(self, t: float) -> float:
        """x/y at time t."""
        if self.coordinates is None:
            return 1.0
        u = torch.tensor(self.clock(t), dtype=torch.float64)
        return float(self.coordinates.place(self.process, u).scale)

    def steps(self, steps: StepControl) -> StepControl:
        """The same steps in u: only a grid of times has to be converted."""
        return TimeGrid([self.clock(float(t)) for t in steps.times]) if isinstance(steps, TimeGrid) else steps

    def diffusion(self, u: Tensor, y: Tensor) -> Tensor:
        return torch.zeros((), dtype=y.dtype, device=y.device)

    def drift(self, u: Tensor, y: Tensor) -> Tensor:
        here = self.at(u, y)
        return here.rate * y + here.gain * here.field(here.x)

    def at(self, u: Tensor, y: Tensor) -> Local:
        """What the flow is made of at (u, y)."""
        if self.coordinates is None:

            def whole(x: Tensor) -> Tensor:
                return self.flow.assemble(u, x, self._score(u, x))

            return Local(y, whole, 0.0, 1.0, 1.0, u)
        t, scale, rate, gain = self.coordinates.place(self.process, u.to(torch.float64))
        rate, gain, stretch, scale = (match(part, y) for part in (rate, gain, gain * scale, scale))
        return Local(scale * y, partial(self._score, t), rate, gain, stretch, t)

    def _score(self, t: Tensor, x: Tensor) -> Tensor:
        score = self.score(t, x)
        if x.requires_grad and not score.requires_grad:
            raise ValueError(
                "the score has no gradient with respect to x: is it computed under no_grad, or detached? "
                "The likelihood needs its divergence."
            )
        return score


def is_affine(process: Any) -> bool:
    """Whether the process has s and σ: what `Angle` needs."""
    return all(hasattr(process, name) for name in ("scale", "std", "log_sigma", "time"))


def flow_of(flow: ReverseSDE, coordinates: Coordinates | None) -> Flow:
    """The flow in the given coordinates; None: by the angle where the process is affine, else in x and t.

    Raises TypeError for coordinates that the process cannot have.
    """
    affine = is_affine(flow.process)
    if coordinates is not None and not affine and not isinstance(coordinates, Clock):
        raise TypeError(
            f"coordinates: {type(flow.process).__name__} is not an affine process with scale and sigma; "
            "leave coordinates out"
        )
    if not affine:
        return Flow(flow, flow.score, None)
    return Flow(flow, flow.score, Angle() if coordinates is None else coordinates)
