"""Test problems whose solutions are known along the path, for every class of noise and both calculi.

S1 … S10 are strong problems, W1 … W3 weak ones, the rest fills the gaps: in every class of noise at least one equation
depends on time. `problems(noise, calculus)` lists them; `reflected` turns each into one that runs backward.

Notation: W(t) the path, J the quarter turn [[0, −1], [1, 0]], `∫ b dW` with a deterministic b taken from the recorded
path. A Stratonovich problem has the same solution as its Itô twin: its drift is `f − ½ Σ_k (∂g_k) g_k`.

Reference: Kloeden, Platen (1992), §4.4; Rößler (2010), SIAM J. Numer. Anal. 48(3), §7; Debrabant, Rößler (2009), Appl.
Numer. Math. 59, §5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..protocols import Calculus, Dense, Diffusion, Function, Noise
from ..sdes import ODE, ItoSDE, StratonovichSDE
from .path import RecordedPath
from .problem import Exact, Moment, Problem

Twins = tuple[Problem, ...]

_KLOEDEN_PLATEN = "Kloeden, Platen (1992), §4.4"
_ROESSLER = "Rößler (2010), SIAM J. Numer. Anal. 48(3), §7"


def _twins(
    name: str,
    noise: Noise,
    drift: Function,
    diffusion: Callable[[Tensor, Tensor], Diffusion],
    correction: Function,
    start: tuple[Any, ...],
    exact: Exact | None,
    t1: float = 1.0,
    **more: Any,
) -> Twins:
    """The Itô problem and the Stratonovich problem with the same solution; correction: `½ Σ_k (∂g_k) g_k`."""

    def stratonovich(t: Tensor, x: Tensor) -> Tensor:
        return drift(t, x) - correction(t, x)

    ito, other = ItoSDE(drift, diffusion, noise), StratonovichSDE(stratonovich, diffusion, noise)
    return (
        Problem(name, ito, start, 0.0, t1, exact, **more),
        Problem(f"{name} (Stratonovich)", other, start, 0.0, t1, exact, **more),
    )


def _named(name: str, noise: float) -> str:
    return name if noise == 1.0 else f"{name}, noise {noise:g}"


def _square(x: Tensor) -> Tensor:
    return x[:, 0].square()


def _norm_square(x: Tensor) -> Tensor:
    return x.square().sum(-1)


_J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def _spiral(x: Tensor, growth: Tensor | float, angle: Tensor | float) -> Tensor:
    """`exp(growth + angle J) x` for x `(B, 2)`, growth and angle scalar or `(B, 1)`."""
    growth, angle = torch.as_tensor(growth, dtype=x.dtype), torch.as_tensor(angle, dtype=x.dtype)
    return torch.exp(growth) * (torch.cos(angle) * x + torch.sin(angle) * (x @ _J.T))


# --- ordinary differential equations ---------------------------------------------------------------------------------


def _ode(
    name: str, drift: Function, start: tuple[float, ...], exact: Callable[[Tensor, float], Tensor], **more: Any
) -> Problem:
    t0, t1 = more.pop("span", (0.0, 1.0))
    return Problem(name, ODE(drift), start, t0, t1, lambda path, x0, s: exact(x0, t0 + s), **more)


def ordinary() -> Twins:
    """ODEs: rotations with constant and with moving speed, the logistic equation, and two more that depend on time."""
    return (
        _ode(
            "moving rotation",
            lambda t, x: -0.3 * x + 4 * (1 + torch.cos(2 * t)) * (x @ _J.T),
            (1.0, 0.5),
            lambda x0, t: _spiral(x0, -0.3 * t, 4 * t + 2 * math.sin(2 * t)),
            autonomous=False,
        ),
        _ode(
            "damped rotation",
            lambda t, x: -0.3 * x + 4 * (x @ _J.T),
            (1.0, 0.5),
            lambda x0, t: _spiral(x0, -0.3 * t, 4 * t),
        ),
        _ode(
            "logistic",
            lambda t, x: 2 * x * (1 - x),
            (0.1, 0.6),
            lambda x0, t: 1 / (1 + (1 / x0 - 1) * math.exp(-2 * t)),
            span=(0.0, 2.0),
        ),
        _ode(
            "forced decay",
            lambda t, x: -x + torch.cos(t),
            (1.0, -2.0),
            lambda x0, t: 0.5 * (math.cos(t) + math.sin(t)) + (x0 - 0.5) * math.exp(-t),
            span=(0.0, 2.0),
            autonomous=False,
        ),
        _ode(
            "quadratic in time",
            lambda t, x: -2 * t * x**2,
            (1.0, 0.5),
            lambda x0, t: 1 / (1 / x0 + t * t),
            autonomous=False,
        ),
    )


def quadrature_over_time() -> Problem:
    """Solve y' = 2y/t + t⁴ sin 2t − t² + 4t³ on [1, 2].

    The error of some methods changes sign with h, so it shows accuracy and is unfit for fitting orders.
    """

    def antiderivative(t: float) -> float:
        return (0.25 - 0.5 * t * t) * math.cos(2 * t) + 0.5 * t * math.sin(2 * t) - t + 2 * t * t

    return _ode(
        "quadrature over t",
        lambda t, x: 2 * x / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3,
        (1.0,),
        lambda x0, t: t * t * (x0 + antiderivative(t) - antiderivative(1.0)),
        span=(1.0, 2.0),
        autonomous=False,
    )


# --- additive noise --------------------------------------------------------------------------------------------------


def additive_decay(a: float = 0.1, b: float = 0.5) -> Problem:
    """S4: dX = (b/√(1+t) − X/(2(1+t))) dt + ab/√(1+t) dW; X = (x0 + b(t + aW))/√(1+t)."""
    return Problem(
        "S4 additive decay",
        ItoSDE(
            lambda t, x: b / torch.sqrt(1 + t) - x / (2 * (1 + t)),
            lambda t, x: a * b / torch.sqrt(1 + t) * torch.ones_like(x),
            Noise.ADDITIVE,
        ),
        (1.0,),
        0.0,
        1.0,
        lambda path, x0, s: (x0 + b * (s + a * path.w(s))) / math.sqrt(1 + s),
        reference=_KLOEDEN_PLATEN,
        moment=Moment(_square, lambda s: ((1 + b * s) ** 2 + (a * b) ** 2 * s) / (1 + s)),
        autonomous=False,
    )


def ornstein_uhlenbeck(theta: float = 1.5, sigma: float = 0.8) -> Problem:
    """S10: dX = −θX dt + σ dW; X = e^(−θt)(x0 + σ ∫ e^(θr) dW)."""
    variance = sigma**2 / (2 * theta)
    return Problem(
        "S10 Ornstein–Uhlenbeck",
        ItoSDE(lambda t, x: -theta * x, lambda t, x: sigma * torch.ones_like(x), Noise.ADDITIVE),
        (1.0,),
        0.0,
        1.0,
        lambda path, x0, s: math.exp(-theta * s) * (x0 + sigma * path.integral(lambda r: torch.exp(theta * r), s)),
        reference="Uhlenbeck, Ornstein (1930)",
        moment=Moment(_square, lambda s: math.exp(-2 * theta * s) * (1 - variance) + variance),
    )


def moving_ornstein_uhlenbeck() -> Problem:
    """Linear and moving: dX = −(1 + cos t) X dt + ½(1 + sin 3t) dW;

    X = e^(−t−sin t)(x0 + ∫ ½(1 + sin 3r) e^(r+sin r) dW).
    """

    def weight(r: Tensor) -> Tensor:
        return 0.5 * (1 + torch.sin(3 * r)) * torch.exp(r + torch.sin(r))

    return Problem(
        "Ornstein–Uhlenbeck, moving",
        ItoSDE(
            lambda t, x: -(1 + torch.cos(t)) * x,
            lambda t, x: 0.5 * (1 + torch.sin(3 * t)) * torch.ones_like(x),
            Noise.ADDITIVE,
        ),
        (1.0, -0.5),
        0.0,
        1.0,
        lambda path, x0, s: math.exp(-s - math.sin(s)) * (x0 + path.integral(weight, s)),
        moment=Moment(_square),
        autonomous=False,
    )


def matrix_ornstein_uhlenbeck() -> Problem:
    """Linear, full matrices: dX = AX dt + S dW with a full A (2 × 2) and S (2 × 3); X = e^(At)(x0 + ∫ e^(−Ar) S dW)."""
    a = torch.tensor([[-1.0, 2.0], [-0.5, -0.4]], dtype=torch.float64)
    s_matrix = torch.tensor([[0.5, 0.1, -0.3], [0.2, -0.4, 0.6]], dtype=torch.float64)

    def exact(path: RecordedPath, x0: Tensor, s: float) -> Tensor:
        noise = path.integral(lambda r: torch.matrix_exp(-a * r[:, None, None]) @ s_matrix, s)
        return (x0 + noise) @ torch.matrix_exp(a * s).T

    sde = ItoSDE(lambda t, x: x @ a.T, lambda t, x: Dense(s_matrix.expand(len(x), 2, 3)), Noise.ADDITIVE)
    moment = Moment(lambda x: x[:, 1].square())
    return Problem("Ornstein–Uhlenbeck, matrix", sde, (1.0, -0.5), 0.0, 1.0, exact, moment=moment)


def double_well() -> Problem:
    """Nonlinear and additive: dX = (X − X³ + ½ sin 4t) dt + ½(1 + ½ cos 2t) dW; a fine solution is the truth."""
    sde = ItoSDE(
        lambda t, x: x - x**3 + 0.5 * torch.sin(4 * t),
        lambda t, x: 0.5 * (1 + 0.5 * torch.cos(2 * t)) * torch.ones_like(x),
        Noise.ADDITIVE,
    )
    return Problem("double well, forced", sde, (0.5,), 0.0, 1.0, None, refine=16, autonomous=False)


# --- diagonal noise --------------------------------------------------------------------------------------------------


def geometric(a: float = 0.5, b: float = 1.0, x0: float = 1.0) -> Twins:
    """S1: dX = aX dt + bX dW; X = x0 exp((a − b²/2)t + bW)."""
    return _twins(
        f"S1 geometric ({a:g}, {b:g})",
        Noise.DIAGONAL,
        lambda t, x: a * x,
        lambda t, x: b * x,
        lambda t, x: 0.5 * b * b * x,
        (x0,),
        lambda path, x, s: x * torch.exp((a - 0.5 * b * b) * s + b * path.w(s)),
        reference=_KLOEDEN_PLATEN,
        moment=Moment(_square, lambda s: x0**2 * math.exp((2 * a + b * b) * s)),
    )


def wave(p: float = 1.0) -> Twins:
    """S2: dX = −p² sin X cos³X dt + p cos²X dW; X = atan(pW + tan x0)."""
    return _twins(
        "S2 wave",
        Noise.DIAGONAL,
        lambda t, x: -p * p * torch.sin(x) * torch.cos(x) ** 3,
        lambda t, x: p * torch.cos(x) ** 2,
        lambda t, x: -p * p * torch.sin(x) * torch.cos(x) ** 3,
        (1.0,),
        lambda path, x, s: torch.atan(p * path.w(s) + torch.tan(x)),
        reference=_KLOEDEN_PLATEN,
        moment=Moment(_square),
    )


def cubic() -> Twins:
    """S3: dX = −X(1−X²)/4 dt + (1−X²)/2 dW; X = ((1+x0)e^W + x0 − 1)/((1+x0)e^W + 1 − x0)."""

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -0.25 * x * (1 - x**2)

    return _twins(
        "S3 cubic",
        Noise.DIAGONAL,
        correction,
        lambda t, x: 0.5 * (1 - x**2),
        correction,
        (0.5,),
        lambda path, x, s: torch.tanh(0.5 * path.w(s) + torch.atanh(x)),
        reference=_KLOEDEN_PLATEN,
        moment=Moment(_square),
    )


def stiff_quadratic(alpha: float = 1.0, beta: float = 0.5, t1: float = 1.0) -> Twins:
    """S5: dX = −(α+β²X)(1−X²) dt + β(1−X²) dW; X = ((1+x0)E + x0 − 1)/((1+x0)E + 1 − x0), E = exp(−2αt + 2βW)."""
    return _twins(
        "S5 quadratic",
        Noise.DIAGONAL,
        lambda t, x: -(alpha + beta**2 * x) * (1 - x**2),
        lambda t, x: beta * (1 - x**2),
        lambda t, x: -(beta**2) * x * (1 - x**2),
        (0.5,),
        lambda path, x, s: torch.tanh(beta * path.w(s) - alpha * s + torch.atanh(x)),
        t1,
        reference=_KLOEDEN_PLATEN,
    )


def cube_root() -> Twins:
    """S6: dX = (X^⅓/3 + 6X^⅔) dt + X^⅔ dW; X = (2t + x0^⅓ + W/3)³. Not Lipschitz at 0."""

    def root(x: Tensor) -> Tensor:
        return torch.sign(x) * x.abs() ** (1 / 3)

    return _twins(
        "S6 cube root",
        Noise.DIAGONAL,
        lambda t, x: root(x) / 3 + 6 * root(x) ** 2,
        lambda t, x: root(x) ** 2,
        lambda t, x: root(x) / 3,
        (1.0,),
        lambda path, x, s: (2 * s + root(x) + path.w(s) / 3) ** 3,
        reference=_KLOEDEN_PLATEN,
    )


def _b(t: Tensor) -> Tensor:
    return 0.5 + 0.4 * torch.sin(3 * t)


def _b_squared(s: float) -> float:
    """∫₀ˢ b² for b = 0.5 + 0.4 sin 3t."""
    return 0.33 * s + 0.4 * (1 - math.cos(3 * s)) / 3 - 0.08 * math.sin(6 * s) / 6


def moving_geometric(noise: float = 1.0) -> Twins:
    """S1 with moving coefficients: dX = cos(2t) X dt + νb(t) X dW, b = 0.5 + 0.4 sin 3t;

    X = x0 exp(½ sin 2t − ½ν²∫b² + ν∫ b dW).
    """
    square = noise**2
    return _twins(
        _named("geometric, moving", noise),
        Noise.DIAGONAL,
        lambda t, x: torch.cos(2 * t) * x,
        lambda t, x: noise * _b(t) * x,
        lambda t, x: 0.5 * square * _b(t) ** 2 * x,
        (1.0, 0.5),
        lambda path, x, s: (
            x * torch.exp(0.5 * math.sin(2 * s) - 0.5 * square * _b_squared(s) + noise * path.integral(_b, s))
        ),
        moment=Moment(_square, lambda s: math.exp(math.sin(2 * s) + square * _b_squared(s))),
        autonomous=False,
    )


def moving_wave() -> Twins:
    """X = atan(tan x0 + sin t + ∫ b dW): the wave problem with `cos²X (cos t dt + b(t) ∘ dW)`, b = 0.5 + 0.4 sin 3t."""

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -(_b(t) ** 2) * torch.sin(x) * torch.cos(x) ** 3

    return _twins(
        "wave, moving",
        Noise.DIAGONAL,
        lambda t, x: torch.cos(x) ** 2 * torch.cos(t) + correction(t, x),
        lambda t, x: torch.cos(x) ** 2 * _b(t),
        correction,
        (0.5, -0.3),
        lambda path, x, s: torch.atan(torch.tan(x) + math.sin(s) + path.integral(_b, s)),
        moment=Moment(_square),
        autonomous=False,
    )


# --- scalar noise ----------------------------------------------------------------------------------------------------

def noisy_spiral(a: float = -0.5, c: float = 1.0, b: float = 0.4, d: float = 0.5) -> Twins:
    """A linear system on one motion: dX = (a + cJ)X dt + (b + dJ)X dW;

    X = exp((a + cJ − ½(b + dJ)²)t + (b + dJ)W) x0.
    """
    mix = b * torch.eye(2, dtype=torch.float64) + d * _J

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w = path.w(s)
        return _spiral(x, (a - 0.5 * (b * b - d * d)) * s + b * w, (c - b * d) * s + d * w)

    return _twins(
        "spiral",
        Noise.SCALAR,
        lambda t, x: a * x + c * (x @ _J.T),
        lambda t, x: Dense((x @ mix.T)[..., None]),
        lambda t, x: 0.5 * (x @ (mix @ mix).T),
        (1.0, 0.5),
        exact,
        moment=Moment(_norm_square, lambda s: 1.25 * math.exp((2 * a + b * b + d * d) * s)),
    )


def moving_pair(noise: float = 1.0) -> Twins:
    """dX_i = cos(2t) X_i dt + c_i b(t) X_i dW with one W for both, element-wise; b = 0.5 + 0.4 sin 3t, c = ν(1, −½)."""
    c = noise * torch.tensor([1.0, -0.5], dtype=torch.float64)

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        return x * torch.exp(0.5 * math.sin(2 * s) - 0.5 * c**2 * _b_squared(s) + c * path.integral(_b, s))

    return _twins(
        _named("pair on one motion", noise),
        Noise.SCALAR,
        lambda t, x: torch.cos(2 * t) * x,
        lambda t, x: c * _b(t) * x,
        lambda t, x: 0.5 * (c * _b(t)) ** 2 * x,
        (1.0, 0.5),
        exact,
        moment=Moment(_square, lambda s: math.exp(math.sin(2 * s) + noise**2 * _b_squared(s))),
        autonomous=False,
    )


def wave_pair() -> Twins:
    """X_i = atan(p_i W + tan x_i) with one W for both, as a `Dense` column; p = (0.6, −0.4)."""
    p = torch.tensor([0.6, -0.4], dtype=torch.float64)

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -(p**2) * torch.sin(x) * torch.cos(x) ** 3

    return _twins(
        "wave pair",
        Noise.SCALAR,
        correction,
        lambda t, x: Dense((p * torch.cos(x) ** 2)[..., None]),
        correction,
        (1.0, 0.4),
        lambda path, x, s: torch.atan(p * path.w(s) + torch.tan(x)),
        moment=Moment(_square),
    )


# --- commutative noise -----------------------------------------------------------------------------------------------


def commuting_linear() -> Twins:
    """S7: dX = AX dt + Σ_k BX dW_k, d = 4, m = 10; X = expm((A − 5B²)t + B ΣW_k) x0."""
    eye, ones = torch.eye(4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)
    a, b = ones / 20 - (31 / 20) * eye, ones / 100 + (19 / 100) * eye

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        total = path.w(s).sum(-1)[:, None, None]
        return (torch.matrix_exp((a - 5 * b @ b) * s + b * total) @ x[..., None])[..., 0]

    return _twins(
        "S7 commuting, ten motions",
        Noise.COMMUTATIVE,
        lambda t, x: x @ a.T,
        lambda t, x: Dense((x @ b.T)[..., None].expand(len(x), 4, 10)),
        lambda t, x: 5 * (x @ (b @ b).T),
        (1.0, 1.0, 1.0, 1.0),
        exact,
        reference=_ROESSLER,
        moment=Moment(lambda x: x.sum(-1).square(), lambda s: 16 * math.exp((-2.7 + 10 * 0.23**2) * s)),
    )


def moving_spiral(noise: float = 1.0) -> Twins:
    """Linear, moving, commuting: dX = cos(2t) X dt + νb(t) X dW₁ + νc(t) J X dW₂, c = 0.6 cos t;

    X = exp(½ sin 2t − ½ν²∫b² + ½ν²∫c² + ν∫b dW₁ + νJ∫c dW₂) x0.
    """
    square = noise**2

    def c(t: Tensor) -> Tensor:
        return 0.6 * torch.cos(t)

    def c_squared(s: float) -> float:
        return 0.18 * (s + 0.5 * math.sin(2 * s))

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        growth = 0.5 * math.sin(2 * s) - 0.5 * square * (_b_squared(s) - c_squared(s))
        return _spiral(x, growth + noise * path.integral(_b, s)[:, :1], noise * path.integral(c, s)[:, 1:])

    return _twins(
        _named("spiral, moving, two motions", noise),
        Noise.COMMUTATIVE,
        lambda t, x: torch.cos(2 * t) * x,
        lambda t, x: Dense(noise * torch.stack((_b(t) * x, c(t) * (x @ _J.T)), dim=-1)),
        lambda t, x: 0.5 * square * (_b(t) ** 2 - c(t) ** 2) * x,
        (1.0, 0.5),
        exact,
        moment=Moment(
            _norm_square, lambda s: 1.25 * math.exp(math.sin(2 * s) + square * (_b_squared(s) + c_squared(s)))
        ),
        autonomous=False,
    )


def spiral_of_two(a: float = -0.5, c: float = 1.0, b: float = 0.3, d: float = 0.4) -> Twins:
    """Linear, commuting: dX = (a + cJ)X dt + bX dW₁ + dJX dW₂; X = exp((a + cJ − ½b² + ½d²)t + bW₁ + dJW₂) x0."""

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w = path.w(s)
        return _spiral(x, (a - 0.5 * (b * b - d * d)) * s + b * w[:, :1], c * s + d * w[:, 1:])

    return _twins(
        "spiral, two motions",
        Noise.COMMUTATIVE,
        lambda t, x: a * x + c * (x @ _J.T),
        lambda t, x: Dense(torch.stack((b * x, d * (x @ _J.T)), dim=-1)),
        lambda t, x: 0.5 * (b * b - d * d) * x,
        (1.0, 0.5),
        exact,
        moment=Moment(_norm_square, lambda s: 1.25 * math.exp((2 * a + b * b + d * d) * s)),
    )


def wave_of_two() -> Twins:
    """X = atan(p·W + tan x0) with two motions: columns p_k cos²X, which commute."""
    p = torch.tensor([0.8, -0.5], dtype=torch.float64)
    size = float((p**2).sum())

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return -size * torch.sin(x) * torch.cos(x) ** 3

    return _twins(
        "wave of two motions",
        Noise.COMMUTATIVE,
        correction,
        lambda t, x: Dense(torch.cos(x)[..., None] ** 2 * p),
        correction,
        (1.0,),
        lambda path, x, s: torch.atan((path.w(s) @ p)[:, None] + torch.tan(x)),
        moment=Moment(_square),
    )


# --- general noise ---------------------------------------------------------------------------------------------------


def _zero(t: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def crossing_waves(alpha: float = 0.5) -> Twins:
    """S8: no drift, d = 2, m = 4, columns sin x₁·u, cos x₁·u, sin x₂·v, cos x₂·v.

    Here u = (cos α, sin α) and v = (−sin α, cos α).
    The corrections of the columns cancel in pairs, so both calculi read alike. A fine solution stands for the exact.
    """
    u = torch.tensor([math.cos(alpha), math.sin(alpha)], dtype=torch.float64)
    v = torch.tensor([-math.sin(alpha), math.cos(alpha)], dtype=torch.float64)

    def diffusion(t: Tensor, x: Tensor) -> Dense:
        x1, x2 = x[:, :1], x[:, 1:]
        return Dense(torch.stack((torch.sin(x1) * u, torch.cos(x1) * u, torch.sin(x2) * v, torch.cos(x2) * v), dim=-1))

    return _twins(
        "S8 crossing waves, four motions",
        Noise.GENERAL,
        _zero,
        diffusion,
        _zero,
        (2.0, 2.0),
        None,
        0.5,
        reference=_ROESSLER,
        refine=32,
        reads_alike=True,
    )


def levy_area() -> Twins:
    """S9: dX₁ = dW₁, dX₂ = X₁ dW₂; X₂ = x₂ + x₁W₂ + ½W₁W₂ + A₁₂, from (0, 0): E X₂² = t²/2."""

    def diffusion(t: Tensor, x: Tensor) -> Dense:
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        return Dense(torch.stack((torch.stack((one, zero), -1), torch.stack((zero, x[:, 0]), -1)), dim=1))

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w = path.w(s)
        second = x[:, 1] + x[:, 0] * w[:, 1] + 0.5 * w[:, 0] * w[:, 1] + path.area(s)[:, 0, 1]
        return torch.stack((x[:, 0] + w[:, 0], second), dim=-1)

    return _twins(
        "S9 Lévy area",
        Noise.GENERAL,
        _zero,
        diffusion,
        _zero,
        (0.0, 0.0),
        exact,
        refine=16,
        moment=Moment(lambda x: x[:, 1].square(), lambda s: 0.5 * s * s),
        reads_alike=True,
    )


def exponential_area() -> Twins:
    """dX₁ = cos t dt + dW₁, dX₂ = X₁X₂ ∘ dW₂; X₁ = x₁ + sin t + W₁, X₂ = x₂ exp(x₁W₂ + ∫ sin r dW₂ + ½W₁W₂ + A₁₂).

    Its columns do not commute, it depends on time, is nonlinear, and its solution is exact.
    """

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack((torch.cos(t).expand(len(x)), 0.5 * x[:, 1] * x[:, 0] ** 2), dim=-1)

    def diffusion(t: Tensor, x: Tensor) -> Dense:
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        return Dense(torch.stack((torch.stack((one, zero), -1), torch.stack((zero, x[:, 0] * x[:, 1]), -1)), dim=1))

    def correction(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack((torch.zeros_like(x[:, 0]), 0.5 * x[:, 1] * x[:, 0] ** 2), dim=-1)

    def exact(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        w1, w2 = path.w(s).unbind(-1)
        iterated = x[:, 0] * w2 + path.integral(torch.sin, s)[:, 1] + 0.5 * w1 * w2 + path.area(s)[:, 0, 1]
        return torch.stack((x[:, 0] + math.sin(s) + w1, x[:, 1] * torch.exp(iterated)), dim=-1)

    return _twins(
        "exponential of a Lévy area",
        Noise.GENERAL,
        drift,
        diffusion,
        correction,
        (0.0, 1.0),
        exact,
        0.5,
        refine=16,
        moment=Moment(lambda x: torch.tanh(x[:, 1] - 1.0)),
        autonomous=False,
    )


# --- weak problems ---------------------------------------------------------------------------------------------------


def asinh_walk() -> Twins:
    """W1: dX = (X/2 + √(X²+1)) dt + √(X²+1) dW, X = sinh(t + W);

    E φ = t³ − 3t² + 2t for φ = z³ − 6z² + 8z, z = asinh X.
    """

    def of(x: Tensor) -> Tensor:
        z = torch.asinh(x[:, 0])
        return z**3 - 6 * z**2 + 8 * z

    return _twins(
        "W1 asinh",
        Noise.DIAGONAL,
        lambda t, x: 0.5 * x + torch.sqrt(x * x + 1),
        lambda t, x: torch.sqrt(x * x + 1),
        lambda t, x: 0.5 * x,
        (0.0,),
        lambda path, x, s: torch.sinh(torch.asinh(x) + s + path.w(s)),
        reference="Debrabant, Rößler (2009), §5",
        moment=Moment(of, lambda s: s**3 - 3 * s**2 + 2 * s),
    )


def growing() -> Twins:
    """W2: dX = 1.5X dt + 0.1X ∘ dW, and its Itô twin with drift 1.505X; E X = x0 e^(1.505t)."""
    return _twins(
        "W2 growth",
        Noise.DIAGONAL,
        lambda t, x: 1.505 * x,
        lambda t, x: 0.1 * x,
        lambda t, x: 0.005 * x,
        (0.1,),
        lambda path, x, s: x * torch.exp(1.5 * s + 0.1 * path.w(s)),
        moment=Moment(lambda x: x[:, 0], lambda s: 0.1 * math.exp(1.505 * s)),
    )


def mixing(moving: bool = False) -> Twins:
    """W3: dX = m AX dt + n(G₁X dW₁ + G₂X dW₂), non-commuting, m = n = 1; E X₁² = e^(−t).

    moving: m = 1 + cos 2t and n = 1 + 0.8 sin 3t instead. X₁ alone is a geometric motion and serves as control.
    """
    root2 = math.sqrt(2.0)
    a = torch.tensor([[-273 / 512, 0.0], [-1 / 160, 785 / 512 - root2 / 8]], dtype=torch.float64)
    g1 = torch.tensor([[1 / 4, 0.0], [(1 - 2 * root2) / 4, 0.0]], dtype=torch.float64)
    g2 = torch.tensor([[1 / 16, 0.0], [1 / 10, 1 / 16]], dtype=torch.float64)
    half = 0.5 * (g1 @ g1 + g2 @ g2)
    size = 1 / 16 + 1 / 256

    def m(t: Tensor) -> Tensor:
        return 1 + torch.cos(2 * t) if moving else torch.ones_like(t)

    def n(t: Tensor) -> Tensor:
        return 2 * _b(t) if moving else torch.ones_like(t)

    def clocks(s: float) -> tuple[float, float]:
        """∫m and ∫n²."""
        return (s + 0.5 * math.sin(2 * s), 4 * _b_squared(s)) if moving else (s, s)

    def mean(s: float) -> float:
        drift, noise = clocks(s)
        return math.exp(-273 / 256 * drift + size * noise)

    def control(path: RecordedPath, x: Tensor, s: float) -> Tensor:
        (drift, noise), w = clocks(s), path.integral(n, s)
        power = -273 / 512 * drift - 0.5 * size * noise + w[:, 0] / 4 + w[:, 1] / 16
        return (x[:, 0] * torch.exp(power)).square()

    return _twins(
        "W3 mixing, moving" if moving else "W3 mixing",
        Noise.GENERAL,
        lambda t, x: m(t) * (x @ a.T),
        lambda t, x: Dense(n(t) * torch.stack((x @ g1.T, x @ g2.T), dim=-1)),
        lambda t, x: n(t) ** 2 * (x @ half.T),
        (1.0, 0.1 if moving else 1.0),
        None,
        1.0,
        reference="Debrabant, Rößler (2009), §5",
        moment=Moment(_square, mean, control),
        autonomous=not moving,
    )


# --- the list --------------------------------------------------------------------------------------------------------


def _both(*twins: Twins) -> dict[Calculus, Twins]:
    return {c: tuple(p for pair in twins for p in pair if p.calculus is c) for c in Calculus}


def _same(*problems: Problem) -> dict[Calculus, Twins]:
    return dict.fromkeys(Calculus, problems)


STRONG: dict[Noise, dict[Calculus, Twins]] = {
    Noise.NONE: _same(*ordinary()),
    Noise.ADDITIVE: _same(
        moving_ornstein_uhlenbeck(), matrix_ornstein_uhlenbeck(), ornstein_uhlenbeck(), additive_decay(), double_well()
    ),
    Noise.DIAGONAL: _both(moving_wave(), geometric(0.5, 0.5), moving_geometric(), wave(0.5), cubic()),
    Noise.SCALAR: _both(moving_pair(), noisy_spiral(), wave_pair()),
    Noise.COMMUTATIVE: _both(moving_spiral(), wave_of_two(), commuting_linear()),
    Noise.GENERAL: _both(exponential_area(), levy_area(), crossing_waves()),
}
"""Problems for strong orders, by class of noise and calculus; the first of each depends on time."""

WEAK: dict[Noise, dict[Calculus, Twins]] = {
    Noise.ADDITIVE: _same(moving_ornstein_uhlenbeck(), matrix_ornstein_uhlenbeck(), ornstein_uhlenbeck()),
    Noise.DIAGONAL: _both(moving_geometric(0.4), growing(), asinh_walk()),
    Noise.SCALAR: _both(moving_pair(0.4), noisy_spiral()),
    Noise.COMMUTATIVE: _both(moving_spiral(0.4), spiral_of_two()),
    Noise.GENERAL: _both(mixing(moving=True), mixing(), levy_area()),
}
"""Problems with a test function whose expectation is known, by class of noise and calculus."""


def problems(noise: Noise, calculus: Calculus, weak: bool = False) -> Twins:
    """The listed strong (or weak) problems with this noise, read in this calculus.

    Raises ValueError where none is listed.
    """
    table = WEAK if weak else STRONG
    if noise not in table:
        kind = "weak" if weak else "strong"
        raise ValueError(f"no {kind} problems for {noise.name} noise; there are {[n.name for n in table]}")
    return table[noise][calculus]
