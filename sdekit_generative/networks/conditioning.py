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
        self.label = ClassEmbedding(classes, width) if classes else None

    def forward(self, c: Tensor, labels: Tensor | None) -> Tensor | None:
        """C and labels are `(B,)`. Raises ValueError for labels that are no classes of this network."""
        told = None
        if self.features is not None:
            told = self.dense_out(self.activation(self.dense_in(self.features(c))))
        if self.label is not None:
            named = self.label(labels, len(c), c.device)
            told = named if told is None else told + named
        elif labels is not None:
            refuse_labels()
        return None if told is None else self.activation(told)


class ClassEmbedding(nn.Embedding):
    """A vector for each class, and a last one for "no class"; all zero before training.

    classes, width: how many, and how long.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes + 1, width)
        self.classes = classes
        nn.init.zeros_(self.weight)

    def forward(self, input: Tensor | None, batch: int, device: torch.device) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`(batch, width)`; labels are classes `(batch,)`, −1 for none; None stands for none at all."""
        if input is None:
            return self.weight[-1].expand(batch, -1)
        check_labels(input, batch, self.classes)
        return super().forward(torch.where(input < 0, self.classes, input).to(device))


def refuse_labels() -> None:
    """Raises ValueError: a network without classes was given labels."""
    raise ValueError("labels were given to a network without classes; build it with classes=… in its config")


def sigma_of(k: Tensor, sigma_max: float, sigma_min: float, levels: int) -> Tensor:
    """`σ_max (σ_min/σ_max)^(⌊k⌋/(levels − 1))`, float32: noise levels by number, 0 the largest."""
    fall = math.log(sigma_min / sigma_max) / (levels - 1)
    return (sigma_max * torch.exp(fall * k.to(torch.float64).floor())).to(torch.float32)


def check_labels(labels: Tensor, batch: int, classes: int) -> None:
    """Raises ValueError unless labels are int64 `(batch,)` from −1 (no class) to classes − 1.

    Of labels on another device than the CPU the values are not looked at, for which the device would have to wait.
    """
    if labels.dtype != torch.int64 or tuple(labels.shape) != (batch,):
        given = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise ValueError(f"labels: expected int64 of shape ({batch},), one for each image, got {given}")
    if labels.device.type == "cpu" and bool(((labels < -1) | (labels >= classes)).any()):
        given = sorted(set(labels.tolist()))
        raise ValueError(f"labels: expected classes from 0 to {classes - 1}, or -1 for none, got {given}")
