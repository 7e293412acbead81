"""A recipe small enough that training it takes a fraction of a second, and runs of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sdekit_generative.model import ScoreModel
from sdekit_generative.networks import UNetConfig
from sdekit_generative.recipes import DIGITS, Recipe
from sdekit_generative.train import begin
from sdekit_generative.training import Stop


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """The digits recipe with a network of a few thousand weights and 12 steps of 8 images."""
    training = dataclasses.replace(DIGITS.training, steps=12, batch=8, warmup=4, save_every=4, cooldown=0.0)
    network = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.1)
    return dataclasses.replace(DIGITS, network=network, training=training)


@pytest.fixture(scope="session")
def tiny_run(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe. Tests must not change it; copy it first."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    begin(folder, tiny).train(Stop(), lambda step, loss: None)
    return folder


class Silent(torch.nn.Module):
    """The network that gives zero, as every network of ours does before training."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return x * self.zero


@pytest.fixture(scope="session")
def gaussian(tiny: Recipe) -> ScoreModel:
    """A silent network predicting velocity: the exact score of data with law N(0, data_std²)."""
    return ScoreModel(Silent(), tiny.process, tiny.parametrisation, tiny.data_range, (1, 4, 4), 17)
