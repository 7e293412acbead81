"""A recipe: everything that decides what a run computes, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdekit.sdes.diffusion import VP
from sdekit.sdes.process import DiffusionProcess

from ..data import DataRange, Dequantisation, Digits, UniformNoise
from ..losses import DenoisingLoss, Loss
from ..model import Parametrisation, PredictVelocity, ScoreModel
from ..networks import NetworkConfig, UNetConfig
from ..randomness import scoped_seed
from ..training import Training
from .families import Source

_INITIALISATION = 0


@dataclass(frozen=True)
class Recipe:
    """What is learned (data, process, parametrisation), by which network, and how.

    The process's t_min is where training and likelihoods end; samplers may stop a little earlier.
    """

    data: Source = field(default_factory=Digits)
    process: DiffusionProcess = field(default_factory=lambda: VP(t_min=1e-5))
    data_range: DataRange = field(default_factory=DataRange)
    parametrisation: Parametrisation = field(default_factory=PredictVelocity)
    network: NetworkConfig = field(default_factory=UNetConfig)
    loss: Loss = field(default_factory=DenoisingLoss)
    dequantisation: Dequantisation = field(default_factory=UniformNoise)
    training: Training = field(default_factory=Training)

    def build(self, shape: tuple[int, int, int], levels: int) -> ScoreModel:
        """The model for images of this shape and these levels, its weights initialised from the recipe's seed."""
        with scoped_seed(self.training.seed, _INITIALISATION):
            network = self.network.build(shape)
        return ScoreModel(network, self.process, self.parametrisation, self.data_range, shape, levels)
