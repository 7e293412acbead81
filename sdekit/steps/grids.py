"""Time grids for sampling: where the steps of an affine process lie, chosen by its noise level.

Every grid runs from t0 to t1 in n steps, by default from the process' t_max to its t_min; n steps asked is n steps
run. Turned round (t0 < t1) it has the same times in the other order. Ends are exact; the rest comes from ln σ by the
process' own `time(log_sigma)`, in float64.

The last step is stated: `final="stop"` ends at t1, where σ is small and not zero. `final="zero"` spends the last of
the n steps on going from there to σ = 0, which for the exponential samplers means x = D. The same is had after the
solve, at one call of the score more and for every process, by `denoise(process, score, t1, x)`.

Notation: u = i/n for the node i; σ₀ and σ₁ the noise levels at the noisy and at the clean end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..arguments import check_has, check_number, floating
from ..protocols import Affine
from .fixed import TimeGrid

Final = Literal["stop", "zero"]
Curve = Callable[[float, float, Tensor], Tensor]  # (value at the noisy end, at the clean end, u) -> values


def uniform_grid(
    process: Affine, n: int, t0: float | None = None, t1: float | None = None, final: Final = "stop"
) -> TimeGrid:
    """Equal steps of time: `t = t₀ + u (t₁ − t₀)`.

    n: number of steps.  t0, t1: ends, by default t_max and t_min.  final: see the module.

    Raises:
        ValueError: n < 1, t0 = t1, or final="zero" where the process has no time with σ = 0.
    """
    return _grid(process, n, t0, t1, final, lambda a, b, u: a + (b - a) * u, in_time=True)


def quadratic_grid(
    process: Affine, n: int, t0: float | None = None, t1: float | None = None, final: Final = "stop"
) -> TimeGrid:
    """Equal steps of √t: `t = (√t₀ + u (√t₁ − √t₀))²`. Arguments and errors are those of `uniform_grid`.

    Reference: Song, Meng, Ermon (2021), arXiv 2010.02502, appendix D.2.
    """
    return _grid(process, n, t0, t1, final, lambda a, b, u: (a**0.5 + (b**0.5 - a**0.5) * u) ** 2, in_time=True)


def log_snr_grid(
    process: Affine, n: int, t0: float | None = None, t1: float | None = None, final: Final = "stop"
) -> TimeGrid:
    """Equal steps of ln σ, that is of the logarithmic signal-to-noise ratio. Arguments and errors as `uniform_grid`.

    Reference: Lu et al. (2022), arXiv 2206.00927, section 3.3.
    """
    return _grid(process, n, t0, t1, final, lambda a, b, u: a + (b - a) * u)


def karras_grid(
    process: Affine, n: int, rho: float = 7.0, t0: float | None = None, t1: float | None = None, final: Final = "stop"
) -> TimeGrid:
    """Equal steps of σ^(1/ρ): `σ = (σ₀^(1/ρ) + u (σ₁^(1/ρ) − σ₀^(1/ρ)))^ρ`. Other arguments as `uniform_grid`.

    Raises ValueError unless rho > 0, and as `uniform_grid`.

    Reference: Karras et al. (2022), arXiv 2206.00364, equation 5; with final="zero" their grid of n steps.
    """
    _check_positive("karras_grid", "rho", rho)

    def curve(a: float, b: float, u: Tensor) -> Tensor:
        # relative to the larger end, so that no power overflows
        return a + rho * torch.log1p(u * math.expm1((b - a) / rho))

    return _grid(process, n, t0, t1, final, curve)


def polyexponential_grid(
    process: Affine, n: int, rho: float = 1.0, t0: float | None = None, t1: float | None = None, final: Final = "stop"
) -> TimeGrid:
    """`ln σ = (1 − u)^ρ (ln σ₀ − ln σ₁) + ln σ₁`; ρ = 1 is `log_snr_grid`, more puts nodes at low noise.

    Raises ValueError unless rho > 0, and as `uniform_grid`. Other arguments are its, too.
    """
    _check_positive("polyexponential_grid", "rho", rho)
    return _grid(process, n, t0, t1, final, lambda a, b, u: (1.0 - u) ** rho * (a - b) + b)


def angle_grid(
    process: Affine,
    n: int,
    sigma_data: float = 1.0,
    tail: float = 0.05,
    t0: float | None = None,
    t1: float | None = None,
    final: Final = "stop",
) -> TimeGrid:
    """Equal steps of `atan(σ/c) + tail ln σ`: nodes where the data's structure is decided, few far above and below it.

    sigma_data: c, the noise level around which nodes gather, about the data's standard deviation.  tail: share of
    uniform steps of ln σ, 0 or more.  Other arguments as `uniform_grid`.

    Raises ValueError unless sigma_data > 0 and tail ≥ 0, and as `uniform_grid`.
    """
    _check_positive("angle_grid", "sigma_data", sigma_data)
    if not tail >= 0.0:
        raise ValueError(f"angle_grid: tail must be 0 or more, got {tail!r}")

    def density(log_sigma: Tensor) -> Tensor:
        return tail + 0.5 / torch.cosh(log_sigma - math.log(sigma_data))

    return density_grid(process, n, density, t0, t1, final)


_TABLE = 4097  # points of a density's integral, so fine that interpolation is below what any sampler can tell


def density_grid(
    process: Affine,
    n: int,
    density: Callable[[Tensor], Tensor],
    t0: float | None = None,
    t1: float | None = None,
    final: Final = "stop",
) -> TimeGrid:
    """Steps that share the integral of a density of nodes over ln σ equally.

    density: `ln σ -> density`, positive, on a float64 tensor; only its shape matters.  Other arguments as
    `uniform_grid`.

    Raises:
        ValueError: also where the density is not positive and finite.
    """

    def curve(a: float, b: float, u: Tensor) -> Tensor:
        at = torch.linspace(a, b, _TABLE, dtype=torch.float64)
        value = density(at)
        if not bool((torch.isfinite(value) & (value > 0)).all()):
            raise ValueError("density_grid: the density must be positive and finite from end to end")
        mass = torch.cat((value.new_zeros(1), torch.cumsum(0.5 * (value[1:] + value[:-1]), 0)))
        return interpolate(u * mass[-1], mass, at)

    return _grid(process, n, t0, t1, final, curve)


def sigma_grid(process: Affine, sigmas: Sequence[float] | Tensor) -> TimeGrid:
    """Steps between given noise levels, in the order of travel; a last level of 0 ends at σ = 0.

    Raises:
        ValueError: negative levels, or times that are not strictly monotone.
    """
    levels = floating("sigmas", sigmas).detach().to(torch.float64)
    strict = levels.ndim == 1 and len(levels) > 1 and bool((levels.diff().sign() == levels.diff()[0].sign()).all())
    if not strict or levels[0] == levels[1] or not bool((levels >= 0).all()):
        raise ValueError(f"sigmas: expected noise levels of 0 or more that all rise or all fall, got {levels.tolist()}")
    times = process.time(levels.clamp_min(1e-300).log())
    return TimeGrid([float(t) if level > 0 else _zero_time(process) for level, t in zip(levels, times, strict=True)])


def interpolate(x: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear interpolation; `known` increases and holds x."""
    right = torch.searchsorted(known, x).clamp(1, len(known) - 1)
    left = right - 1
    share = (x - known[left]) / (known[right] - known[left])
    return values[left] + share * (values[right] - values[left])


def _check_positive(name: str, what: str, value: float) -> None:
    check_number(f"{name}: {what}", value, above=0.0)


def _zero_time(process: Affine) -> float:
    """The time at which σ = 0."""
    t = float(process.time(-math.inf))
    if math.isfinite(t) and float(process.log_sigma(t)) == -math.inf:
        return t
    raise ValueError(
        f"{type(process).__name__} has no time with σ = 0 to end at; use final='stop', and after the solve "
        "denoise(process, score, process.t_min, sol.x)"
    )


def _grid(
    process: Affine, n: int, t0: float | None, t1: float | None, final: Final, curve: Curve, in_time: bool = False
) -> TimeGrid:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"a grid takes a number of steps of 1 or more, got n={n!r}")
    if final not in ("stop", "zero"):
        raise ValueError(f"final is 'stop' (end at t1) or 'zero' (last step to σ = 0), got {final!r}")
    check_has("process", process, ("t_min", "t_max", "time", "log_sigma"), "an affine process such as VP()")
    start, end = process.t_max if t0 is None else t0, process.t_min if t1 is None else t1
    for name, t in (("t0", start), ("t1", end)):
        check_number(f"a grid's {name}", t)
    start, end = float(start), float(end)
    if start == end:
        raise ValueError(f"a grid needs two different ends, got t0 = t1 = {start}")
    noisy, clean = max(start, end), min(start, end)
    if final == "zero":
        if start < end:
            raise ValueError("final='zero' is for grids that run towards the data, t0 > t1")
        last = _zero_time(process)
        nodes = _nodes(process, n - 1, noisy, clean, curve, in_time) if n > 1 else [noisy]
        return TimeGrid([*nodes, last])
    nodes = _nodes(process, n, noisy, clean, curve, in_time)
    return TimeGrid(nodes if start > end else nodes[::-1])


def _nodes(process: Affine, n: int, noisy: float, clean: float, curve: Curve, in_time: bool) -> list[float]:
    """The n + 1 times from the noisy to the clean end, both exact."""
    u = torch.arange(n + 1, dtype=torch.float64) / n
    if in_time:
        times = curve(noisy, clean, u)
    else:
        a, b = float(process.log_sigma(noisy)), float(process.log_sigma(clean))
        if not math.isfinite(b):
            raise ValueError(f"σ = 0 at t = {clean}, where ln σ is infinite: end at a later time and use final='zero'")
        times = process.time(curve(a, b, u))
    return [noisy, *times[1:-1].tolist(), clean]
