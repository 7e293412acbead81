"""Guidance: scores made of scores. A guided score goes wherever a score does.

    between two models    s = s_b + w (s_a − s_b)          w = 1 is s_a alone; more than 1 leads away from b
    by a classifier       s = s_a + w ∇ₓ log p(y | x, t)

Every wrapper acts between two noise levels σ only, and outside of them asks s_a alone. `calls_at(t)` says how many
models are asked at a time, which is what a solve counts.

Reference: Ho, Salimans (2022), arXiv 2207.12598 (classifier-free); Kynkäänniemi et al. (2024), arXiv 2404.07724 (the
interval); Karras et al. (2024), arXiv 2406.02507 (autoguidance); Dhariwal, Nichol (2021), arXiv 2105.05233, equation
13, and Song et al. (2021), equation 14 (classifier).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_has, check_number
from ..protocols import Score, as_time, match
from ..watch import calls_at
from .energy import Energy, gradient


@dataclass(frozen=True)
class SigmaInterval:
    """Noise levels σ of a process, from `low` to `high`, both included.

    Raises TypeError for a process without σ, ValueError unless 0 ≤ low ≤ high.
    """

    process: Any
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        check_has("SigmaInterval: process", self.process, ("log_sigma", "sigma"), "an affine process such as VP()")
        if not 0.0 <= self.low <= self.high:
            raise ValueError(f"SigmaInterval: expected 0 ≤ low ≤ high, got {self.low!r} and {self.high!r}")

    def holds(self, t: Tensor | float) -> Tensor:
        """Whether σ(t) lies inside, of the shape of t."""
        sigma = self.process.sigma(as_time(t))
        return (sigma >= self.low) & (sigma <= self.high)


def _weight(weight: float, interval: SigmaInterval | None, t: Tensor, x: Tensor, outside: float) -> Tensor | float:
    """The weight at t: `outside` of the interval another."""
    if interval is None:
        return weight
    inside = interval.holds(t)
    return match(torch.where(inside, weight, outside).to(torch.float64), x)


@dataclass(frozen=True)
class Guided:
    """`s_b + w (s_a − s_b)` inside the interval, s_a outside. Made by `classifier_free` and `autoguidance`.

    score: s_a.  base: s_b.  weight: w, a number.  interval: noise levels between which it acts; None for all.

    Raises TypeError for what is no function, number or `SigmaInterval`.
    """

    score: Score
    base: Score
    weight: float
    interval: SigmaInterval | None = None

    def __post_init__(self) -> None:
        for name in ("score", "base"):
            _check_callable(f"Guided: {name}", getattr(self, name), "(t, x) -> tensor shaped like x")
        check_number("Guided: weight", self.weight)
        _check_interval("Guided", self.interval)

    def asks_base(self, t: Tensor | float) -> bool:
        """Whether the base model is needed at t, for any sample."""
        return self.weight != 1.0 and (self.interval is None or bool(self.interval.holds(t).any()))

    def calls_at(self, t: Tensor | float) -> int:
        """Models asked at t."""
        return calls_at(self.score, t) + (calls_at(self.base, t) if self.asks_base(t) else 0)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        score = self.score(t, x)
        if not self.asks_base(t):
            return score
        base = self.base(t, x)
        return base + _weight(self.weight, self.interval, t, x, outside=1.0) * (score - base)


def classifier_free(
    conditional: Score, unconditional: Score, weight: float, interval: SigmaInterval | None = None
) -> Guided:
    """Classifier-free guidance: weight 1 is the conditional model, 0 the unconditional one, more than 1 sharpens."""
    return Guided(conditional, unconditional, weight, interval)


def autoguidance(score: Score, weaker: Score, weight: float, interval: SigmaInterval | None = None) -> Guided:
    """Guidance by a worse version of the model itself, away from which a weight above 1 leads."""
    return Guided(score, weaker, weight, interval)


@dataclass(frozen=True)
class ClassifierGuidance:
    """`s + w ∇ₓ log p(y | x, t)`: the exact conditional score for w = 1 and an exact classifier.

    score: of the unconditional model.  log_prob: `(t, x) -> (B,)`, log p(y | x(t) = x) of what is wanted,
    differentiable in x; works under `no_grad`.  weight: w ≥ 0.  interval: noise levels between which it acts.

    Raises TypeError for what is no function or number, ValueError for a negative weight.
    """

    score: Score
    log_prob: Energy
    weight: float = 1.0
    interval: SigmaInterval | None = None

    def __post_init__(self) -> None:
        _check_callable("ClassifierGuidance: score", self.score, "(t, x) -> tensor shaped like x")
        _check_callable("ClassifierGuidance: log_prob", self.log_prob, "(t, x) -> (B,)")
        check_number("ClassifierGuidance: weight", self.weight, least=0.0)
        _check_interval("ClassifierGuidance", self.interval)

    def asks_classifier(self, t: Tensor | float) -> bool:
        """Whether the classifier is needed at t, for any sample."""
        return self.weight != 0.0 and (self.interval is None or bool(self.interval.holds(t).any()))

    def calls_at(self, t: Tensor | float) -> int:
        """Models asked at t, the classifier being one."""
        return calls_at(self.score, t) + int(self.asks_classifier(t))

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        score = self.score(t, x)
        if not self.asks_classifier(t):
            return score
        push = gradient(self.log_prob, t, x, "log_prob")
        return score + _weight(self.weight, self.interval, t, x, outside=0.0) * push


def _check_callable(name: str, value: object, signature: str) -> None:
    if not callable(value):
        raise TypeError(f"{name} is a function {signature}, got {value!r}")


def _check_interval(name: str, interval: object) -> None:
    if interval is not None and not isinstance(interval, SigmaInterval):
        raise TypeError(f"{name}: interval is an SigmaInterval(process, low, high) or None, got {interval!r}")
