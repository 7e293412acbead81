"""`recipes`: what can be trained."""

from __future__ import annotations

from .app import app
from .options import say


@app.command
def recipes() -> int:
    """List the recipes that `train` knows: name, images, process, network."""
    from ..recipes import RECIPES

    for name, recipe in RECIPES.items():
        size = getattr(recipe.data, "size", None)
        images = f"{type(recipe.data).__name__}{f' at {size}×{size}' if size else ''}"
        parts = (images, type(recipe.process).__name__, type(recipe.network).__name__.removesuffix("Config"))
        say(f"{name:38} {', '.join(parts)}")
    return 0
