"""Densities of times, and uniforms spread evenly over a batch.

Notation: c = ln σ; q the density of c from which times are drawn. The estimate of an objective is right for any q that
reaches all levels; how noisy its gradient is depends on q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from sdekit.protocols import Affine, as_time
from sdekit.random import KeyedDraws, Purpose

from .weighting import ends, rate

Spread = Literal["stratified", "antithetic", "independent"]
SPREADS: tuple[str, ...] = get_args(Spread)


class Times(Protocol):
    """A density of times: maps uniforms to them, and knows its density q in terms of c."""

    def sample(self, process: Affine, u: Tensor) -> tuple[Tensor, Tensor]:
        """(t, q): float64 times of uniforms u `(B,)` in [0, 1), and the density of c there."""
        ...


@dataclass(frozen=True)
class UniformTime:
    """t uniform between t_min and t_max."""

    def sample(self, process: Affine, u: Tensor) -> tuple[Tensor, Tensor]:
        u, length = as_time(u, what="u"), process.t_max - process.t_min
        t = process.t_min + length * u
        return t, 1.0 / (length * rate(process, t))


@dataclass(frozen=True)
class UniformNoiseLevel:
    """c = ln σ uniform: the importance sampling of times for `LikelihoodWeighting`.

    Reference: Song, Durkan et al. (2021), §3.3 (there by bisection; the processes here have the inverse).
    """

    def sample(self, process: Affine, u: Tensor) -> tuple[Tensor, Tensor]:
        u, (low, high) = as_time(u, what="u"), ends(process)
        return process.time(low + (high - low) * u), torch.full_like(u, 1.0 / (high - low))


@dataclass(frozen=True)
class FocusedNoiseLevel:
    """c mostly from a bell, the rest uniform, so that no level goes without and no weight is large.

        q = (1 − floor) Logistic(c; centre, width), cut to the process's levels, + floor / (c_max − c_min)

    centre, width: in units of c. The levels at which the images' structure is decided deserve most samples; far below
    them the noise cannot be told from the images, far above it is all there is.
    floor: share of uniform samples, in (0, 1].

    Raises ValueError unless width > 0 and 0 < floor ≤ 1.
    """

    centre: float = -1.5
    width: float = 1.0
    floor: float = 0.25

    def __post_init__(self) -> None:
        if not (self.width > 0.0 and 0.0 < self.floor <= 1.0):
            raise ValueError(f"expected width > 0 and 0 < floor ≤ 1, got {self.width} and {self.floor}")

    def sample(self, process: Affine, u: Tensor) -> tuple[Tensor, Tensor]:
        u, (low, high) = as_time(u, what="u"), ends(process)
        below, above = (
            torch.sigmoid(torch.tensor((end - self.centre) / self.width, dtype=u.dtype)) for end in (low, high)
        )
        # one uniform chooses the part and then the place in it: stratified samples stay stratified in both
        flat = u < self.floor
        v = torch.where(flat, u / self.floor, (u - self.floor) / max(1.0 - self.floor, 1e-12)).clamp(0.0, 1.0)
        bell = self.centre + self.width * torch.logit(below + (above - below) * v)
        c = torch.where(flat, low + (high - low) * v, bell).clamp(low, high)
        place = torch.sigmoid((c - self.centre) / self.width)
        q = place * (1.0 - place) / (self.width * (above - below))
        return process.time(c), (1.0 - self.floor) * q + self.floor / (high - low)


@dataclass(frozen=True)
class LogNormalNoiseLevel:
    """`c ~ N(mean, std²)`, cut to the process's levels: σ log-normal.

    Raises ValueError unless std > 0.

    Reference: Karras et al. (2022), table 1.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not self.std > 0.0:
            raise ValueError(f"std: expected a number above 0, got {self.std}")

    def sample(self, process: Affine, u: Tensor) -> tuple[Tensor, Tensor]:
        u, (low, high) = as_time(u, what="u"), ends(process)
        below, above = (
            torch.special.ndtr(torch.tensor((end - self.mean) / self.std, dtype=u.dtype)) for end in (low, high)
        )
        standard = torch.special.ndtri((below + (above - below) * u).clamp(1e-15, 1.0 - 1e-15))
        c = (self.mean + self.std * standard).clamp(low, high)
        bell = torch.exp(-0.5 * ((c - self.mean) / self.std) ** 2) / (self.std * math.sqrt(2.0 * math.pi))
        return process.time(c), bell / (above - below)


@dataclass(frozen=True)
class DiscreteTime:
    """t uniform on a grid of n times, evenly spaced from t_min to t_max: what networks of discrete levels are trained on.

    Raises ValueError for fewer than two times.

    Reference: Song et al. (2021), equations 1 and 3; Song, Ermon (2019); Ho, Jain, Abbeel (2020).
    """

    n: int = 1000

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n: expected 2 or more levels, got {self.n}")

    def sample(self, process: Affine, u: Tensor) -> tuple[Tensor, Tensor]:
        u, length = as_time(u, what="u"), process.t_max - process.t_min
        place = (u * self.n).floor().clamp_max(self.n - 1)
        t = process.t_min + length * place / (self.n - 1)
        return t, 1.0 / (length * rate(process, t))


# --- uniforms ---------------------------------------------------------------------------------------------------------


def stratified(n: int, u: Tensor, first: int = 0, total: int | None = None) -> Tensor:
    """Uniforms, n of them, evenly spread and shifted together by one uniform u: `(first + i + u)/total`, float64 `(n,)`.

    Reference: Kingma et al. (2021), appendix I.1.
    """
    return (torch.arange(first, first + n, dtype=torch.float64, device=u.device) + u.to(torch.float64)) / (total or n)


def spread(kind: str, seed: int, step: int, first: int, n: int, total: int, device: torch.device) -> Tensor:
    """Uniforms of samples first … first + n − 1 among the `total` of a step: float64 `(n,)`.

    stratified   one in each of `total` equal parts
    antithetic   in pairs, u and 1 − u
    independent  each by itself

    A sample's uniform depends on (seed, step, its index) only, so that a batch may be split in any way.

    Raises ValueError for another kind.
    """
    if kind == "stratified":
        shift = KeyedDraws(seed).uniform(Purpose.TIME, step, (1,), torch.float64, device)
        return stratified(n, shift, first, total)
    if kind == "independent":
        return KeyedDraws(seed, first).uniform(Purpose.TIME, step, (n,), torch.float64, device)
    if kind != "antithetic":
        raise ValueError(f"spread: expected one of {', '.join(SPREADS)}, got {kind!r}")
    pair = first // 2
    base = KeyedDraws(seed, pair).uniform(Purpose.TIME, step, ((first + n - 1) // 2 - pair + 1,), torch.float64, device)
    both = torch.stack((base, 1.0 - base), dim=1).flatten()
    return both[first - 2 * pair :][:n]
