"""Dequantisation that is learned: the law of u that makes a trained model's bound on the likelihood tightest.

Notation: k an image in levels, y = (k + u)/L; ε standard normal, v = T(ε, k) a flow conditioned on the image, u the
logistic function of v.

    log q(u | k) = log N(ε) − log |∂v/∂ε| − Σ log u (1 − u)

    −log₂ P(k) ≤ E_q [−log₂ p(y) + log₂ q(u | k)] + D log₂ L

T is a chain of affine couplings: each scales and shifts one half of a checkerboard by what a small network makes of the
image and the other half. It begins as the identity times a scale at which u is nearly uniform.

Reference: Ho, Chen, Srinivas, Duan, Abbeel (2019), "Flow++", §3.1; Dinh, Sohl-Dickstein, Bengio (2017), "Real NVP";
Song, Durkan, Murray, Ermon (2021), appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdekit.arguments import check_like
from sdekit.random import Draws, KeyedDraws, Purpose

from .data import Dataset, Dequantisation, permutation
from .data.dataset import check_images
from .likelihood import BitsPerDim, bits_per_dim
from .losses import DenoisingLoss, spread
from .model import ScoreModel
from .randomness import scoped_seed

_EDGE = 2.0**-15  # u keeps this far from 0 and 1, so that float32 does not round it to another level
_UNIFORM = 1.7  # the scale at which the logistic function of a normal is nearly uniform
_INITIAL, _ORDER = 3, 0x5EED


class Coupling(nn.Module):
    """`v ← v e^{s} + t` on one half of a checkerboard; s and t depend on the image and on the other half."""

    def __init__(self, channels: int, width: int, parity: int) -> None:
        super().__init__()
        self.parity = parity
        self.net = nn.Sequential(
            nn.Conv2d(2 * channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * channels, 3, padding=1),
        )
        for last in self.net[-1].parameters():
            nn.init.zeros_(last)

    def forward(self, v: Tensor, image: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """(v, log |∂v'/∂v| `(B,)`); with `inverse`, the way back, and still the log-determinant of the way there."""
        rows, columns = (torch.arange(n, device=v.device) for n in v.shape[-2:])
        kept = ((rows[:, None] + columns) % 2 == self.parity).to(v.dtype)
        log_scale, shift = self.net(torch.cat([v * kept, image], dim=1)).chunk(2, dim=1)
        log_scale, shift = 2.0 * torch.tanh(0.5 * log_scale) * (1.0 - kept), shift * (1.0 - kept)
        moved = (v - shift) * torch.exp(-log_scale) if inverse else v * torch.exp(log_scale) + shift
        return moved, log_scale.flatten(1).sum(1)


class VariationalNoise(nn.Module):
    """A learned law of u for images `(C, H, W)`; a `Dequantisation`. Make one by `fit_dequantisation`.

    channels  C
    width     channels of the small networks
    couplings  number of them
    """

    def __init__(self, channels: int, width: int = 32, couplings: int = 4) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(channels, width, parity=i % 2) for i in range(couplings))
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), math.log(_UNIFORM)))

    def sample(self, images: Tensor, levels: int, draws: Draws, step: int = 0) -> tuple[Tensor, Tensor]:
        """(y, log q of u `(B,)` in nats): y float32 in [0, 1), differentiable in the parameters."""
        check_images(images)
        device = self.log_scale.device
        noise = draws.normal(Purpose.DEQUANTISE, step, tuple(images.shape), torch.float32, device)
        image = _shown(images.to(device), levels)
        v, log_slope = noise * torch.exp(self.log_scale), self._log_scale_of(noise)
        for coupling in self.couplings:
            v, more = coupling(v, image)
            log_slope = log_slope + more
        u = torch.sigmoid(v).clamp(_EDGE, 1.0 - _EDGE)
        return (images.to(device) + u) / levels, _normal(noise) - log_slope - _log_logistic_slope(v)

    def forward(self, images: Tensor, levels: int, draws: Draws, step: int = 0) -> Tensor:
        """`y = (k + u)/L`; see `Dequantisation`."""
        return self.sample(images, levels, draws, step)[0]

    def log2_density(self, images: Tensor, levels: int, y: Tensor) -> Tensor:
        """log₂ q(u | k) `(B,)`, float64, by running the flow back."""
        check_images(images)
        check_like("y", y, "images", images)
        image = _shown(images, levels)
        v = torch.logit((y.to(torch.float64) * levels - images).clamp(_EDGE, 1.0 - _EDGE)).to(torch.float32)
        last, log_slope = v, torch.zeros(len(v), device=v.device)
        for coupling in reversed(self.couplings):
            v, more = coupling(v, image, inverse=True)
            log_slope = log_slope + more
        noise = v * torch.exp(-self.log_scale)
        total = _normal(noise) - log_slope - self._log_scale_of(noise) - _log_logistic_slope(last)
        return total.to(torch.float64) / math.log(2.0)

    def _log_scale_of(self, noise: Tensor) -> Tensor:
        return self.log_scale.sum() * noise[0, 0].numel() + torch.zeros(len(noise), device=noise.device)


def _shown(images: Tensor, levels: int) -> Tensor:
    return 2.0 * images.to(torch.float32) / (levels - 1) - 1.0


def _normal(x: Tensor) -> Tensor:
    return -0.5 * (x.square() + math.log(2.0 * math.pi)).flatten(1).sum(1)


def _log_logistic_slope(v: Tensor) -> Tensor:
    """Σ log u(1 − u) at u the logistic function of v."""
    return (F.logsigmoid(v) + F.logsigmoid(-v)).flatten(1).sum(1)


def fit_dequantisation(
    model: ScoreModel,
    images: Dataset,
    steps: int = 1000,
    batch: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> VariationalNoise:
    """Learn the law of u for a trained model, by the bound whose integrand is the model's denoising loss with weight 1.

    report: called after each step with (steps done, bound up to a constant, in nats per number).
    """
    with scoped_seed(seed, _INITIAL):
        law = VariationalNoise(images.shape[0]).to(model.device)
    loss, optimizer = DenoisingLoss(), torch.optim.Adam(law.parameters(), lr=learning_rate)
    size = math.prod(images.shape)
    for step in range(steps):
        epoch, position = divmod(step * batch, max(len(images) // batch, 1) * batch)
        chosen = permutation(len(images), seed ^ _ORDER, epoch)[position : position + batch]
        draws = KeyedDraws(seed)
        y, log_density = law.sample(images.images[chosen], images.levels, draws, step)
        x0 = model.data_range.enter(y)
        u = spread("stratified", seed, step, 0, len(x0), len(x0), x0.device)
        z = draws.normal(Purpose.PATH, step, tuple(x0.shape), x0.dtype, x0.device)
        bound = (loss(model, x0, u, z) + log_density / size).mean()
        optimizer.zero_grad(set_to_none=True)
        bound.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1.0 - step / steps)
        optimizer.step()
        if report is not None:
            report(step + 1, float(bound.detach()))
    return law.eval().requires_grad_(False)


@torch.no_grad()
def dequantised_bits_per_dim(
    model: ScoreModel,
    images: Tensor,
    dequantisation: Dequantisation,
    seed: int = 0,
    batch: int = 256,
    first: int = 0,
    **options: Any,
) -> BitsPerDim:
    """Bits per dimension of uint8 images under any law of u: those of y, and log₂ q(u)/D more.

    first and options: as for `bits_per_dim`. Uniform noise gives the same as `bits_per_dim` itself.
    """
    check_images(images)
    parts: list[BitsPerDim] = []
    corrections: list[Tensor] = []
    for start in range(0, len(images), batch):
        chunk, number = images[start : start + batch].to(model.device), first + start
        y = dequantisation(chunk, model.levels, KeyedDraws(seed, number))
        corrections.append(dequantisation.log2_density(chunk, model.levels, y).double().cpu() / chunk[0].numel())
        parts.append(bits_per_dim(model, y, seed=seed, first=number, batch=batch, **options))
    each = torch.cat([part.per_image for part in parts]) + torch.cat(corrections)
    error = float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return BitsPerDim(float(each.mean()), error, each, max(part.network_evaluations for part in parts))
