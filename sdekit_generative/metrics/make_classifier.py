"""Makes the weights of the digits' feature network: `python -m sdekit_generative.metrics.make_classifier`."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from sdekit.random import KeyedDraws, Purpose

from ..data import Dataset, Digits, permutation
from ..randomness import scoped_seed
from .classifier import WEIGHTS, DigitClassifier, as_input

_STEPS, _BATCH, _NOISE = 1200, 128, 0.1


def train(data: Dataset) -> DigitClassifier:
    """A classifier of labelled digits, the same for the same images; Adam on slightly noisy images."""
    if data.labels is None:
        raise ValueError("a classifier needs images with labels")
    with scoped_seed(0):
        network = DigitClassifier()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    draws = KeyedDraws(0)
    for step in range(_STEPS):
        epoch, start = divmod(step * _BATCH, len(data) - _BATCH)
        chosen = permutation(len(data), 0, epoch)[start : start + _BATCH]
        images = as_input(data.images[chosen])
        noise = draws.normal(Purpose.DATA, step, tuple(images.shape), torch.float32, images.device)
        loss = F.cross_entropy(network(images + _NOISE * noise), data.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    _normalise(network, as_input(data.images))
    return network


def _normalise(network: DigitClassifier, images: Tensor) -> None:
    """Scale the features to a mean variance of 1, and undo it in the last layer: distances become readable numbers."""
    scale = float(network.features(images).var(0).mean().sqrt())
    for parameter in network.dense.parameters():
        parameter.div_(scale)
    network.classes.weight.mul_(scale)


def accuracy(network: DigitClassifier, data: Dataset) -> float:
    """Share of images put into their class."""
    return float((network(as_input(data.images)).argmax(1) == data.labels).double().mean())


def _make() -> None:
    training, held_out = Digits().load().split()
    network = train(training)
    path = Path(__file__).with_name(WEIGHTS)
    safetensors.torch.save_file(network.state_dict(), path)
    print(f"{path.name}: accuracy {accuracy(network, training):.4f} train, {accuracy(network, held_out):.4f} held-out")  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    _make()
