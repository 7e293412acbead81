"""The objectives of Song et al. (2021) as they are written there and in the code that was published with it.

Notation: r = ε̂ − z with x = s x₀ + std z; ŝ = −ε̂/std the score; D numbers an image.

    continuous                       ‖std ŝ + z‖² = ‖r‖²,            t uniform on [t_min, t_max]
    … with likelihood weighting      g² ‖ŝ + z/std‖² = (g/std)² ‖r‖²
    discrete, VE (SMLD)              σ_k² ‖ŝ + σ_k z/σ_k²‖² = ‖r‖²,  σ_k geometric, k = 0 the largest
    discrete, VP (DDPM)              ‖ε̂ − z‖² = ‖r‖²,                x = √ᾱ_k x₀ + √(1 − ᾱ_k) z

each summed over an image with the factor ½, or averaged. They differ from `DenoisingLoss` by constant factors only,
which an optimiser like Adam hardly notices; here they are for comparison with published numbers.

`compat="song2021"` also takes the schedules as that code does: in float32, without expm1, so that the VP's std is 0.6 %
too large at t = 1e-5, and, with discrete levels, from the tables of β_k. Its draws are replayed by u = its uniform
(continuous) or (label + ½)/n (discrete).

Reference: Song et al. (2021), equations 1, 3 and 7; Song, Durkan et al. (2021), equation 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.protocols import as_time, expand
from sdekit.sdes.diffusion import VE, VP
from sdekit.sdes.process import DiffusionProcess

from ..model import ScoreModel
from ..song2021 import published
from .loss import check_batch

_NUDGE = 1e-6  # of a label, so that rounding does not make it the one below, nor t = 0, where ln σ is infinite


@dataclass(frozen=True)
class ScoreMatching:
    """One value a sample; their mean is the paper's loss.

    likelihood_weighting  g² in place of std² (continuous only)
    reduce_mean           mean over an image; else half the sum
    levels                number of discrete levels (VE and VP); None for continuous time
    compat                None, or "song2021" for the arithmetic of the published code

    Raises ValueError for combinations that the paper does not have.
    """

    likelihood_weighting: bool = False
    reduce_mean: bool = True
    levels: int | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        if self.compat not in (None, "song2021"):
            raise ValueError(f'compat: expected None or "song2021", got {self.compat!r}')
        if self.levels is not None and (self.levels < 2 or self.likelihood_weighting):
            raise ValueError(
                "levels: expected 2 or more, and likelihood_weighting only in continuous time (levels=None)"
            )

    def __call__(self, model: ScoreModel, x0: Tensor, u: Tensor, z: Tensor, signs: Tensor | None = None) -> Tensor:
        """`(B,)`; see `Loss`."""
        check_batch(x0, u, z)
        process, weight, u = model.process, None, as_time(u, what="u")
        if self.levels is not None:
            t, scale, std = self._discrete(process, u, self.levels)
        else:
            t, scale, std, g = self._continuous(process, u)
            weight = (g / std).square().to(x0.dtype) if self.likelihood_weighting else None
        x = expand(scale.to(x0.dtype), x0) * x0 + expand(std.to(x0.dtype), x0) * z
        # −ŝ std, with the std that is in use here
        noise = model.noise(expand(t, x0), x) * expand((std / process.std(t)).to(x0.dtype), x0)
        square = (noise - z).square().flatten(1)
        reduced = square.mean(1) if self.reduce_mean else 0.5 * square.sum(1)
        return reduced if weight is None else weight * reduced

    def _continuous(self, process: DiffusionProcess, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(t, s, std, g), each `(B,)`."""
        exact = self.compat is None
        t = u.to(torch.float64 if exact else torch.float32) * (process.t_max - process.t_min) + process.t_min
        found = (process.scale(t), process.std(t), process.diffusion(t, t)) if exact else published(process, t)
        return t.to(torch.float64), *found

    def _discrete(self, process: DiffusionProcess, u: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
        """(t, s, std), each `(B,)`."""
        label = (u.to(torch.float64) * levels).floor().clamp_max(levels - 1)
        if isinstance(process, VE):  # labels count down from the largest noise
            t = process.t_max * (levels - 1 - label) / (levels - 1)
            return t, process.scale(t), process.std(t)
        if not isinstance(process, VP):
            raise ValueError(f"discrete levels are defined for VE and VP, not for {type(process).__name__}")
        if self.compat is None:  # at t = 0 there is no noise at all; the first discrete level lies one step above
            t = process.t_max * (label + 1.0) / levels
            return t, process.scale(t), process.std(t)
        betas = torch.linspace(process.beta_min / levels, process.beta_max / levels, levels, dtype=torch.float32)
        kept = (1.0 - betas).cumprod(0).to(u.device)[label.long()]
        t = process.t_max * (label + _NUDGE) / (levels - 1)
        return t, kept.sqrt(), (1.0 - kept).sqrt()


def label_uniform(label: Tensor, levels: int) -> Tensor:
    """The u that makes `ScoreMatching(levels=levels)` take the given discrete labels: `(label + ½)/levels`."""
    return (label.to(torch.float64) + 0.5) / levels
