"""Training objectives: what is learned at each noise level (weightings), which levels are drawn (times), and how.

`DenoisingLoss` joins any weighting with any density of times; `SlicedLoss` does without known noise; `ScoreMatching` has
the constants of the paper; `edm`, `smld`, `ddpm` and `min_snr` are well-known choices by name.
"""

from .classifier import ClassifierLoss
from .denoising import DenoisingLoss, diffused
from .loss import Loss
from .objectives import ddpm, edm, min_snr, smld
from .sliced import SlicedLoss
from .song2021 import ScoreMatching, label_uniform
from .times import (
    SPREADS,
    DiscreteTime,
    FocusedNoiseLevel,
    LogNormalNoiseLevel,
    Times,
    UniformNoiseLevel,
    UniformTime,
    spread,
    stratified,
)
from .weighting import (
    LikelihoodWeighting,
    MinSNRWeighting,
    NoiseWeighting,
    PerceptualWeighting,
    Weighting,
    ends,
    rate,
)

__all__ = [
    "SPREADS",
    "ClassifierLoss",
    "DenoisingLoss",
    "DiscreteTime",
    "FocusedNoiseLevel",
    "LikelihoodWeighting",
    "LogNormalNoiseLevel",
    "Loss",
    "MinSNRWeighting",
    "NoiseWeighting",
    "PerceptualWeighting",
    "ScoreMatching",
    "SlicedLoss",
    "Times",
    "UniformNoiseLevel",
    "UniformTime",
    "Weighting",
    "ddpm",
    "diffused",
    "edm",
    "ends",
    "label_uniform",
    "min_snr",
    "rate",
    "smld",
    "spread",
    "stratified",
]
