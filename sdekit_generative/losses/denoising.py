"""Continuous denoising score matching, with the weighting and the density of times as small objects of their own.

Notation: x₀ an image, z standard normal, x = s x₀ + std z, ε̂ the model's estimate of z; c = ln σ. Every objective
here is

    J = ∫ w(c) E ‖ε̂ − z‖² / D  dc        D numbers an image; the integral runs over the process's noise levels

estimated without bias by drawing c from any density q and weighing by w/q. The weighting decides what is learned, the
density only how noisy the gradient is. With w = 1, J is (up to constants) the bound on −log p(x₀)/D in nats: such a
model has the best likelihood, whatever the process.

Reference: Song, Durkan, Murray, Ermon (2021), "Maximum likelihood training of score-based diffusion models", theorem 1;
Kingma, Salimans, Poole, Ho (2021), "Variational diffusion models", equations 15 to 18 and appendix I.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sdekit.protocols import Affine, expand, match

from ..model import ScoreModel
from .loss import check_batch
from .times import Times, UniformNoiseLevel
from .weighting import LikelihoodWeighting, Weighting


def diffused(process: Affine, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """`s x₀ + std z` at times `(B,)`."""
    check_batch(x0, t, z, "t")
    t = expand(t, x0)
    return match(process.scale(t), x0) * x0 + match(process.std(t), x0) * z


@dataclass(frozen=True)
class DenoisingLoss:
    """`w(c)/q(c) ‖ε̂(t, s x₀ + std z) − z‖² / D`, one value a sample.

    Reference: Vincent (2011); Song et al. (2021), equation 7.
    """

    weighting: Weighting = field(default_factory=LikelihoodWeighting)
    times: Times = field(default_factory=UniformNoiseLevel)

    def __call__(self, model: ScoreModel, x0: Tensor, u: Tensor, z: Tensor, signs: Tensor | None = None) -> Tensor:
        """`(B,)`; x0 in the model's range and z standard normal `(B, C, H, W)`, u uniforms `(B,)`."""
        check_batch(x0, u, z)
        t, q = self.times.sample(model.process, u)
        importance = self.weighting(model.process, t) / q
        x = diffused(model.process, x0, t, z)
        return importance.to(x0.dtype) * (model.noise(expand(t, x0), x) - z).square().flatten(1).mean(1)
