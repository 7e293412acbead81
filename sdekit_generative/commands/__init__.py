"""The commands, one a module. Each registers itself on `app`, and imports what is slow only when it runs.

A new command is a module here that decorates its function by `@app.command`, and its name in the import below.
"""

from . import data, demo, edit, evaluate, export, film, import_, likelihood, recipes, restore, sample, statistics, train
from .app import app

__all__ = [
    "app",
    "data",
    "demo",
    "edit",
    "evaluate",
    "export",
    "film",
    "import_",
    "likelihood",
    "recipes",
    "restore",
    "sample",
    "statistics",
    "train",
]
