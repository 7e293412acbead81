"""`data statistics`: what evaluations compare with, in a file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from ..errors import UserError
from .data import data_app
from .evaluate import find_features
from .options import Flag, Machine, say


@data_app.command
def statistics(
    path: str,
    *,
    out: Path,
    features: Path | None = None,
    resize: Literal["tf1", "centre"] = "tf1",
    keep: Flag = False,
    size: int | None = None,
    channels: Literal[1, 3] = 3,
    split: Literal["all", "train", "held-out"] = "all",
    on: Machine = Machine(),
) -> int:
    """Mean and covariance of the features of real images, in the usual .npz, with where they are from.

    In many processes: `torchrun --nproc_per_node=8 -m sdekit_generative data statistics …`.

    Parameters
    ----------
    path
        A folder of images, an array, an archive; or digits, for the bundled ones.
    out
        The .npz to write. It must not exist yet.
    features
        Weights of the feature network, pt_inception-2015-12-05.pth. [default: for digits, the bundled classifier]
    resize
        How images are brought to the feature network's size: tf1 as in the published figures, or centre.
    keep
        Keep the features too, for kid and pr.
    size
        Crop and resize to this many pixels, as the recipe's data.size would.
    channels
        3 for colour, 1 for grey.
    split
        Which of the images: all, those that a run trains on, or those that it holds out.
    """
    from ..data import Digits, source_of
    from ..metrics import measure_images
    from ..progress import work_bar
    from ..training import joined

    if out.suffix != ".npz":
        raise UserError(f"--out: expected a name ending in .npz, got {out}")
    if out.exists():
        raise UserError(f"{out}: exists already; choose another --out")
    with joined(on.start()) as group:
        data = Digits().load() if path == "digits" else source_of(Path(path), size=size, channels=channels).load()
        if split != "all":
            data = data.split()[0 if split == "train" else 1]
        group.check_same("the set of images", data.fingerprint())
        network = find_features(features, resize, data.shape, data.levels, group.device)
        with work_bar("features", len(data)) if group.leads else nullcontext() as progress:
            found = measure_images(data, network, f"{path}, {split}", keep, progress=progress, group=group)
        if group.leads:
            found.save(out)
            say(f"{len(data)} images, {len(found.mean)} features of {network.about['network']}: {out}")
    return 0
