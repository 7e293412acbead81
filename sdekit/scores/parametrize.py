"""What a network predicts, and the score made of it.

At every time a state splits into clean data and noise, x = s D + std ε, with the denoiser D = E[x(0) | x] and ε the
expected noise. Whatever a network predicts is a combination `a D + b ε` of the two:

    score       ∇ log p_t(x) = −ε/std
    noise       ε
    denoiser    D
    flow        dx/dt of the probability flow, s′ D + std′ ε   (rectified flow: noise − data)
    velocity    (s ε − std D)/√(s² + std²)                     ("v": s² + std² = 1 for VP)
    F           (std D/c − s c ε)/√(s²c² + std²)               (EDM's, for data of standard deviation c)

so that any of them with x gives any other in one linear step, `p = α x + β q`. Its coefficients are worked out in
float64 from forms in which nothing cancels. What is lost going from a float32 denoiser to the score at small noise (an
error of 1e-7 |x|/std²) is lost by the network that predicts D; no other conversion here has a detour over it.

Notation: s, σ, std = s σ as in `sdekit.sdes.process`, primes are d/dt; t 0-d or `(B, 1, …, 1)`; x and predictions
`(B, *shape)`.

Reference: Karras et al. (2022), arXiv 2206.00364, equation 7 and table 1 (D, F); Salimans, Ho (2022), arXiv
2202.00512, appendix D (v); Lipman et al. (2023), arXiv 2210.02747, equation 20 (flow).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..arguments import check_has, check_like, check_numbers, check_state
from ..protocols import match, time_beside
from ..sdes.process import DiffusionProcess
from ..watch import calls_at

Prediction = Callable[[Tensor, Tensor], Tensor]
"""`(t, x) -> q`, of the shape of x."""


class Parts(NamedTuple):
    """`q = data · D + noise · ε`, and `determinant = s noise − std data`, in float64 and of the shape of t."""

    data: Tensor
    noise: Tensor
    determinant: Tensor


class Parametrization(Protocol):
    """What is predicted."""

    def parts(self, process: Any, t: Tensor) -> Parts:
        """Of which mixture of D and ε it is, at time t."""
        ...


@dataclass(frozen=True)
class PredictsScore:
    """The score itself, `−ε/std`."""

    def parts(self, process: Any, t: Tensor) -> Parts:
        s, std = process.scale(t), process.std(t)
        return Parts(torch.zeros_like(s), -1.0 / std, -s / std)


@dataclass(frozen=True)
class PredictsNoise:
    """The noise ε."""

    def parts(self, process: Any, t: Tensor) -> Parts:
        s = process.scale(t)
        return Parts(torch.zeros_like(s), torch.ones_like(s), s)


@dataclass(frozen=True)
class PredictsDenoiser:
    """The clean data D."""

    def parts(self, process: Any, t: Tensor) -> Parts:
        std = process.std(t)
        return Parts(torch.ones_like(std), torch.zeros_like(std), -std)


@dataclass(frozen=True)
class PredictsFlow:
    """The velocity dx/dt of the probability flow, `s′ D + std′ ε`; `noise − data` for `RectifiedFlow()`.

    Needs a `DiffusionProcess`, whose formulas it differentiates.
    """

    def parts(self, process: Any, t: Tensor) -> Parts:
        if not isinstance(process, DiffusionProcess):
            raise TypeError(f"PredictsFlow needs a DiffusionProcess such as RectifiedFlow(), got {process!r}")
        slope, variance, std = _rates(process, t)
        s = process.scale(t)
        # s std′ − std s′ = s² σ′ = s g²/(2 std), where the left-hand side cancels
        return Parts(s * slope, _std_rate(process, t), s * variance / (2.0 * std))


@dataclass(frozen=True)
class PredictsVelocity:
    """Salimans and Ho's v, `(s ε − std D)/√(s² + std²)`."""

    def parts(self, process: Any, t: Tensor) -> Parts:
        s, std = process.scale(t), process.std(t)
        radius = torch.hypot(s, std)
        return Parts(-std / radius, s / radius, radius)


@dataclass(frozen=True)
class PredictsF:
    """Karras's F, of unit variance at every σ for data of standard deviation `sigma_data` = c.

        D = c²/(c² + σ²) x/s + c σ/√(c² + σ²) F

    Raises ValueError unless sigma_data is positive.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self, "sigma_data", above=0.0)

    def parts(self, process: Any, t: Tensor) -> Parts:
        s, std, c = process.scale(t), process.std(t), self.sigma_data
        radius = torch.hypot(c * s, std)
        return Parts(std / (c * radius), -s * c / radius, -radius / c)


def convert_prediction(
    process: Any, t: Tensor | float, x: Tensor, value: Tensor, given: Parametrization, wanted: Parametrization
) -> Tensor:
    """A prediction in another parametrization: `wanted` at (t, x), from `value` = `given` there.

    t: float, 0-d or `(B, 1, …, 1)`.  x, value: `(B, *shape)`. Returns a tensor like value; the same one where given and
    wanted are equal.

    Raises TypeError for a process without s and std; ValueError where value is not shaped like x.
    """
    _check(process, given, wanted)
    check_state("x", x)
    check_like("value", value, "x", x)
    if given == wanted:
        return value
    of_x, of_value = _coefficients(process, time_beside(t, x), given, wanted)
    # the larger factor is taken out: the other term is then rounded once, and x − s D is exact near x
    factor = torch.where(of_x.abs() >= of_value.abs(), of_x, of_value)
    return match(factor, x) * (match(of_x / factor, x) * x + match(of_value / factor, x) * value)


@dataclass(frozen=True)
class Converted:
    """`predict`, which gives `given`, as a function `(t, x) → wanted`. Made by `as_score`, or by hand for other pairs.

    Raises TypeError where predict is not callable or the process has no s and std.
    """

    process: Any
    predict: Prediction
    given: Parametrization
    wanted: Parametrization

    def __post_init__(self) -> None:
        if not callable(self.predict):
            raise TypeError(f"predict: expected a function (t, x) -> tensor shaped like x, got {self.predict!r}")
        _check(self.process, self.given, self.wanted)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return convert_prediction(self.process, t, x, self.predict(t, x), self.given, self.wanted)

    def calls_at(self, t: Tensor | float) -> int:
        """Models asked at t."""
        return calls_at(self.predict, t)


def as_score(process: Any, predict: Prediction, given: Parametrization) -> Converted:
    """The score of a model that predicts something else: `as_score(VP(), network, PredictsNoise())`.

    predict: `(t, x) -> prediction`, called once for every call of the score.
    """
    return Converted(process, predict, given, PredictsScore())


def _check(process: Any, *parametrizations: Any) -> None:
    check_has("process", process, ("scale", "std"), "an affine process such as VP()")
    for each in parametrizations:
        check_has("parametrization", each, ("parts",), "one such as PredictsNoise()")


def _coefficients(process: Any, t: Tensor, given: Parametrization, wanted: Parametrization) -> tuple[Tensor, Tensor]:
    """α and β of `wanted = α x + β given`: Cramer's rule on x = s D + std ε and `given`."""
    q, p = given.parts(process, t), wanted.parts(process, t)
    return (p.data * q.noise - p.noise * q.data) / q.determinant, p.determinant / q.determinant


def _rates(process: DiffusionProcess, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s′/s, g² and std."""
    return process.drift_formula(t), process.variance_formula(t), process.std_formula(t)


def _std_rate(process: DiffusionProcess, t: Tensor) -> Tensor:
    """std′, by forward differentiation of the formula of std."""
    return torch.func.jvp(process.std_formula, (t,), (torch.ones_like(t),))[1]
