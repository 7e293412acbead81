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

if TYPE_CHECKING:
    from . import interop, inverse
    from .data import DataRange, Dataset, Digits, Folder
    from .errors import CheckpointError, DataError, RecipeError, RunError, TrainingDiverged, UserError
    from .evaluation import Bits, Images, evaluate
    from .inverse import restore
    from .likelihood import BitsPerDim, bits_per_dim
    from .losses import DenoisingLoss
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
    from .run import load
    from .samplers import ODE, PC, Fast
    from .sampling import Samples, draw, generate
    from .song2021_sampler import Song2021PC
    from .training import EMA, Trainer, Training

_HOMES = {
    "data": ("DataRange", "Dataset", "Digits", "Folder"),
    "errors": ("CheckpointError", "DataError", "RecipeError", "RunError", "TrainingDiverged", "UserError"),
    "evaluation": ("Bits", "Images", "evaluate"),
    "inverse": ("restore",),
    "likelihood": ("BitsPerDim", "bits_per_dim"),
    "losses": ("DenoisingLoss",),
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
    "run": ("load",),
    "samplers": ("ODE", "PC", "Fast"),
    "sampling": ("Samples", "draw", "generate"),
    "song2021_sampler": ("Song2021PC",),
    "training": ("EMA", "Trainer", "Training"),
}
_ROOMS = ("interop", "inverse")  # modules that are named themselves
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_ROOMS})


__all__ = [
    "Bits",
    "BitsPerDim",
    "CheckpointError",
    "ClassifierGuided",
    "DDPMConfig",
    "DDPMppConfig",
    "DataError",
    "DataRange",
    "Dataset",
    "DenoisingLoss",
    "DigitFeatures",
    "Digits",
    "EDMPreconditioning",
    "EMA",
    "Fast",
    "FeatureModule",
    "Folder",
    "Images",
    "NCSNpp",
    "NCSNppConfig",
    "NCSNv2",
    "NCSNv2Config",
    "ODE",
    "PC",
    "Predict",
    "PredictNoise",
    "PredictVelocity",
    "Recipe",
    "RecipeError",
    "RunError",
    "Samples",
    "ScoreModel",
    "SmallClassifier",
    "SmallClassifierConfig",
    "Song2021",
    "Song2021PC",
    "Statistics",
    "Trainer",
    "Training",
    "TrainingDiverged",
    "UNet",
    "UNetConfig",
    "UserError",
    "WideResNet",
    "WideResNetConfig",
    "bits_per_dim",
    "digit_features",
    "draw",
    "evaluate",
    "frechet_distance",
    "generate",
    "inception_score",
    "interop",
    "inverse",
    "kernel_distance",
    "load",
    "load_inception",
    "measure_images",
    "precision_recall",
    "restore",
]
