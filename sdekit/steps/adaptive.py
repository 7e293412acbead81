"""Steps chosen by an error estimate, for every sample on its own.

The estimate e `(B, *shape)` is measured in the scaled norm

    E_i = rms( e_i / (atol + rtol max(|x_i|, |x'_i|)) )          one number a sample

and a step is taken where E ≤ 1. The next step is `h · safety · E_n^−β1 E_{n−1}^−β2 E_{n−2}^−β3`, with
k β1 = p + i + d, k β2 = −(p + 2d), k β3 = d for an estimate of order k, held within `factors`. A sample's steps depend on
nothing but the sample.

Steps of an SDE are refused only where the solver has strong order above ½ or the noise is additive. Else the error of a
step is its noise, to first order; to refuse steps by it would be to choose the noise, and the limit would be the
solution of another equation.

Reference: Söderlind (2003), ACM Trans. Math. Softw. 29(1), §4; Hairer, Nørsett, Wanner (1993), §II.4; Gaines, Lyons
(1997), SIAM J. Appl. Math. 57(5), for SDEs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import check_number
from ..errors import Incompatible, Status
from ..protocols import Problem, Span, Step, as_time, error_order
from .controller import Array, Controller, Progress, as_tensor, on_host


@dataclass(frozen=True)
class Adaptive:
    """Per-sample adaptive steps. Tolerances have no default: they are the user's to choose.

    rtol, atol: relative and absolute tolerance, at least one positive.  first_step: size of the first step (default: from
    the size of drift and diffusion).  min_step, max_step: bounds on |h|; a sample whose error is too large at
    min_step ends with Status.STEP_TOO_SMALL.  max_steps: attempts before a sample ends with Status.MAX_STEPS.
    jump_times: times at which drift or diffusion jumps: a step ends just before each, and the next begins just after it.
    pid: (p, i, d); default (0.4, 0.3, 0) for ODEs and (0.1, 0.3, 0) for SDEs.
    safety: target for E on the next step, as a factor on h.  factors: smallest and largest change of h.

    Raises TypeError or ValueError for numbers out of these ranges, and where both tolerances are 0.
    """

    rtol: float
    atol: float
    first_step: float | None = None
    min_step: float = 0.0
    max_step: float = math.inf
    max_steps: int = 100_000
    jump_times: Sequence[float] = ()
    pid: tuple[float, float, float] | None = None
    safety: float = 0.9
    factors: tuple[float, float] = (0.2, 10.0)

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"Adaptive: {name} must be finite and not negative, got {value!r}")
        if self.rtol == 0 and self.atol == 0:
            raise ValueError(
                "Adaptive: rtol and atol are both zero, which no step can meet; set at least one, e.g. atol=1e-6"
            )
        if self.first_step is not None and not 0 < self.first_step < math.inf:
            raise ValueError(f"Adaptive: first_step must be positive, got {self.first_step!r}")
        if not (0 <= self.min_step <= self.max_step and self.max_step > 0):
            raise ValueError(f"Adaptive: need 0 <= min_step <= max_step, got {self.min_step!r} and {self.max_step!r}")
        if isinstance(self.max_steps, bool) or not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"Adaptive: max_steps must be an integer of 1 or more, got {self.max_steps!r}")
        if as_time(self.jump_times).ndim != 1:
            raise ValueError(f"Adaptive: jump_times must be a list of times, got {self.jump_times!r}")
        for t in self.jump_times:
            check_number("Adaptive: every one of jump_times", t)
        if self.pid is not None:
            if not isinstance(self.pid, (tuple, list)) or len(self.pid) != 3:
                raise ValueError(f"Adaptive: pid takes three numbers (p, i, d), got {self.pid!r}")
            for value in self.pid:
                check_number("Adaptive: every number of pid", value)
        if not (0 < self.safety < 1 and 0 < self.factors[0] < 1 < self.factors[1]):
            raise ValueError("Adaptive: need 0 < safety < 1 and factors[0] < 1 < factors[1]")

    @property
    def adaptive(self) -> bool:
        return True

    def begin(self, problem: Problem) -> AdaptivePace:
        if error_order(problem.solver, problem.noise) is None:
            name = type(problem.solver).__name__
            raise Incompatible(
                f"Adaptive steps need an error estimate; {name} has none. Use FixedSteps(n) or Halving({name}())."
            )
        return AdaptivePace(self, problem)


class AdaptivePace:
    """The steps of one adaptive solve."""

    def __init__(self, control: Adaptive, problem: Problem) -> None:
        x, count = problem.x, len(problem.x)
        self._problem, self._shape = problem, (count, *(1,) * (x.ndim - 1))
        start, end = (t.detach().to(x.device).expand(count) for t in (problem.t0, problem.t1))
        length = (end - start).abs()
        active = (length > 0) & torch.isfinite(x.detach()).flatten(1).all(1)
        status = torch.where(active | (length == 0), int(Status.OK), int(Status.NONFINITE)).to(torch.int64)
        if control.first_step is not None:
            first = torch.full_like(length, control.first_step)
        elif problem.first_step is not None:
            first = problem.first_step().to(torch.float64)
            first = torch.where(torch.isfinite(first) & (first > 0), first, 1e-3 * length)
        else:
            first = 1e-2 * length
        self.controller = Controller(control, problem, start, end)
        self.progress = self.controller.begin(first, start.clone(), active, status)
        self._host: Controller | None = None
        if x.device.type == "cpu":
            with suppress(RuntimeError):
                self._host, self.progress = self.controller.on_host(), Progress(*map(on_host, self.progress))
        self._lands: Array = None

    def leave_host(self) -> None:
        """Go on with tensors: for a graph, or where states are not plain tensors."""
        if self._host is not None:
            numbers: Sequence[Any] = self.progress
            self._host, self.progress = None, Progress(*(torch.from_numpy(n) for n in numbers))

    def next(self) -> Span | None:
        if not self.progress.active.any():
            return None
        self.progress = (self._host or self.controller).plan(self.progress)
        return self.span(self.progress)

    def span(self, p: Progress) -> Span:
        """The step under way."""
        start, end = (as_tensor(t.reshape(self._shape)) for t in (p.t0, p.t1))
        return Span(start, end, (end - start).to(self._problem.x.dtype), as_tensor(p.accepted), self._problem.draws)

    def judge(self, span: Span, x: Tensor, step: Step) -> Tensor | None:
        assert step.error is not None
        before, values = self.progress, (x, step.x, step.error)
        if self._host is not None:
            try:
                arrays = [on_host(value) for value in values]
            except RuntimeError:
                self.leave_host()
                before = self.progress
            else:
                with np.errstate(all="ignore"):
                    self.progress = p = self._host.judge(before, *arrays)
                self._lands = before.lands
                return None if p.accept.all() else torch.from_numpy(p.accept)
        with torch.no_grad():
            self.progress = p = self.controller.judge(before, *values)
        self._lands = before.lands
        return p.accept

    def stop(self, mask: Tensor, status: Status) -> None:
        """End the samples in the mask, with a status."""
        p = self.progress
        stopped = p.active & (mask if self._host is None else on_host(mask))
        self.progress = p._replace(status=p.status + stopped * (int(status) - p.status), active=p.active & ~stopped)

    @property
    def restart(self) -> Tensor | None:
        """The samples that have just passed a jump; None where there are no jumps."""
        if len(self.controller.jumps) == 0:
            return None
        p = self.progress
        end = self.controller.end if self._host is None else self._host.end
        return as_tensor(p.accept & self._lands & (p.t != end))

    @property
    def t(self) -> Tensor:
        """The time each sample has reached `(B,)`."""
        return as_tensor(self.progress.t)

    @property
    def active(self) -> Tensor:
        """The samples that are under way."""
        return as_tensor(self.progress.active)

    @property
    def working(self) -> Tensor | None:
        """The same, or None where it is known without waiting that all are."""
        return None if self._host is not None and self.progress.active.all() else self.active

    @property
    def status(self) -> Tensor:
        return as_tensor(self.progress.status)

    @property
    def accepted(self) -> Tensor:
        """Steps taken."""
        return as_tensor(self.progress.accepted)

    @property
    def rejected(self) -> Tensor:
        """Steps tried and not taken."""
        return as_tensor(self.progress.rejected)
