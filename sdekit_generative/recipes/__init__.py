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
    if not file.exists():
        raise RecipeError(f"{file}: there is no such recipe file")
    try:
        if not file.is_file():  # a pipe or a device would be read for ever
            raise ValueError("not a file")
        return decode(json.loads(file.read_bytes(), object_pairs_hook=_once), Recipe)
    except (OSError, ValueError, RecursionError) as problem:
        raise RecipeError(f"{file}: cannot be read ({problem})") from None
    except RecipeError as problem:
        raise RecipeError(f"{file}: {problem}") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON, in which every name stands once: of two values, nobody knows which was meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RecipeError(f"{next(n for n in names if names.count(n) > 1)} is said twice")
    return found


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
