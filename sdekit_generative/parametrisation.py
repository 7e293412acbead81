"""What a network is told and what it predicts, turned into ε̂, its estimate of the noise, in one step.

Notation: x(t) = s(t) (x₀ + σ(t) z), std = s σ; c what the network is told, `(B,)`; F its output. Then
score = −ε̂/std. A detour over the denoised image, score = (s D − x)/std², would cost digits at small σ (the error is
about 1e-7 |x|/std²), which is where likelihoods and samples end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdekit.protocols import match
from sdekit.sdes.process import DiffusionProcess

Network = Callable[[Tensor, Tensor], Tensor]
"""`(x, c) → F`: x `(B, C, H, W)`, c `(B,)`."""


class Parametrisation(Protocol):
    """What a network is told and predicts: gives ε̂."""

    def noise(self, network: Network, process: DiffusionProcess, t: Tensor, x: Tensor) -> Tensor:
        """ε̂ of the shape of x; t is float64, 0-d or `(B, 1, …, 1)`."""
        ...


def told(value: Tensor, x: Tensor) -> Tensor:
    """A number for each sample, float32 `(B,)`, from 0-d or `(B, 1, …, 1)`."""
    if value.ndim:
        return value.to(torch.float32).reshape(-1).expand(len(x))
    # a number of the CPU meets a tensor of the device without a copy, for which the device would have to wait
    return x.new_ones(len(x), dtype=torch.float32) * value.to(torch.float32)


@dataclass(frozen=True)
class PredictNoise:
    """The network predicts the noise itself: `ε̂ = F(x/r, ln σ)` with `r² = s² data_std² + std²`.

    Reference: Ho, Jain, Abbeel (2020), eq. 11.
    """

    data_std: float = 0.5

    def noise(self, network: Network, process: DiffusionProcess, t: Tensor, x: Tensor) -> Tensor:
        radius = torch.hypot(process.scale(t) * self.data_std, process.std(t))
        return network(x / match(radius, x), told(process.log_sigma(t), x))


@dataclass(frozen=True)
class PredictVelocity:
    """The network predicts what is left when the best linear guess is taken out, with unit variance at every σ.

        y = x/r,   ε̂ = (std/r) y − (s data_std/r) F(y, ln σ),   r² = s² data_std² + std²

    At large σ the guess ε̂ = y is nearly right and F hardly matters; at small σ, ε̂ = −F. This is the preconditioning
    D = c_skip x + c_out F of Karras et al. rewritten for ε̂ so that nothing cancels.

    data_std: standard deviation of the images in the model's range.
    Reference: Karras, Aittala, Aila, Laine (2022), table 1; Salimans, Ho (2022), appendix D.
    """

    data_std: float = 0.5

    def noise(self, network: Network, process: DiffusionProcess, t: Tensor, x: Tensor) -> Tensor:
        scale, std = process.scale(t), process.std(t)
        radius = torch.hypot(scale * self.data_std, std)
        y = x / match(radius, x)
        out = network(y, self._told(told(process.log_sigma(t), x)))
        return match(std / radius, x) * y - match(scale * self.data_std / radius, x) * out

    def _told(self, log_sigma: Tensor) -> Tensor:
        return log_sigma


@dataclass(frozen=True)
class EDMPreconditioning(PredictVelocity):
    """`PredictVelocity` as Karras et al. have it: the network is told ln σ/4. For any network, of any process.

        D = c_skip x/s + c_out F(c_in x/s, ln σ/4),   c_skip = d²/(σ² + d²),   c_out = σ d c_in,   c_in = 1/√(σ² + d²)

    data_std: d.  Reference: Karras et al. (2022), table 1.
    """

    def _told(self, log_sigma: Tensor) -> Tensor:
        return log_sigma / 4.0


PREDICTIONS = ("score", "noise", "denoised", "v", "flow")
TOLD = ("log_sigma", "sigma", "time")


@dataclass(frozen=True)
class Predict:
    """A network that takes x as it is and predicts what is said here. For networks made elsewhere.

    prediction   "score"     F = ∇ log p
                 "noise"     F = ε̂
                 "denoised"  F = x̂₀
                 "v"         F = s ε̂ − std x̂₀
                 "flow"      F = ε̂ − x̂₀
    given        what the network is told: "log_sigma", "sigma" or "time"
    factor       the time is multiplied by it
    scaled       whether x/s takes the place of x, as for networks of σ alone

    Raises ValueError for predictions and times that do not exist.
    Reference: Salimans, Ho (2022), appendix D (v); Lipman et al. (2023) and Liu, Gong, Liu (2023) (flow).
    """

    prediction: str = "noise"
    given: str = "log_sigma"
    factor: float = 1.0
    scaled: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("prediction", self.prediction, PREDICTIONS), ("given", self.given, TOLD)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")

    def noise(self, network: Network, process: DiffusionProcess, t: Tensor, x: Tensor) -> Tensor:
        s, std = process.scale(t), process.std(t)
        c = {"log_sigma": process.log_sigma, "sigma": process.sigma, "time": lambda t: self.factor * t}[self.given](t)
        out = network(x / match(s, x) if self.scaled else x, told(c, x))
        if self.prediction == "score":
            return match(-std, x) * out * (1.0 if not self.scaled else match(1.0 / s, x))
        if self.prediction == "noise":
            return out
        if self.prediction == "denoised":
            return (x - match(s, x) * out) / match(std, x)
        if self.prediction == "v":
            norm = s.square() + std.square()
            return match(s / norm, x) * out + match(std / norm, x) * x
        return (x + match(s, x) * out) / match(s + std, x)
