"""The vocabulary of sdekit on one page.

An SDE is `dx = f(t, x) dt + G(t, x) dW`. Everything the library does is said with the objects below, and every
other module imports downward to them.

Notation and shapes
    x       state, one tensor `(B, *shape)` of any rank; sample first
    t       time; float64, 0-d, or `(B, 1, …, 1)` where every sample has its own
    h       signed step t1 − t0 (negative when travelling back in time)
    f, G    drift `(B, *shape)` and diffusion: an element-wise tensor, or `Dense(matrix)` with matrix `(B, *shape, m)`
    W, H, K increments of the Brownian motion along the direction of travel (see `Increment`)

A contract here is a `Protocol`: any object with these attributes and methods will do, no base class is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from .arguments import check_time, spreads
from .random import Draws, Purpose

Score = Callable[[Tensor, Tensor], Tensor]
"""`(t, x) -> ∇ₓ log p_t(x)`, of the shape of x."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""`(t, x) -> E[x(0) | x(t) = x]`, of the shape of x."""


class Function(Protocol):
    """`(t, x) -> tensor` of the shape of x: a drift or an element-wise diffusion."""

    def __call__(self, t: Tensor, x: Tensor, /) -> Tensor: ...


class DiffusionFunction(Protocol):
    """`(t, x) -> G`, element-wise or `Dense`."""

    def __call__(self, t: Tensor, x: Tensor, /) -> Tensor | Dense: ...


class Direction(IntEnum):
    """The direction of time in which an SDE's law runs. `reverse` turns FORWARD into BACKWARD."""

    FORWARD = 1
    BACKWARD = -1


class Noise(Enum):
    """What the diffusion G depends on. It says nothing of G's form: any class may be element-wise or `Dense`."""

    NONE = "none"  # G = 0: an ordinary differential equation
    ADDITIVE = "additive"  # G(t)
    DIAGONAL = "diagonal"  # G element-wise, component i a function of x_i only
    SCALAR = "scalar"  # one Brownian motion drives all components
    COMMUTATIVE = "commutative"  # Lʲ Gᵏ = Lᵏ Gʲ for all columns j, k
    GENERAL = "general"


class Calculus(Enum):
    """How the stochastic integral is read."""

    ITO = "Itô"
    STRATONOVICH = "Stratonovich"


class Levy(IntEnum):
    """How much of a Brownian path's shape inside a step a solver needs, beyond the increment W."""

    W = 0
    H = 1  # space–time Lévy area H
    K = 2  # H and the space–time–time area K
    AREA = 3  # H and the area A of every pair of components


@dataclass(frozen=True, slots=True)
class Dense:
    """A diffusion matrix `(B, *shape, m)` or `(1, *shape, m)`, for m Brownian motions; `(G dW)_i = Σ_j G_ij dW_j`."""

    matrix: Tensor

    def __mul__(self, factor: float | Tensor) -> Dense:
        if isinstance(factor, Tensor) and factor.ndim > 0:
            factor = factor.unsqueeze(-1)
        return Dense(self.matrix * factor)

    __rmul__ = __mul__

    def __add__(self, other: Dense) -> Dense:
        return Dense(self.matrix + other.matrix)

    def __sub__(self, other: Dense) -> Dense:
        return Dense(self.matrix - other.matrix)


Diffusion = Tensor | Dense


def apply(g: Diffusion, w: Tensor) -> Tensor:
    """`G w`: element-wise product, or the matrix product where G is `Dense`; w is `(B, *shape)`, `(B, 1, …)` or `(B, m)`."""
    if isinstance(g, Dense):
        middle = (1,) * (g.matrix.ndim - w.ndim)
        return (g.matrix * w.reshape(w.shape[0], *middle, w.shape[-1])).sum(-1)
    return g * w


class Increment(NamedTuple):
    """A Brownian path over one step of length |h|, seen along the direction of travel.

    With the bridge `b(r) = W(r) − (r/|h|) W` on [0, |h|]:

        W ~ N(0, |h|)
        H = (1/|h|)  ∫ b dr                ~ N(0, |h|/12)
        K = (1/|h|²) ∫ b(r) (|h|/2 − r) dr ~ N(0, |h|/720)       independent of one another
        A_jk = ½ ∫ (W_j dW_k − W_k dW_j),  (B, m, m), only for `Dense` noise

    halves: the pair of Increments over the first and the second half of the step, for a solver with `halves = True`.

    Reference: Foster, Lyons, Oberhauser (2020), SIAM J. Numer. Anal. 58(3), definitions 3.3 to 3.6.
    """

    W: Tensor
    H: Tensor | None = None
    K: Tensor | None = None
    A: Tensor | None = None
    halves: Any = None

    def map(self, fn: Callable[[Tensor], Tensor]) -> Increment:
        """The function of W, H, K and A, of those that there are."""
        return Increment(fn(self.W), *(None if part is None else fn(part) for part in (self.H, self.K, self.A)))


@dataclass(frozen=True, slots=True)
class Order:
    """The order of convergence that a solver is measured to have: strong (pathwise) and weak (in law)."""

    strong: float
    weak: float


class Span(NamedTuple):
    """One step of time.

    t0, t1: float64, 0-d or `(B, 1, …, 1)`.  h: `t1 − t0`, a float, a 0-d tensor, or `(B, 1, …, 1)` in the dtype of x.
    index: number of the step, an int (the same for all samples) or `(B,)` int64.
    draws: the keyed source for a solver that needs more randomness than the path gives (correctors, churn).
    """

    t0: Tensor
    t1: Tensor
    h: float | Tensor
    index: int | Tensor = 0  # pyright: ignore[reportIncompatibleMethodOverride]  # a tuple's own `index` has no use here
    draws: Draws | None = None

    def normal(self, purpose: Purpose, like: Tensor, part: int = 0) -> Tensor:
        """Standard normals of the shape of `like`, keyed by (seed, purpose, sample, step, part)."""
        if self.draws is None:
            raise ValueError("this step has no source of random numbers: call the solver through `solve(..., seed=…)`")
        return self.draws.normal(purpose, self.index, tuple(like.shape), like.dtype, like.device, part=part)


class Step(NamedTuple):
    """What a solver returns for one step: the new state, and what else it knows.

    error        local error estimate of the shape of x (adaptive control needs one)
    state        the solver's own memory for the next step: None, a tensor `(B, …)` or a tuple of such, so that a
                 rejected step can restore it sample by sample
    mean         the state before this step's noise was added (the denoised sample of a predictor)
    interpolate  `(theta) -> x(t0 + theta h)` for theta in [0, 1], where the solver has dense output
    """

    x: Tensor
    error: Tensor | None = None
    state: Any = None
    mean: Tensor | None = None
    interpolate: Callable[[Tensor], Tensor] | None = None


@runtime_checkable
class SDE(Protocol):
    """`dx = f(t, x) dt + G(t, x) dW`; for Noise.NONE the diffusion is never asked for."""

    @property
    def noise(self) -> Noise: ...
    @property
    def calculus(self) -> Calculus: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def drift(self) -> Function: ...  # a method will do, as will a field that holds a function
    @property
    def diffusion(self) -> DiffusionFunction: ...


class Affine(Protocol):
    """A scalar linear process `x(t) = s(t) (x(0) + σ(t) z)`, z standard normal: drift `(s'/s) x`, g² = s² dσ²/dt.

    `t` may be a float, a 0-d tensor or a tensor of any shape; the algebra is done in float64 and returned in the dtype
    of a tensor t that is not 0-d, else as float64. `log_sigma` and `time` are inverse to one another.
    """

    @property
    def t_min(self) -> float: ...
    @property
    def t_max(self) -> float: ...
    def scale(self, t: Tensor | float) -> Tensor: ...  # s
    def sigma(self, t: Tensor | float) -> Tensor: ...  # σ, the noise level of x/s
    def log_sigma(self, t: Tensor | float) -> Tensor: ...
    def std(self, t: Tensor | float) -> Tensor: ...  # s σ, finite where s reaches 0
    def time(self, log_sigma: Tensor | float) -> Tensor: ...
    def prior_std(self) -> float: ...  # std of the Gaussian that stands for p at t_max


class Law(Protocol):
    """A distribution over states with a density: what `prior=` takes."""

    def log_prob(self, x: Tensor) -> Tensor: ...  # (B,)


class BrownianMotion(Protocol):
    """Source of increments over steps; the same path however often and in whatever order it is asked."""

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """Increment over the span, shaped like the noise (`like`), along the direction of travel."""
        ...

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """Increment from `span.t0` to `inner.t1`, inside the span, given the whole span's increment."""
        ...


class Solver(Protocol):
    """One step of a method. A new method is a new Solver, never a new loop.

    orders: the noise classes it handles, each with its measured order. calculus: the calculus whose solution it
    converges to; None where both agree (ODE and additive noise). levy: what it needs of the path. error_order: the
    local error estimate shrinks as |h|^error_order, which may depend on the noise; None where a step gives no estimate.
    A solver that takes a step in two halves sets `halves = True`, and finds the increments of both in `dw.halves`.
    """

    @property
    def orders(self) -> Mapping[Noise, Order]: ...
    @property
    def calculus(self) -> Calculus | None: ...
    @property
    def levy(self) -> Levy: ...
    @property
    def error_order(self) -> float | Mapping[Noise, float] | None: ...
    def init(self, sde: SDE, t: Tensor, x: Tensor) -> Any: ...
    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step: ...


def error_order(solver: Solver, noise: Noise) -> float | None:
    """The order of the solver's error estimate for this noise; None where it gives none."""
    order = solver.error_order
    return order.get(noise) if isinstance(order, Mapping) else order


@dataclass(frozen=True)
class Problem:
    """What a step control may know before the first step.

    t0, t1: 0-d or `(B,)`.  noise: that of the SDE.  blocks: sizes of the groups of components that are to have an
    error norm each; None: one group.  first_step: a guess of the first step's size `(B,)` for adaptive controls.
    """

    t0: Tensor
    t1: Tensor
    x: Tensor
    draws: Draws | None
    solver: Solver
    noise: Noise = Noise.NONE
    blocks: tuple[int, ...] | None = None
    first_step: Callable[[], Tensor] | None = None

    @property
    def stochastic(self) -> bool:
        """Whether there is noise."""
        return self.noise is not Noise.NONE


class Pace(Protocol):
    """A step control at work on one solve."""

    def next(self) -> Span | None:
        """The next span to try, or None when all samples have finished."""
        ...

    def judge(self, span: Span, x: Tensor, step: Step) -> Tensor | None:
        """Which samples take the step: a mask `(B,)`, or None for all of them."""
        ...


class StepControl(Protocol):
    """How steps are chosen: `FixedSteps`, `TimeGrid`, `Adaptive`."""

    @property
    def adaptive(self) -> bool: ...
    def begin(self, problem: Problem) -> Pace: ...


class Corrector(Protocol):
    """Moves x towards the law p_t at a fixed time t, by its score alone."""

    def correct(self, sde: Any, span: Span, t: Tensor, x: Tensor) -> Tensor: ...


class Divergence(Protocol):
    """`∇·v` of a vector field v at x, and v itself, in one evaluation."""

    @property
    def probes(self) -> int: ...
    def __call__(self, field: Callable[[Tensor], Tensor], x: Tensor, probes: Any) -> tuple[Tensor, Tensor]: ...


def advance(x: Tensor, slope: Tensor, h: float | Tensor) -> Tensor:
    """`x + h slope`."""
    return x + slope * h if isinstance(h, Tensor) else torch.add(x, slope, alpha=h)


def diffuse(x: Tensor, g: Diffusion, w: Tensor) -> Tensor:
    """`x + G w`."""
    return x + apply(g, w) if isinstance(g, Dense) else torch.addcmul(x, g, w)


def match(coefficient: Tensor | float, x: Tensor) -> Tensor | float:
    """A float64 coefficient made ready to multiply x: 0-d tensors promote nothing, per-sample ones take x's dtype."""
    if isinstance(coefficient, Tensor) and coefficient.ndim > 0:
        return coefficient.to(x.dtype)
    return coefficient


def expand(t: Tensor, x: Tensor) -> Tensor:
    """`(B,)` reshaped to `(B, 1, …, 1)` of x's rank; 0-d stays 0-d."""
    return t if t.ndim == 0 else t.reshape(-1, *(1,) * (x.ndim - 1))


def broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the one shape that all broadcast to."""
    return cast(tuple[Tensor, ...], torch.broadcast_tensors(*tensors))


def sample_norm(v: Tensor) -> Tensor:
    """The Euclidean norm of every sample, `(B, 1, …, 1)`."""
    return expand(cast(Tensor, v.flatten(1).norm(dim=1)), v)


def as_time(t: float | Sequence[float] | Tensor, device: torch.device | None = None, what: str = "t") -> Tensor:
    """A float64 tensor of time(s). Raises TypeError for anything else, which `what` names."""
    check_time(what, t)
    try:
        return torch.as_tensor(t, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what}: a time must be a number or a tensor of numbers, got {t!r}") from error


def time_beside(t: float | Tensor, x: Tensor, what: str = "t") -> Tensor:
    """A time for the states x: float64, 0-d or `(B, 1, …, 1)`. Raises ValueError where it would spread x."""
    time = as_time(t, what=what)
    if time.ndim == 0:
        return time
    if not spreads(time.shape, x.shape):
        each = (len(x), *(1,) * (x.ndim - 1))
        raise ValueError(f"{what}: expected a number, 0-d or {each}, got shape {tuple(time.shape)}")
    return time.to(x.device)
