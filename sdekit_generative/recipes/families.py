"""What may stand in a recipe, kind by kind. A recipe file cannot name anything else."""

from __future__ import annotations

from typing import Any

from sdekit.sdes.diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from sdekit.sdes.process import DiffusionProcess

from ..data import Cifar10, Dequantisation, Digits, Folder, Parquet, TruncatedNormalNoise, UniformNoise
from ..forward import MeanReverting
from ..losses import (
    ClassifierLoss,
    DenoisingLoss,
    DiscreteTime,
    FocusedNoiseLevel,
    LikelihoodWeighting,
    LogNormalNoiseLevel,
    Loss,
    MinSNRWeighting,
    NoiseWeighting,
    PerceptualWeighting,
    ScoreMatching,
    SlicedLoss,
    Times,
    UniformNoiseLevel,
    UniformTime,
    Weighting,
)
from ..model import EDMPreconditioning, Parametrisation, Predict, PredictNoise, PredictVelocity, Song2021
from ..networks import (
    DDPMConfig,
    DDPMppConfig,
    NCSNppConfig,
    NCSNv2Config,
    NetworkConfig,
    SmallClassifierConfig,
    UNetConfig,
    WideResNetConfig,
)

Source = Digits | Folder | Cifar10 | Parquet

FAMILIES: dict[Any, tuple[type, ...]] = {
    Source: (Digits, Folder, Cifar10, Parquet),
    DiffusionProcess: (VP, SubVP, VE, EDM, Cosine, RectifiedFlow, MeanReverting),
    NetworkConfig: (
        UNetConfig,
        NCSNppConfig,
        DDPMppConfig,
        DDPMConfig,
        NCSNv2Config,
        SmallClassifierConfig,
        WideResNetConfig,
    ),
    Parametrisation: (PredictVelocity, PredictNoise, EDMPreconditioning, Predict, Song2021),
    Loss: (DenoisingLoss, SlicedLoss, ScoreMatching, ClassifierLoss),
    Weighting: (LikelihoodWeighting, NoiseWeighting, PerceptualWeighting, MinSNRWeighting),
    Times: (UniformNoiseLevel, UniformTime, FocusedNoiseLevel, LogNormalNoiseLevel, DiscreteTime),
    Dequantisation: (UniformNoise, TruncatedNormalNoise),
}
