"""Recipes of this project's own: the digits, one's own images, networks that are told classes, and classifiers.

    digits             the bundled digits: what the demo trains
    folder             one's own images; `data check PATH --write FILE` fits it to them
    folder-small       the same for a machine without a GPU: images of 32 pixels or so, in minutes
    digits-classes     digits by class, for guidance without a classifier
    cifar10-classes    CIFAR-10 by class, with the preconditioning and noise levels of Karras et al.
    digits-classifier, cifar10-classifier   classifiers of noisy images, for guidance with one

Reference: Karras et al. (2022), tables 1 and 5; Ho, Salimans (2021); Song et al. (2021), appendix I.1.
"""

from __future__ import annotations

from dataclasses import replace

from sdekit.sdes.diffusion import EDM, VE, VP

from ..data import Cifar10, Digits, Folder
from ..losses import ClassifierLoss, DenoisingLoss, FocusedNoiseLevel, UniformNoiseLevel, edm
from ..model import EDMPreconditioning, PredictVelocity
from ..networks import NCSNppConfig, SmallClassifierConfig, UNetConfig, WideResNetConfig
from ..training import Training
from .recipe import Recipe

DIGITS = Recipe(
    data=Digits(),
    parametrisation=PredictVelocity(data_std=0.75),
    network=UNetConfig(channels=32, multipliers=(1, 2, 4), blocks=1, attention=(2,)),
    loss=DenoisingLoss(times=FocusedNoiseLevel()),
    training=Training(steps=1300, batch=64, learning_rate=2e-3, warmup=100, cooldown=1.0, save_every=100),
)

FOLDER = Recipe(
    data=Folder(),
    process=VE(0.01, 100.0),
    network=UNetConfig(channels=64, multipliers=(1, 2, 4), blocks=2, attention=(2,)),
    loss=DenoisingLoss(times=FocusedNoiseLevel()),
    training=Training(steps=100_000, batch=64, learning_rate=2e-4, warmup=1000, ema=0.9999, save_every=1000, flip=True),
)

FOLDER_SMALL = replace(
    FOLDER,
    network=UNetConfig(channels=16, multipliers=(1, 2, 4), blocks=2, attention=(2,)),
    training=replace(
        FOLDER.training,
        steps=1500,
        batch=16,
        learning_rate=1e-3,
        warmup=100,
        cooldown=0.5,
        ema=0.999,
        save_every=100,
    ),
)

_TOLD = NCSNppConfig(embedding="fourier", fourier_scale=1.0, scale_by_sigma=False, classes=10)

DIGITS_CLASSES = replace(
    DIGITS,
    network=replace(_TOLD, channels=32, multipliers=(1, 2, 4), blocks=1, attention_resolutions=(2,), dropout=0.0),
    training=replace(DIGITS.training, label_dropout=0.1),
)

CIFAR10_CLASSES = Recipe(
    data=Cifar10(),
    process=EDM(),
    parametrisation=EDMPreconditioning(data_std=0.5),
    network=replace(_TOLD, dropout=0.13),
    loss=edm(),
    training=Training(
        steps=400_000,
        batch=512,
        learning_rate=1e-3,
        warmup=20_000,
        ema=0.9999,
        save_every=5000,
        flip=True,
        label_dropout=0.1,
        measure_every=10_000,
        sample_every=10_000,
        power_ema=(0.05, 0.1),
        snapshot_every=50_000,
    ),
)

DIGITS_CLASSIFIER = Recipe(
    data=Digits(),
    process=VP(t_min=1e-5),
    network=SmallClassifierConfig(),
    loss=ClassifierLoss(times=FocusedNoiseLevel(centre=0.0, width=1.5)),
    training=Training(steps=1000, batch=64, learning_rate=1e-3, warmup=100, cooldown=0.5, save_every=100),
)

CIFAR10_CLASSIFIER = Recipe(
    data=Cifar10(),
    process=VE(0.01, 100.0),  # twice the 50 of images in [0, 1], which are here in [−1, 1]
    network=WideResNetConfig(dropout=0.1),
    loss=ClassifierLoss(times=UniformNoiseLevel()),
    training=Training(
        steps=200_000, batch=128, learning_rate=2e-4, warmup=1000, cooldown=0.5, save_every=5000, flip=True
    ),
)


def own() -> dict[str, Recipe]:
    """All of them by name."""
    return {
        "digits": DIGITS,
        "folder": FOLDER,
        "folder-small": FOLDER_SMALL,
        "digits-classes": DIGITS_CLASSES,
        "digits-classifier": DIGITS_CLASSIFIER,
        "cifar10-classes": CIFAR10_CLASSES,
        "cifar10-classifier": CIFAR10_CLASSIFIER,
    }
