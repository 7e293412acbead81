"""Score networks plugged into sdekit: real images in, a trained score, samples and likelihoods out.

    import sdekit_generative as sg
    model = sg.load("runs/digits")
    images = sg.generate(model, n=64, sampler=sg.PC(steps=500), seed=0)
    bits = sg.bits_per_dim(model, images)

Names are loaded when first used, so that `sdekit-generative --help` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .extras import advice

if TYPE_CHECKING:
    from . import editing, interop, inverse, losses, recipes
    from .data import (
        Cifar10,
        DataRange,
        Dataset,
        Dequantisation,
        Digits,
        Folder,
        Parquet,
        TruncatedNormalNoise,
        UniformNoise,
    )
    from .errors import (
        CheckpointError,
        CheckpointWarning,
        DataError,
        DataWarning,
        RecipeError,
        RunError,
        TrainingDiverged,
        UserError,
    )
    from .evaluation import Bits, Images, evaluate
    from .forward import MeanReverting, as_process
    from .inverse import restore
    from .likelihood import BitsPerDim, bits_per_dim
    from .losses import (
        ClassifierLoss,
        DenoisingLoss,
        DiscreteTime,
        FocusedNoiseLevel,
        LikelihoodWeighting,
        LogNormalNoiseLevel,
        MinSNRWeighting,
        NoiseWeighting,
        PerceptualWeighting,
        ScoreMatching,
        SlicedLoss,
        UniformNoiseLevel,
        UniformTime,
    )
    from .metrics import (
        DigitFeatures,
        FeatureModule,
        Statistics,
        digit_features,
        frechet_distance,
        inception_score,
        kernel_distance,
        load_inception,
        measure_images,
        precision_recall,
        psnr,
        ssim,
    )
    from .model import (
        ClassifierGuided,
        EDMPreconditioning,
        Predict,
        PredictNoise,
        PredictVelocity,
        ScoreModel,
        Song2021,
    )
    from .networks import (
        DDPMConfig,
        DDPMppConfig,
        NCSNpp,
        NCSNppConfig,
        NCSNv2,
        NCSNv2Config,
        SmallClassifier,
        SmallClassifierConfig,
        UNet,
        UNetConfig,
        WideResNet,
        WideResNetConfig,
    )
    from .recipes import Recipe
    from .run import load, load_classifier, reconstruct
    from .samplers import ODE, PC, Fast
    from .sampling import Samples, draw, generate
    from .song2021_sampler import Song2021PC
    from .training import EMA, PowerEMA, Trainer, Training
    from .variational import VariationalNoise, dequantised_bits_per_dim, fit_dequantisation

_HOMES = {
    "data": (
        "Cifar10",
        "DataRange",
        "Dataset",
        "Dequantisation",
        "Digits",
        "Folder",
        "Parquet",
        "TruncatedNormalNoise",
        "UniformNoise",
    ),
    "errors": (
        "CheckpointError",
        "CheckpointWarning",
        "DataError",
        "DataWarning",
        "RecipeError",
        "RunError",
        "TrainingDiverged",
        "UserError",
    ),
    "evaluation": ("Bits", "Images", "evaluate"),
    "inverse": ("restore",),
    "likelihood": ("BitsPerDim", "bits_per_dim"),
    "forward": ("MeanReverting", "as_process"),
    "losses": (
        "ClassifierLoss",
        "DenoisingLoss",
        "DiscreteTime",
        "FocusedNoiseLevel",
        "LikelihoodWeighting",
        "LogNormalNoiseLevel",
        "MinSNRWeighting",
        "NoiseWeighting",
        "PerceptualWeighting",
        "ScoreMatching",
        "SlicedLoss",
        "UniformNoiseLevel",
        "UniformTime",
    ),
    "metrics": (
        "DigitFeatures",
        "FeatureModule",
        "Statistics",
        "digit_features",
        "frechet_distance",
        "inception_score",
        "kernel_distance",
        "load_inception",
        "measure_images",
        "precision_recall",
        "psnr",
        "ssim",
    ),
    "model": (
        "ClassifierGuided",
        "EDMPreconditioning",
        "Predict",
        "PredictNoise",
        "PredictVelocity",
        "ScoreModel",
        "Song2021",
    ),
    "networks": (
        "DDPMConfig",
        "DDPMppConfig",
        "NCSNpp",
        "NCSNppConfig",
        "NCSNv2",
        "NCSNv2Config",
        "SmallClassifier",
        "SmallClassifierConfig",
        "UNet",
        "UNetConfig",
        "WideResNet",
        "WideResNetConfig",
    ),
    "recipes": ("Recipe",),
    "run": ("load", "load_classifier", "reconstruct"),
    "samplers": ("ODE", "PC", "Fast"),
    "sampling": ("Samples", "draw", "generate"),
    "song2021_sampler": ("Song2021PC",),
    "training": ("EMA", "PowerEMA", "Trainer", "Training"),
    "variational": ("VariationalNoise", "dequantised_bits_per_dim", "fit_dequantisation"),
}
_ROOMS = ("editing", "interop", "inverse", "losses", "recipes")  # modules that are named themselves
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in (*_ROOMS, *_HOME_OF):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f".{_HOME_OF.get(name, name)}", __name__)
    except ImportError as problem:
        if advice(problem) is None:
            raise
        raise ImportError(advice(problem), name=problem.name) from problem
    return home if name in _ROOMS else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_ROOMS})


__all__ = [
    "Bits",
    "BitsPerDim",
    "CheckpointError",
    "CheckpointWarning",
    "Cifar10",
    "ClassifierGuided",
    "ClassifierLoss",
    "DDPMConfig",
    "DDPMppConfig",
    "DataError",
    "DataRange",
    "DataWarning",
    "Dataset",
    "DenoisingLoss",
    "Dequantisation",
    "DigitFeatures",
    "Digits",
    "DiscreteTime",
    "EDMPreconditioning",
    "EMA",
    "Fast",
    "FeatureModule",
    "FocusedNoiseLevel",
    "Folder",
    "Images",
    "LikelihoodWeighting",
    "LogNormalNoiseLevel",
    "MeanReverting",
    "MinSNRWeighting",
    "NCSNpp",
    "NCSNppConfig",
    "NCSNv2",
    "NCSNv2Config",
    "NoiseWeighting",
    "ODE",
    "PC",
    "Parquet",
    "PerceptualWeighting",
    "PowerEMA",
    "Predict",
    "PredictNoise",
    "PredictVelocity",
    "Recipe",
    "RecipeError",
    "RunError",
    "Samples",
    "ScoreMatching",
    "ScoreModel",
    "SlicedLoss",
    "SmallClassifier",
    "SmallClassifierConfig",
    "Song2021",
    "Song2021PC",
    "Statistics",
    "Trainer",
    "Training",
    "TrainingDiverged",
    "TruncatedNormalNoise",
    "UNet",
    "UNetConfig",
    "UniformNoise",
    "UniformNoiseLevel",
    "UniformTime",
    "UserError",
    "VariationalNoise",
    "WideResNet",
    "WideResNetConfig",
    "as_process",
    "bits_per_dim",
    "dequantised_bits_per_dim",
    "digit_features",
    "draw",
    "editing",
    "evaluate",
    "fit_dequantisation",
    "frechet_distance",
    "generate",
    "inception_score",
    "interop",
    "inverse",
    "kernel_distance",
    "load",
    "load_classifier",
    "load_inception",
    "losses",
    "measure_images",
    "precision_recall",
    "psnr",
    "recipes",
    "reconstruct",
    "restore",
    "ssim",
]
