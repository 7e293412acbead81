"""The commands, one a module. Each registers itself on `app`, and imports what is slow only when it runs.

A new command is a module here that decorates its function by `@app.command`, and its name in the import below.
"""

from . import data, demo, import_, likelihood, sample, train
from .app import app

__all__ = ["app", "data", "demo", "import_", "likelihood", "sample", "train"]
