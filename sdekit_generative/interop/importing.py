"""A checkpoint of the score_sde PyTorch code made into a run folder of this library.

The averaged weights become the run's averages, the raw ones its weights, Adam's moments its optimiser's: sampled and
measured like any run, and trained on where the recipe's images are at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, DataError
from ..recipes import Recipe, encode
from ..run import Run, check_vacant
from ..training import Checkpoint, checkpoint
from . import score_sde
from .score_sde import Saved

CHECKPOINTS = "checkpoints"


def import_checkpoint(
    source: str | Path, folder: str | Path, recipe: Recipe, shape: tuple[int, int, int], levels: int = 256
) -> Saved:
    """Make a run folder from a checkpoint file; returns what was in the file.

    recipe         of the network, process and parametrisation that the checkpoint is of
    shape, levels  (C, H, W) of its images, and their grey levels

    Raises CheckpointError where the file cannot be read or does not fit the recipe, RunError where the folder holds
    something already. Nothing is written before everything fits.
    """
    folder = Path(folder)
    check_vacant(folder)
    saved = score_sde.read(source)
    network = recipe.build(shape, levels).network
    try:
        raw, averages = weights(network, saved)
        moved = moments(network, saved)
    except TypeError as problem:
        raise CheckpointError(f"{source}: {problem}; name another network in the recipe") from None
    except CheckpointError as problem:
        raise CheckpointError(f"{source}: {problem}") from None
    state = {
        "steps_done": saved.step or 0,
        "ema_updates": saved.updates or 0,
        "recipe": encode(recipe),
        "shape": list(shape),
        "levels": levels,
        "images": _fingerprint(recipe),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "imported": Path(source).name,
    }
    groups = {"model": raw, "ema": averages, "optimizer": moved}
    run = Run.create(folder, recipe)
    checkpoint.write(run.folder / CHECKPOINTS, saved.step or 0, Checkpoint(groups, state), recipe.training.keep)
    return saved


def weights(network: nn.Module, saved: Saved) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(raw, averaged) weights by our names; the raw ones twice where the file has no averages.

    Raises CheckpointError where they do not fit the network.
    """
    score_sde.load(network, saved.model)
    raw = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    if saved.averages:
        score_sde.load_averages(network, saved)
    return raw, {name: value.detach().clone().contiguous() for name, value in network.named_parameters()}


@torch.no_grad()
def moments(network: nn.Module, saved: Saved) -> dict[str, Tensor]:
    """Adam's moments by "parameter/moment", as checkpoints of runs have them; empty where the file has none.

    Raises CheckpointError where they do not fit the network.
    """
    if saved.moments is None:
        return {}
    names = {id(p): name for name, p in network.named_parameters()}
    found: dict[str, Tensor] = {}
    for number, entry in enumerate(score_sde.entries(network)):
        state: Any = saved.moments.get(number)
        if state is None or entry.parameter is None:
            continue
        name = names[id(entry.parameter)]
        for kind in ("exp_avg", "exp_avg_sq"):
            value = state.get(kind)
            if not isinstance(value, Tensor) or tuple(value.shape) != entry.shape:
                raise CheckpointError(f"the optimiser's {kind} of {entry.key} does not fit the network")
            whole = found.setdefault(f"{name}/{kind}", torch.zeros(entry.parameter.shape))
            entry.view(whole).copy_(value)
        found[f"{name}/step"] = torch.tensor(float(state.get("step", saved.step or 0)))
    return found


def _fingerprint(recipe: Recipe) -> str | None:
    """Of the recipe's images, where they are at hand: a run goes on with the images it was begun with only."""
    from ..train import load_images

    try:
        return load_images(recipe)[0].fingerprint()
    except DataError:
        return None
