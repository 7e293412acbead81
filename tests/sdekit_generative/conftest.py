"""A model whose score is known, in the place of a trained one."""

from __future__ import annotations

import pytest
import torch

from sdekit_generative.model import ScoreModel
from sdekit_generative.recipes import Recipe


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


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
