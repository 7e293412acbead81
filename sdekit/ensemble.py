"""Many paths of one SDE, shared out over processes: `torchrun --nproc-per-node=4 script.py`, or one process alone.

    with processes():
        found = ensemble(sde, x0, 0.0, 1.0, n=10**6, solver=EulerMaruyama(), steps=FixedSteps(100), levels=(0.05, 0.95))

Paths come in blocks of `batch`; block b holds paths b·batch … of the ensemble, and every process solves a contiguous run
of blocks as `solve(..., first=…)`. Path i is the same bit for bit on any number of processes, since the numbers drawn for
it depend on (seed, i) only and the block it is computed in does not change.

Moments are put together by the formula of `moments` (the same to rounding on any number of processes), quantiles are
exact (`quantiles`). Without quantiles and without `keep`, memory does not grow with the number of paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import check_has, check_integer, check_state
from .moments import Moments
from .processes import Processes, processes
from .protocols import SDE, Solver, StepControl
from .quantiles import quantiles
from .save import SaveAt
from .solution import Solution
from .solve import solve

Start = Tensor | Callable[[int, int], Tensor]
"""One state `(1, *shape)` for all paths, or `(first, count) → (count, *shape)`, the states of paths first … + count."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What the paths of all processes have in common, and those of this one.

    t          the saved times `(T,)`, or the final time
    moments    of `(T, *shape)` saved states, or of the `(*shape)` final ones; see `sdekit.Moments`
    quantiles  `(Q, T, *shape)` or `(Q, *shape)`, in the order of `levels`
    first      index in the ensemble of this process's first path
    paths      this process's paths `(n_p, T, *shape)` or `(n_p, *shape)`, where they were kept
    model_calls  batched calls of the model on all processes
    """

    t: Tensor
    moments: Moments
    levels: tuple[float, ...]
    quantiles: Tensor
    first: int
    paths: Tensor | None
    model_calls: int

    @property
    def count(self) -> int:
        """Number of paths."""
        return self.moments.count


def ensemble(
    sde: SDE,
    x0: Start,
    t0: float,
    t1: float,
    n: int,
    *,
    solver: Solver,
    steps: StepControl,
    save: SaveAt | None = None,
    seed: int = 0,
    levels: Sequence[float] = (),
    full: bool = False,
    keep: bool = False,
    batch: int = 4096,
    progress: Callable[[float], None] | None = None,
) -> Ensemble:
    """Solve n paths and reduce them, on the processes that were started together.

    x0: one state `(1, *shape)`, or a function of (first, count) for states of their own.  n: paths, 1 or more.
    solver, steps, save, seed: as in `solve`.
    levels: quantiles wanted; then the saved states of a process are held in its memory.
    full: covariances between all entries of the saved state, in place of variances.
    keep: whether to hold this process's paths in the result.
    batch: paths solved at a time. It bounds memory; n/batch is also the largest number of processes that get work.
    progress: called with the fraction of this process's work done.

    Raises on every process what `solve` raises on one, and ValueError for bad arguments.
    """
    check_integer("n: the number of paths", n, 1)
    check_integer("batch", batch, 1)
    check_has("steps", steps, ("adaptive", "begin"), "a control such as FixedSteps(100) or Adaptive(rtol=…, atol=…)")
    if not callable(x0):
        check_state("x0", x0)
        if len(x0) != 1:
            raise ValueError(
                f"x0: expected one state (1, *shape) for all paths, or a function (first, count) -> (count, *shape); "
                f"got a batch of {len(x0)}"
            )
    with processes() as group:
        blocks = group.share(-(-n // batch))
        part = _Part(full, bool(levels) or keep)
        with group.together():
            for done, block in enumerate(blocks, start=1):
                first, count = block * batch, min(batch, n - block * batch)
                part.take(
                    solve(
                        sde,
                        _start(x0, first, count),
                        t0,
                        t1,
                        solver=solver,
                        steps=steps,
                        save=save,
                        seed=seed,
                        first=first,
                    )
                )
                if progress is not None:
                    progress(done / len(blocks))
        return part.reduce(group, tuple(levels), min(n, blocks.start * batch), keep)


def _start(x0: Start, first: int, count: int) -> Tensor:
    if isinstance(x0, Tensor):
        return x0.expand(count, *x0.shape[1:]).contiguous()
    states = x0(first, count)
    check_state("x0(first, count)", states)
    if len(states) != count:
        raise ValueError(f"x0(first, count) returned {len(states)} states for count = {count}")
    return states


class _Part:
    """What one process has of the ensemble."""

    def __init__(self, full: bool, hold: bool) -> None:
        self._full, self._hold = full, hold
        self._held: list[Tensor] = []
        self._moments: Moments | None = None
        self._t, self._calls = torch.empty(0), 0

    def take(self, solution: Solution) -> None:
        # paths come first, as samples do
        paths = solution.x if solution.t.ndim == 0 else solution.x.movedim(1, 0).contiguous()
        found = Moments.of(paths, self._full)
        self._moments = found if self._moments is None else self._moments.merge(found)
        self._t, self._calls = solution.t, self._calls + solution.stats.model_calls
        if self._hold:
            self._held.append(paths.detach())

    def reduce(self, group: Processes, levels: tuple[float, ...], first: int, keep: bool) -> Ensemble:
        found = [moments for moments in group.gather(self._on_cpu()) if moments is not None]
        moments, times = Moments.merged([m for m, _, _ in found]), found[0][1]
        calls = int(group.sum(torch.tensor(self._calls)))
        shape, dtype = tuple(moments.mean.shape), found[0][2]
        held = torch.cat(self._held) if self._held else torch.empty((0, *shape), dtype=dtype)
        at = quantiles(held, levels, group) if levels else held.new_empty((0, *shape))
        return Ensemble(times, moments, levels, at, first, held if keep else None, calls)

    def _on_cpu(self) -> tuple[Moments, Tensor, torch.dtype] | None:
        moments = self._moments
        if moments is None:
            return None
        dtype = self._held[0].dtype if self._held else torch.float64
        return Moments(moments.count, moments.mean.cpu(), moments.scatter.cpu(), self._full), self._t.cpu(), dtype
