"""Recipes by name, for the command line; each is a `Recipe` that one can change, save and give back."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import RecipeError
from .codec import decode, differences, encode, override, suggest
from .own import DIGITS, FOLDER, own
from .paper import cifar10, larger, ncsnv2
from .recipe import Recipe

RECIPES: dict[str, Recipe] = {**own(), **cifar10(), **larger(), **ncsnv2()}


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
