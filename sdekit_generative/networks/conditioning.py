"""What the blocks of a network are told: the noise level, and the class where there are classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .embeddings import Positions, RandomFourier
from .initialise import scaled_uniform


class Conditioning(nn.Module):
    """`e = a(V₂ a(V₁ features(c)) + class embedding)`, `(B,)` → `(B, 4 · channels)`; None where there is nothing to tell.

    channels    number of positional features, and half that of Fourier features
    embedding   "fourier", "positional" or None, for networks that are not told the noise level
    activation  a
    classes     number of classes; the label −1, and no labels at all, stand for "no class"
    """

    def __init__(
        self,
        channels: int,
        embedding: str | None,
        fourier_scale: float,
        activation: Callable[..., Tensor],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.activation, self.classes, width = activation, classes, 4 * channels
        self.features = None
        if embedding is not None:
            fourier = embedding == "fourier"
            self.features = RandomFourier(2 * channels, fourier_scale) if fourier else Positions(channels)
            self.dense_in = scaled_uniform(nn.Linear(2 * channels if fourier else channels, width))
            self.dense_out = scaled_uniform(nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        if self.label is not None:
            nn.init.zeros_(self.label.weight)

    def forward(self, c: Tensor, labels: Tensor | None) -> Tensor | None:
        """C and labels are `(B,)`. Raises ValueError for labels that are no classes of this network."""
        told = None
        if self.features is not None:
            told = self.dense_out(self.activation(self.dense_in(self.features(c))))
        if self.label is not None:
            named = self.label(self._places(labels, len(c), c.device))
            told = named if told is None else told + named
        elif labels is not None:
            raise ValueError("labels were given to a network without classes; build it with classes=… in its config")
        return None if told is None else self.activation(told)

    def _places(self, labels: Tensor | None, batch: int, device: torch.device) -> Tensor:
        """Rows of the label embedding: the last one stands for no class."""
        if labels is None:
            return torch.full((batch,), self.classes, dtype=torch.int64, device=device)
        check_labels(labels, batch, self.classes)
        return torch.where(labels < 0, self.classes, labels).to(device)


def sigma_of(k: Tensor, sigma_max: float, sigma_min: float, levels: int) -> Tensor:
    """`σ_max (σ_min/σ_max)^(⌊k⌋/(levels − 1))`, float32: noise levels by number, 0 the largest."""
    fall = math.log(sigma_min / sigma_max) / (levels - 1)
    return (sigma_max * torch.exp(fall * k.to(torch.float64).floor())).to(torch.float32)


def check_labels(labels: Tensor, batch: int, classes: int) -> None:
    """Raises ValueError unless labels are int64 `(batch,)` from −1 (no class) to classes − 1."""
    if labels.dtype != torch.int64 or tuple(labels.shape) != (batch,):
        given = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise ValueError(f"labels: expected int64 of shape ({batch},), one for each image, got {given}")
    if bool(((labels < -1) | (labels >= classes)).any()):
        raise ValueError(f"labels: expected classes from 0 to {classes - 1}, or -1 for none, got {labels.tolist()}")
