"""An SDE seen through counters and checks: what the loop and the solvers call instead of the user's own object."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from .arguments import spreads
from .protocols import SDE, Calculus, Dense, Diffusion, DiffusionFunction, Direction, Function, Noise


def calls_at(score: Any, t: Tensor | float) -> int:
    """How many models a score asks at t: 1, or what its method `calls_at(t)` says, as that of a guided score does."""
    count: Any = getattr(score, "calls_at", None)
    return 1 if count is None else count(t)


class CountedScore:
    """A score that counts its calls and insists on the shape and dtype of x."""

    def __init__(self, score: Any) -> None:
        self.score, self.calls = score, 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += calls_at(self.score, t)
        try:
            value = self.score(t.to(x.dtype) if t.ndim else t, x)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            raise ValueError(
                "score(t, x) takes a derivative where none are recorded: gradients are off, or x needs none. Take it "
                "of x.detach().requires_grad_() under torch.enable_grad(); for s = −∇E, EnergyScore(energy) does that"
            ) from error
        check_like("score", value, x)
        return value


def check_like(name: str, value: Any, x: Tensor) -> None:
    """Raise unless value is a tensor of the shape and dtype of x."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}(t, x) must return a tensor shaped like x, got {type(value).__name__}")
    if value.shape != x.shape:
        hint = "; it would broadcast silently" if value.ndim <= x.ndim else ""
        raise ValueError(f"{name}(t, x) returned shape {tuple(value.shape)} for x of shape {tuple(x.shape)}{hint}")
    if value.dtype != x.dtype:
        raise TypeError(f"{name}(t, x) returned {value.dtype} for x of {x.dtype}; keep the dtype of x")


def _formed(g: Any, x: Tensor) -> Any:
    """A diffusion in the form that solvers take: a number in the dtype of x, a matrix with its batch dimension."""
    if isinstance(g, Tensor):
        return g.to(x.dtype) if g.ndim == 0 else g
    if not isinstance(g, Dense) or not isinstance(g.matrix, Tensor) or g.matrix.ndim != x.ndim:
        return g
    return Dense(g.matrix.unsqueeze(0))


class Bare:
    """An SDE as solvers see it, and nothing more: for inside a compiled graph."""

    def __init__(self, sde: SDE) -> None:
        self.inner = sde
        self.noise, self.calculus, self.direction = sde.noise, sde.calculus, sde.direction

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self.inner.drift(t.to(x.dtype) if t.ndim else t, x)

    def diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        return _formed(self.inner.diffusion(t.to(x.dtype) if t.ndim else t, x), x)


class Watched:
    """Counts calls, checks what comes back, and gives per-sample times the dtype of x before the user sees them."""

    def __init__(self, sde: SDE, x: Tensor) -> None:
        for name in ("drift", "noise", "calculus", "direction"):
            if isinstance(sde, type):
                raise TypeError(f"sde: expected an SDE, got the class {sde.__name__}; write {sde.__name__}(…)")
            if not hasattr(sde, name):
                raise TypeError(
                    f"sde: {type(sde).__name__} has no `{name}`; wrap functions in ItoSDE(drift, diffusion, noise), "
                    f"StratonovichSDE(…) or ODE(drift), or give your class the attributes of sdekit.SDE"
                )
        self.given = sde
        self._score: CountedScore | None = None
        inner: Any = sde
        fields = {field.name for field in dataclasses.fields(inner)} if dataclasses.is_dataclass(sde) else ()
        if "score" in fields and callable(inner.score):
            self._score = CountedScore(inner.score)
            inner = dataclasses.replace(inner, score=self._score)
        self.inner: SDE = inner
        self.noise: Noise = self.inner.noise
        self.calculus: Calculus = self.inner.calculus
        self.direction: Direction = self.inner.direction
        self.drift_calls = self.diffusion_calls = 0
        self._drift: Function = self.inner.drift
        diffusion: DiffusionFunction | None = getattr(inner, "diffusion", None)
        self._diffusion = self._no_diffusion if diffusion is None else diffusion

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def calls(self) -> tuple[int, int, int]:
        """Calls of the drift, the diffusion and the score so far; may be set."""
        return self.drift_calls, self.diffusion_calls, 0 if self._score is None else self._score.calls

    @calls.setter
    def calls(self, counts: tuple[int, int, int]) -> None:
        self.drift_calls, self.diffusion_calls, scores = counts
        if self._score is not None:
            self._score.calls = scores

    @property
    def model_calls(self) -> int:
        """Calls of the score where there is one, else of the drift."""
        return self.drift_calls if self._score is None else self._score.calls

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        self.drift_calls += 1
        f = self._drift(t.to(x.dtype) if t.ndim else t, x)
        check_like("drift", f, x)
        return f

    def diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        self.diffusion_calls += 1
        return _formed(self._diffusion(t.to(x.dtype) if t.ndim else t, x), x)

    def _no_diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        raise TypeError(f"sde: {type(self.inner).__name__} declares {self.noise.name} noise but has no `diffusion`")

    def probe_diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        """One diffusion evaluation, with its form checked; not counted as work of the solver."""
        g = _formed(self._diffusion(t.to(x.dtype) if t.ndim else t, x), x)
        if isinstance(g, Dense):
            if not isinstance(g.matrix, Tensor) or g.matrix.ndim < 2:
                raise ValueError("diffusion: Dense takes a matrix (B, *shape, m)")
            lead = tuple(g.matrix.shape[:-1])
            if lead not in (tuple(x.shape), (1, *x.shape[1:])):
                raise ValueError(
                    f"diffusion: Dense matrix of shape {tuple(g.matrix.shape)} does not fit x of shape {tuple(x.shape)}; "
                    f"expected {(*x.shape, 'm')}"
                )
            if self.noise is Noise.SCALAR and g.matrix.shape[-1] != 1:
                raise ValueError(
                    f"SCALAR noise has one Brownian motion, but Dense gives m = {g.matrix.shape[-1]}; declare GENERAL"
                )
            kind = g.matrix.dtype
        elif isinstance(g, Tensor):
            if not spreads(g.shape, x.shape):
                raise ValueError(
                    f"diffusion(t, x) returned shape {tuple(g.shape)} for x of shape {tuple(x.shape)}: an element-wise "
                    f"diffusion is shaped like x; wrap a matrix (B, *shape, m) as Dense(matrix)"
                )
            kind = x.dtype if g.ndim == 0 else g.dtype
        else:
            raise TypeError(f"diffusion(t, x) must return a tensor or Dense(matrix), got {type(g).__name__}")
        if kind != x.dtype:
            raise TypeError(f"diffusion(t, x) returned {kind} for x of {x.dtype}; keep the dtype of x")
        place = g.matrix.device if isinstance(g, Dense) else g.device
        if place != x.device and (isinstance(g, Dense) or g.ndim > 0):
            raise ValueError(f"diffusion(t, x) returned a tensor on {place} for x on {x.device}; got {g!r}")
        return g
