"""Sliced score matching at every noise level: the score learned without knowing what noise was added.

Notation: x = s x₀ + std z, ŝ the model's score, v a vector of random signs.

    std² ‖ŝ − ∇ log p_t‖²  =  std² (‖ŝ‖² + 2 vᵀ ∂ₓ(vᵀ ŝ)) + const,  on average over x and v

so the objective has the minimum of denoising score matching, whatever made x; it costs a second derivative, and its
gradient is noisier. Its value may be negative.

Reference: Song, Garg, Shi, Ermon (2019), "Sliced score matching", equation 8; Song et al. (2021), §3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sdekit.protocols import expand

from ..model import ScoreModel
from .denoising import diffused
from .loss import check_batch
from .times import Times, UniformNoiseLevel
from .weighting import LikelihoodWeighting, Weighting


@dataclass(frozen=True)
class SlicedLoss:
    """`w(c)/q(c) std² (‖ŝ‖² + 2 vᵀ ∂ₓ(vᵀ ŝ)) / D`, one value a sample."""

    directed: ClassVar[bool] = True
    weighting: Weighting = field(default_factory=LikelihoodWeighting)
    times: Times = field(default_factory=UniformNoiseLevel)

    def __call__(self, model: ScoreModel, x0: Tensor, u: Tensor, z: Tensor, signs: Tensor | None) -> Tensor:
        """`(B,)`; see `Loss`. Raises ValueError without signs."""
        if signs is None:
            raise ValueError("signs: expected random signs of the shape of the images, got None")
        check_batch(x0, u, z)
        t, q = self.times.sample(model.process, u)
        importance = self.weighting(model.process, t) / q
        x = diffused(model.process, x0, t, z).requires_grad_(True)
        std = model.process.std(expand(t, x0)).to(x0.dtype)
        with torch.enable_grad():
            # std ŝ = −ε̂ is of unit size at every level
            unit = -model.noise(expand(t, x0), x)
            (slope,) = torch.autograd.grad((unit * signs).sum(), x, create_graph=torch.is_grad_enabled())
        value = unit.square() + 2.0 * std * slope * signs
        return importance.to(x0.dtype) * value.flatten(1).mean(1)
