"""The only bridge from networks to sdekit: a network, what it predicts, and the process, together are a score.

Notation: x(t) = s(t) (x₀ + σ(t) z), std = s σ; c = ln σ; F the network, ε̂ its estimate of z.

    score(t, x) = ∇ₓ log p_t(x) ≈ −ε̂(t, x) / std(t)

Whatever the network predicts is converted to ε̂ in one step. A detour over the denoised image, score = (s D − x)/std²,
would cost digits at small σ (the error is about 1e-7 |x|/std²), which is where likelihoods and samples end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from sdekit.protocols import as_time, match
from sdekit.sdes.process import DiffusionProcess

from .data.dequantize import DataRange

Network = Callable[[Tensor, Tensor], Tensor]
"""`(x, c) → image`: x `(B, C, H, W)` of about unit size, c = ln σ `(B,)`."""


class Parametrisation(Protocol):
    """What a network predicts: turns its output into ε̂."""

    def noise(self, network: Network, scale: Tensor, std: Tensor, c: Tensor, x: Tensor) -> Tensor:
        """ε̂ of the shape of x; scale and std are float64, 0-d or `(B, 1, …, 1)`, c is `(B,)`."""
        ...


@dataclass(frozen=True)
class PredictNoise:
    """The network predicts the noise itself: `ε̂ = F(x/r, c)` with `r² = s² data_std² + std²`.

    Reference: Ho, Jain, Abbeel (2020), eq. 11.
    """

    data_std: float = 0.5

    def noise(self, network: Network, scale: Tensor, std: Tensor, c: Tensor, x: Tensor) -> Tensor:
        radius = torch.hypot(scale * self.data_std, std)
        return network(x / match(radius, x), c)


@dataclass(frozen=True)
class PredictVelocity:
    """The network predicts what is left when the best linear guess is taken out, with unit variance at every σ.

        y = x/r,   ε̂ = (std/r) y − (s data_std/r) F(y, c),   r² = s² data_std² + std²

    At large σ the guess ε̂ = y is nearly right and F hardly matters; at small σ, ε̂ = −F. This is the preconditioning
    D = c_skip x + c_out F of Karras et al. rewritten for ε̂ so that nothing cancels.

    data_std: standard deviation of the images in the model's range.
    Reference: Karras, Aittala, Aila, Laine (2022), table 1; Salimans, Ho (2022), appendix D.
    """

    data_std: float = 0.5

    def noise(self, network: Network, scale: Tensor, std: Tensor, c: Tensor, x: Tensor) -> Tensor:
        radius = torch.hypot(scale * self.data_std, std)
        y = x / match(radius, x)
        return match(std / radius, x) * y - match(scale * self.data_std / radius, x) * network(y, c)


@dataclass(frozen=True, eq=False)
class ScoreModel:
    """A trained (or training) score: call it as `model(t, x)` wherever sdekit takes a score.

    network          torch module `(x, c) → image`
    process          the forward process: `sdekit.VP`, `SubVP`, `VE`, …
    parametrisation  what the network predicts
    data_range       the range of x that stands for [0, 1]
    shape, levels    the images it was made for: (C, H, W) and grey levels
    """

    network: nn.Module
    process: DiffusionProcess
    parametrisation: Parametrisation
    data_range: DataRange
    shape: tuple[int, int, int]
    levels: int

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def noise(self, t: Tensor | float, x: Tensor) -> Tensor:
        """ε̂(t, x), the estimate of z; t is 0-d or `(B, 1, …, 1)`, x is `(B, C, H, W)`."""
        t = as_time(t, x.device)
        c = self.process.log_sigma(t).to(torch.float32).reshape(-1).expand(len(x))
        return self.parametrisation.noise(self._evaluate, self.process.scale(t), self.process.std(t), c, x)

    def _evaluate(self, x: Tensor, c: Tensor) -> Tensor:
        # a float64 state may surround a float32 network: its rounding then does not add up along a solve
        return self.network(x.to(torch.float32), c).to(x.dtype)

    def __call__(self, t: Tensor | float, x: Tensor) -> Tensor:
        """The score at (t, x), of the shape of x."""
        t = as_time(t, x.device)
        return -self.noise(t, x) / match(self.process.std(t), x)
