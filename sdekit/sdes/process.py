"""What every diffusion process has in common: two formulas carry data to noise, and all else follows.

    x(t) = s(t) (x(0) + σ(t) z),   z standard normal

    drift        (s'/s) x
    diffusion    g² = s² dσ²/dt = 2 std² (ln σ)'
    transition   x(t1) | x(t0)  ~  N(s1/s0 x(t0), s1² (σ1² − σ0²))

Notation
    t        time, from t_min (data) to t_max (noise)
    s, σ     scale and noise level; ln s and ln σ are what is computed with, so that no digits are lost near t = 0
    std      s σ, finite where s reaches 0
    x(0)     means σ = 0: clean data

Reference: Karras et al. (2022), arXiv 2206.00364, equations 1 to 4 and appendix B.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_numbers, check_time
from ..protocols import as_time, match
from .contract import Additive
from .prior import FromPrior, IsotropicGaussian
from .transition import ElementwiseTransition

Time = Tensor | float
Formula = Callable[[Tensor], Tensor]


def _evaluate(formula: Formula, t: Time) -> Tensor:
    """A float64 formula at t, in the dtype of t where that is a floating tensor with dimensions."""
    if not isinstance(t, Tensor):
        return formula(as_time(t))
    check_time("t", t)
    if t.dtype is torch.float64:
        return formula(t)
    value = formula(t.to(torch.float64))
    return value.to(t.dtype) if t.ndim > 0 and t.dtype.is_floating_point else value


def _rate(formula: Formula, t: Tensor) -> Tensor:
    """The derivative of a formula, which is element-wise in t."""
    # forward mode, since reverse mode could not be used under checkpointing
    return torch.func.jvp(formula, (t,), (torch.ones_like(t),))[1]


class DiffusionProcess(Additive, FromPrior):
    """A scalar linear Itô SDE with additive noise, given by ln s(t), ln σ(t) and the inverse t(ln σ).

    A subclass gives the three formulas, on float64 tensors of any shape, and t_min and t_max. It may also give the
    closed forms of std, s'/s and g², which otherwise are found by automatic differentiation.
    """

    t_min: float
    t_max: float

    @abstractmethod
    def log_scale_formula(self, t: Tensor) -> Tensor:
        """The logarithm of s at t."""

    @abstractmethod
    def log_sigma_formula(self, t: Tensor) -> Tensor:
        """The logarithm of σ at t, increasing."""

    @abstractmethod
    def time_formula(self, log_sigma: Tensor) -> Tensor:
        """The time at which ln σ has this value."""

    def std_formula(self, t: Tensor) -> Tensor:
        """The standard deviation s σ."""
        return torch.exp(self.log_scale_formula(t) + self.log_sigma_formula(t))

    def drift_formula(self, t: Tensor) -> Tensor:
        """The rate s'/s."""
        return _rate(self.log_scale_formula, t)

    def variance_formula(self, t: Tensor) -> Tensor:
        """The squared diffusion g²."""
        return 2.0 * self.std_formula(t).square() * _rate(self.log_sigma_formula, t)

    # --- the affine pair ----------------------------------------------------------------------------------------------

    def log_scale(self, t: Time) -> Tensor:
        """The logarithm of s at t."""
        return _evaluate(self.log_scale_formula, t)

    def scale(self, t: Time) -> Tensor:
        """s(t)."""
        return _evaluate(lambda t: torch.exp(self.log_scale_formula(t)), t)

    def log_sigma(self, t: Time) -> Tensor:
        """The logarithm of σ at t."""
        return _evaluate(self.log_sigma_formula, t)

    def sigma(self, t: Time) -> Tensor:
        """σ(t), the noise level of x/s."""
        return _evaluate(lambda t: torch.exp(self.log_sigma_formula(t)), t)

    def std(self, t: Time) -> Tensor:
        """The standard deviation s σ of x(t) given x(0)."""
        return _evaluate(self.std_formula, t)

    def time(self, log_sigma: Time) -> Tensor:
        """t(ln σ), the inverse of `log_sigma`."""
        return _evaluate(self.time_formula, log_sigma)

    # --- the SDE ------------------------------------------------------------------------------------------------------

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """(s'/s) x."""
        return match(_evaluate(self.drift_formula, t), x) * x

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """g(t), which broadcasts to x."""
        g = _evaluate(self.variance_formula, t).sqrt()
        return g if g.ndim == 0 else g.to(x.dtype)

    # --- exact laws ---------------------------------------------------------------------------------------------------

    def marginal(self, t: Time) -> ElementwiseTransition:
        """The law of x(t) given clean data x(0): N(s x(0), std²)."""
        return ElementwiseTransition(self.scale(t), self.std(t).square())

    def transition(self, t0: Time, t1: Time) -> ElementwiseTransition:
        """The law of x(t1) given x(t0), t0 ≤ t1: N(s1/s0 x(t0), s1² (σ1² − σ0²)).

        Raises:
            ValueError: t1 lies before t0; the law of the past given the future depends on the data.
        """
        check_order(t0, t1)
        log_ratio = self.log_scale(t1) - self.log_scale(t0)
        # s1² (σ1² − σ0²) = std1² (1 − (σ0/σ1)²), which keeps its digits for close times and holds for σ0 = 0 and s1 = 0
        kept = -torch.expm1(2.0 * (self.log_sigma(t0) - self.log_sigma(t1)))
        return ElementwiseTransition(torch.exp(log_ratio), self.std(t1).square() * kept)

    def discretize(self, upper: Time, lower: Time) -> tuple[Tensor, Tensor]:
        """One forward step `x(upper) ≈ multiplier · x(lower) + G z`, as discrete-time samplers take it.

        Here Euler–Maruyama with the coefficients at `upper`: multiplier 1 + (s'/s) |h|, G = g √|h|. VP and processes
        with s = 1 have their own. Reference: Song et al. (2021), appendix E.
        """
        h = abs(upper - lower)
        rate, variance = _evaluate(self.drift_formula, upper), _evaluate(self.variance_formula, upper)
        return 1.0 + rate * h, (variance * h).sqrt()

    # --- the prior ----------------------------------------------------------------------------------------------------

    def prior_std(self) -> float:
        """Standard deviation of the Gaussian that stands for the law at t_max."""
        return float(self.std(self.t_max))

    @property
    def prior(self) -> IsotropicGaussian:
        """N(0, prior_std² I), the stand-in for the law at t_max."""
        return IsotropicGaussian(self.prior_std())


def check_order(t0: Time, t1: Time) -> None:
    """Refuse a transition back in time."""
    if bool((torch.as_tensor(t1, dtype=torch.float64) < torch.as_tensor(t0, dtype=torch.float64)).any()):
        raise ValueError(
            f"a transition runs forward in time: expected t0 ≤ t1, got t0 = {t0}, t1 = {t1}. "
            "To run the law back, use reverse(process, score)."
        )


def check_times(process: DiffusionProcess) -> None:
    """Refuse end points that are out of order."""
    check_numbers(process, "t_min", "t_max")
    if not 0.0 <= process.t_min < process.t_max:
        raise ValueError(
            f"{type(process).__name__}: expected 0 ≤ t_min < t_max, got t_min={process.t_min}, t_max={process.t_max}"
        )


_BISECTIONS = 64  # as many as halve an interval down to the resolution of float64


@dataclass(frozen=True)
class AffineProcess(DiffusionProcess):
    """A diffusion process from two functions of time, s(t) and σ(t).

    Args:
        scale_of: `t -> s(t) > 0`, differentiable torch operations on a float64 tensor of any shape.
        sigma_of: `t -> σ(t) > 0`, strictly increasing on [t_min, t_max].
        t_min, t_max: the ends of its time.
        inverse: `ln σ -> t`; without it, found by bisection on [t_min, t_max].

    Raises:
        TypeError: scale_of or sigma_of is not a function.
        ValueError: the times are out of order, or σ does not increase.
    """

    # functions are stored under other names than the methods `scale` and `sigma`, which evaluate them
    scale_of: Formula
    sigma_of: Formula
    t_min: float = 1e-3
    t_max: float = 1.0
    inverse: Formula | None = None

    def __post_init__(self) -> None:
        for name in ("scale_of", "sigma_of"):
            if not callable(getattr(self, name)):
                raise TypeError(f"AffineProcess: {name} must be a function of t, got {getattr(self, name)!r}")
        check_times(self)
        sigmas = self.sigma(torch.linspace(self.t_min, self.t_max, 65, dtype=torch.float64))
        if not bool((sigmas.diff() > 0).all()):
            raise ValueError("AffineProcess: sigma_of must increase strictly from t_min to t_max")

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return torch.log(self.scale_of(t) * torch.ones_like(t))

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        return torch.log(self.sigma_of(t) * torch.ones_like(t))

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        if self.inverse is not None:
            return self.inverse(log_sigma)
        low, high = torch.full_like(log_sigma, self.t_min), torch.full_like(log_sigma, self.t_max)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            above = self.log_sigma_formula(middle) > log_sigma
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return 0.5 * (low + high)
