"""Recipes by name, for the command line; each is a `Recipe` that one can change, save and give back."""

from __future__ import annotations

import json
from pathlib import Path

from ..data import Digits, Folder
from ..errors import RecipeError
from ..losses import DenoisingLoss, FocusedNoiseLevel
from ..model import PredictVelocity
from ..networks import UNetConfig
from ..training import Training
from .codec import decode, differences, encode, override, suggest
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
    network=UNetConfig(channels=64, multipliers=(1, 2, 4), blocks=2, attention=(2,)),
    loss=DenoisingLoss(times=FocusedNoiseLevel()),
    training=Training(steps=100_000, batch=64, learning_rate=2e-4, warmup=1000, ema=0.9999, save_every=1000),
)

RECIPES = {"digits": DIGITS, "folder": FOLDER}


def find(name: str) -> Recipe:
    """The recipe of that name, or in that .json file. Raises RecipeError that suggests the nearest name."""
    if name.endswith(".json"):
        return read(Path(name))
    if name not in RECIPES:
        raise RecipeError(f"there is no recipe called {name}; {suggest(name, RECIPES)}")
    return RECIPES[name]


def read(file: Path) -> Recipe:
    """The recipe in a file. Raises RecipeError that names the file and what is wrong with it."""
    try:
        return decode(json.loads(file.read_bytes()), Recipe)
    except (OSError, ValueError, RecursionError) as problem:
        raise RecipeError(f"{file}: cannot be read ({problem})") from None
    except RecipeError as problem:
        raise RecipeError(f"{file}: {problem}") from None


__all__ = [
    "DIGITS",
    "FOLDER",
    "RECIPES",
    "Recipe",
    "decode",
    "differences",
    "encode",
    "find",
    "override",
    "read",
    "suggest",
]
