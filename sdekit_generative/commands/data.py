"""`data`: images looked at before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from .app import app
from .options import say

data_app = App(name="data", help="Look at images before training on them.")
app.command(data_app)


@data_app.command
def check(path: Path, *, size: int | None = None, channels: Literal[1, 3] = 3) -> int:
    """Say what is in a folder of images (or a .npz or .npy file), and name the first file that cannot be used.

    Parameters
    ----------
    path
        The folder or file.
    size
        Crop and resize to this many pixels, as the recipe's data.size would.
    channels
        3 for colour, 1 for grey.
    """
    from ..data import Folder

    found = Folder(str(path), size=size, channels=channels).load()
    training, held_out = found.split()
    say(
        f"{len(found)} images of {found.shape[2]}×{found.shape[1]} pixels, "
        f"{found.shape[0]} channels, {found.levels} levels"
    )
    say(f"{len(training)} for training, {len(held_out)} held out; labels: {'none' if found.labels is None else 'yes'}")
    return 0
