"""Adams methods: explicit multistep methods for ODEs whose drift is dear, one evaluation a step whatever the order.

    predict   p = x + h Σ_j b_j f_j            j over the p last evaluations
    evaluate  f = drift(t₁, p)
    correct   x' = x + h (c f + Σ_j c_j f_j)

where b and c integrate the polynomials through the slopes over the step, so that steps may have any lengths. f is kept
for the steps to come and is not evaluated again at x' ("PEC").

Notation and shapes
    p        number of slopes remembered, newest first: tensors `(B, *shape)`; their times `(B, p)`
    τ        time in units of the step: 0 at t0, 1 at t1

Reference: Hairer, Nørsett, Wanner (1993), §III.1 and III.5; Shampine, Gordon (1975), chapters 3 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..protocols import SDE, Increment, Levy, Noise, Order, Span, Step, expand


class Memory(NamedTuple):
    """Slopes and their times, newest first; of the p places the first `filled` are in use."""

    times: Tensor  # (B, p), float64
    filled: Tensor  # (B,), number of places in use
    slopes: tuple[Tensor, ...]

    def push(self, t: Tensor, slope: Tensor) -> Memory:
        times = torch.cat((t.reshape(-1, 1).expand(len(self.times), 1), self.times[:, :-1]), dim=1)
        return Memory(times, (self.filled + 1).clamp(max=times.shape[1]), (slope, *self.slopes[:-1]))

    def renew(self, slope: Tensor) -> Memory:
        """With another newest slope."""
        return self._replace(slopes=(slope, *self.slopes[1:]))


def quadrature(nodes: Tensor, count: Tensor) -> Tensor:
    """Weights `(b, n)` on the first `count` nodes: `Σ_j w_j q(τ_j) = ∫₀¹ q dτ` for every q of degree below count."""
    n = nodes.shape[1]
    power = torch.arange(n, dtype=nodes.dtype, device=nodes.device)
    filled = power < count[:, None]
    both = filled[:, :, None] & filled[:, None, :]
    unit = torch.eye(n, dtype=nodes.dtype, device=nodes.device)
    system = torch.where(both, nodes[:, None, :] ** power[:, None], unit)
    # `solve_ex` waits for no device, and a sample that has gone wrong spoils its own weights only
    moments = torch.where(filled, 1.0 / (power + 1), 0.0).to(nodes.dtype)
    return cast(Tensor, torch.linalg.solve_ex(system, moments).result)


@dataclass(frozen=True)
class Adams:
    """Adams–Bashforth–Moulton with p = 2 … 7 remembered slopes, for ODEs: one evaluation a step.

    Order p, and nearly p + 1 while the start is finer than the rest. The first step is made of inner steps that grow
    with their order; it costs p + 2 evaluations. On smooth problems the method takes about half the evaluations of
    `Dopri5` for the same error; where short transients come unforeseen a Runge–Kutta method is safer. The error
    estimate is the difference to the corrector of one order less. Orders 6 and 7 are for float64.

    Raises ValueError for an order that is not an integer from 2 to 7.

    Reference: Hairer, Nørsett, Wanner (1993), §III.1 and III.5 (variable steps).
    """

    order: int = 5

    calculus = None
    levy = Levy.W
    orders = {Noise.NONE: Order(5.0, 5.0)}

    def __post_init__(self) -> None:
        if isinstance(self.order, bool) or not isinstance(self.order, int) or not 2 <= self.order <= 7:
            raise ValueError(f"Adams: order must be an integer from 2 to 7, got {self.order!r}")
        object.__setattr__(self, "orders", {Noise.NONE: Order(self.order, self.order)})

    @property
    def error_order(self) -> float | None:
        return self.order + 1.0

    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Memory:
        slope, k = sde.drift(t, x), self.order
        times = t.reshape(-1, 1).expand(len(x), k).to(x.device)
        return Memory(times, torch.ones(len(x), dtype=torch.int64, device=x.device), (slope,) * k)

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Memory) -> Step:
        fresh = state.filled == 1
        if not bool(fresh.any()):
            return self._advance(sde, span.t0, span.t1, x, state)
        started = self._start(sde, span, x, state)
        if bool(fresh.all()):
            return started
        return _select(fresh, started, self._advance(sde, span.t0, span.t1, x, state))

    def _start(self, sde: SDE, span: Span, x: Tensor, state: Memory) -> Step:
        """The first step, by inner steps to (j/(p + 1))^(5/2) of it; its error is that of all of them."""
        step, t, error = Step(x, state=state), span.t0, torch.zeros_like(x)
        count = self.order + 1
        for j in range(1, count + 1):
            after = span.t1 if j == count else torch.lerp(span.t0, span.t1, (j / count) ** 2.5)
            step, t = self._advance(sde, t, after, step.x, step.state), after
            error = error + torch.as_tensor(step.error)
            if j == 1:
                # this slope was predicted to order 1 only; left as it is, it would spoil the next ones
                step = step._replace(state=step.state.renew(sde.drift(t, step.x)))
        return step._replace(error=error)

    def _advance(self, sde: SDE, t0: Tensor, t1: Tensor, x: Tensor, memory: Memory) -> Step:
        """One predictor–corrector step."""
        times, count = memory.times, memory.filled
        if t0.ndim == 0:  # the same weights for all samples
            times, count = times[:1], count[:1]
        h = t1 - t0
        # samples that have arrived stand still; any length will do for their weights
        length = torch.where(h == 0, torch.ones_like(h), h).reshape(-1, 1)
        nodes = (times - t0.reshape(-1, 1)) / length
        move = h if h.ndim == 0 else h.to(x.dtype)
        predicted = x + _combine(quadrature(nodes, count), memory.slopes) * move
        slope = sde.drift(t1, predicted)

        end = torch.cat((torch.ones_like(nodes[:, :1]), nodes), dim=1)
        slopes = (slope, *memory.slopes)
        new = x + _combine(quadrature(end, count + 1), slopes) * move
        lower = x + _combine(quadrature(end, count), slopes) * move
        return Step(new, new - lower, memory.push(t1, slope))


def _combine(weights: Tensor, slopes: tuple[Tensor, ...]) -> Tensor:
    """`Σ_j w_j f_j`, sample by sample."""
    total = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights.to(total.dtype).unbind(1), slopes, strict=True):
        total = torch.addcmul(total, expand(weight, slope), slope)
    return total


def _select(mask: Tensor, one: Step, other: Step) -> Step:
    """Sample by sample, `one` where the mask `(B,)` is set, else `other`."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(expand(mask, a), a, b)

    slopes = tuple(pick(a, b) for a, b in zip(one.state.slopes, other.state.slopes, strict=True))
    memory = Memory(pick(one.state.times, other.state.times), pick(one.state.filled, other.state.filled), slopes)
    assert one.error is not None
    assert other.error is not None
    return Step(pick(one.x, other.x), pick(one.error, other.error), memory)
