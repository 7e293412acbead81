"""`import`: a checkpoint of the score_sde PyTorch code as a run folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .app import app
from .options import Changes, Count, changes, say

_SIZES = {"Cifar10": 32, "Digits": 8}  # of data that have one size only


@app.command(name="import")
def import_(
    checkpoint: Path,
    *,
    recipe: str,
    out: Path,
    size: Count | None = None,
    channels: Count = 3,
    levels: Count = 256,
    set_: Changes = None,
) -> int:
    """Make a run folder from a checkpoint of the score_sde PyTorch code: then sample it, and measure it, as any run.

    Parameters
    ----------
    checkpoint
        The .pth file. Its weights are read, and nothing in it is run.
    recipe
        The recipe it was trained with, such as cifar10-ncsnpp-ve, or a recipe file (.json).
    out
        Folder to make.
    size
        Height and width of the images. [default: those of the recipe's data]
    channels
        Colours of the images.
    levels
        Grey levels of the images.
    set_
        place=value, to change the recipe where the checkpoint differs from it, such as network.blocks=8.
    """
    from ..interop.importing import import_checkpoint
    from ..recipes import find, override

    chosen = override(find(recipe), changes(set_))
    side = size or getattr(chosen.data, "size", _SIZES.get(type(chosen.data).__name__))
    if not isinstance(side, int):
        raise UserError(f"--size: the recipe {recipe} does not say the size of its images; give --size")
    saved = import_checkpoint(checkpoint, out, chosen, (channels, side, side), levels)
    averaged = f"{len(saved.averages)} averaged" if saved.averages else "no averaged weights; the raw"
    moments = "" if saved.moments is None else ", with the optimiser's state"
    say(f"{out}: {averaged} weights at step {saved.step or 0}{moments}; sample: sdekit-generative sample {out}")
    return 0
