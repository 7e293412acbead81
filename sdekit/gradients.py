"""How derivatives find their way back through a solve, and what that costs in memory.

By default every step is remembered, and plain backpropagation is exact. Two others remember less and compute again what
they let go; since all randomness is keyed, what is computed again is the same to the bit.

    n steps of k tensors each          remembered      steps made
    default                            n k             n
    Checkpointed()                     ≈ √n (k + 1)    2 n
    ReversibleAdjoint()                k               2 n, and n undone

Both are exact for the solver as it is: they give the gradient of the numbers that were computed, not of a continuous
adjoint equation. Derivatives with respect to x0, t0, t1 and all parameters come out, wherever they enter. The nodes of
the autograd graph itself, some hundred bytes each, stay.

Drifts that call `torch.func.vjp` or `grad` cannot be used with either: torch refuses to let go of what those save.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]  # torch declares it in part

from .errors import Incompatible

if TYPE_CHECKING:
    from .solve import Run


def _again(leg: Callable[[bool], Any]) -> Any:
    """`leg(True)` now, whose inner tensors are let go; `leg(False)` when they are needed."""
    fresh = [True]

    def call() -> Any:
        first, fresh[0] = fresh[0], False
        return leg(first)

    return cast(Any, checkpoint(call, use_reentrant=False))


@dataclass(frozen=True)
class Checkpointed:
    """Remember the states between segments of the solve, and make each segment again on the way back.

    segments: how many; default √n of n known steps. Where the number of steps is not known before (`Adaptive`),
    segments are one, two, three, … steps long, which also makes memory grow as √n.

    Raises ValueError for segments < 1, and where `segments` is given for adaptive steps.

    Reference: Griewank, Walther (2000), ACM Trans. Math. Softw. 26(1); Chen et al. (2016), arXiv:1604.06174.
    """

    segments: int | None = None

    def __post_init__(self) -> None:
        if self.segments is not None and (isinstance(self.segments, bool) or not isinstance(self.segments, int)):
            raise TypeError(f"Checkpointed: segments must be an integer, got {self.segments!r}")
        if self.segments is not None and self.segments < 1:
            raise ValueError(f"Checkpointed: segments must be 1 or more, got {self.segments}")

    def march(self, run: Run) -> None:
        """Take the run to its end, segment by segment."""
        steps: int | None = getattr(run.pace, "steps", None)
        if steps is None and self.segments is not None:
            raise ValueError("Checkpointed(segments=…) needs a known number of steps; with Adaptive use Checkpointed()")
        length = 1 if steps is None else math.ceil(steps / (self.segments or math.isqrt(max(1, steps))))
        while self._segment(run, max(1, length)):
            length += steps is None

    @staticmethod
    def _segment(run: Run, length: int) -> bool:
        start = run.fork()
        return _again(lambda first: (run if first else start.fork()).go(length))


@dataclass(frozen=True)
class ReversibleAdjoint:
    """Remember the final state only and find the others by undoing steps: for solvers that can (`ReversibleHeun`).

    The steps must be known beforehand (`FixedSteps`, `TimeGrid`), without an event. Rounding errors grow on the way
    back as they do forward; float64 leaves the gradient exact to some 10⁻¹² for mild equations.

    Raises Incompatible for other solvers and steps.

    Reference: Kidger, Foster, Li, Lyons (2021), "Efficient and accurate gradients for neural SDEs", NeurIPS, section 3.
    """

    def march(self, run: Run) -> None:
        """Take the run to its end, step by step."""
        name = type(run.solver).__name__
        if not hasattr(run.solver, "undo"):
            raise Incompatible(
                f"ReversibleAdjoint needs a solver that can undo its steps, {name} cannot. Use ReversibleHeun()."
            )
        if getattr(run.pace, "steps", None) is None or run.watch is not None:
            raise Incompatible(
                "ReversibleAdjoint needs steps that are known beforehand and no event. Use Checkpointed()."
            )
        trail = _Trail(run)
        while self._step(run, trail):
            pass
        trail.ends(run)

    @staticmethod
    def _step(run: Run, trail: _Trail) -> bool:
        start = trail.begin(run)
        return _again(lambda first: (run if first else trail.back_to(start)).go(1))


class _Trail:
    """The steps of a run, without their states: those are found again from the last."""

    def __init__(self, run: Run) -> None:
        self._solver: Any = run.solver
        self._starts: list[Run] = []
        self._needs: list[Any] = []

    def begin(self, run: Run) -> int:
        """Remember that a step begins here, and which of its inputs need derivatives; its number."""
        self._needs.append(_map(_needs_derivatives, (run.x, run.state)))
        start = run.fork()
        start.x, start.state, start.mean = run.x.new_empty(0), None, None
        self._starts.append(start)
        return len(self._starts) - 1

    def ends(self, run: Run) -> None:
        """The run has ended: the last start is no step."""
        self._last = _map(Tensor.detach, (run.x, run.state))
        self._cursor, self._here = len(self._starts) - 1, self._last

    def back_to(self, number: int) -> Run:
        """The run as it was when this step began."""
        if number > self._cursor:  # a second way back
            self._cursor, self._here = len(self._starts) - 1, self._last
        while self._cursor > number:
            self._cursor -= 1
            self._here = self._undone(self._starts[self._cursor].fork(), *self._here)
        run = self._starts[number].fork()
        run.x, run.state = _map(_leaf, self._here, self._needs[number])
        return run

    @torch.no_grad()
    def _undone(self, run: Run, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        span = run.pace.next()
        assert span is not None
        return self._solver.undo(run.sde, span, x, run.increment(span), state)


def _needs_derivatives(v: Tensor) -> bool:
    return v.requires_grad


def _leaf(v: Tensor, needs: bool) -> Tensor:
    return v.detach().requires_grad_(needs)


def _map(fn: Callable[..., Any], value: Any, *others: Any) -> Any:
    """The function's value for every tensor in a nest of tuples."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(_map(fn, *parts) for parts in zip(cast(tuple[Any, ...], value), *others, strict=True))
    return fn(value, *others)
