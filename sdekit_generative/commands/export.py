"""`export`: a run's model for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .app import app
from .options import Weights, say


@app.command
def export(
    run: Path,
    *,
    out: Path,
    to: Literal["safetensors", "diffusers", "score-sde"] = "safetensors",
    weights: Weights = Weights(),
) -> int:
    """Write a run's averaged weights for use elsewhere.

    Parameters
    ----------
    run
        Folder of the run.
    out
        File to write (safetensors, score-sde), or folder (diffusers).
    to
        safetensors: names of this library, with how to build the network; diffusers: a UNet2DModel and its scheduler,
        where there is a counterpart; score-sde: safetensors by the names of the score_sde PyTorch code.
    """
    from ..errors import UserError

    model = weights.load(run)
    if out.exists():
        raise UserError(f"--out: {out} exists; choose another, or remove it")
    from .. import interop

    if to == "diffusers":
        interop.to_diffusers(model, out)
    elif to == "safetensors":
        interop.to_safetensors(model, out)
    else:
        interop.score_sde.save(model.network, out)
    say(f"{out}: written")
    return 0
