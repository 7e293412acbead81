"""`data`: images looked at before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import App

from ..errors import UserError, counted
from .app import app
from .options import Changes, Flag, changes, say

if TYPE_CHECKING:
    import numpy as np

    from ..data import Survey
    from ..recipes import Recipe

data_app = App(name="data", help="Look at images before training on them.")
app.command(data_app)


@data_app.command
def check(
    path: Path,
    *,
    size: int | None = None,
    channels: Literal[1, 3] = 3,
    broken: Literal["stop", "skip"] = "stop",
    classes: Flag = False,
    write: Path | None = None,
    recipe: str = "folder",
    set: Changes = None,
) -> int:
    """Say what is in a folder of images, an array, CIFAR-10 or Parquet files; suggest σ_max, and write a recipe.

    Parameters
    ----------
    path
        The folder or file.
    size
        Crop and resize to this many pixels, as the recipe's data.size would.
    channels
        3 for colour, 1 for grey.
    broken
        What to do about files that cannot be used: stop at them, or skip them; they are named either way.
    classes
        Take the folders that images lie in for classes.
    write
        Write a recipe for these images with the suggested σ_max to this file; train it by `train FILE`.
    recipe
        The recipe to begin from.
    set
        Change any part of the recipe that is written, as in `train`.
    """
    from dataclasses import replace

    from ..data import source_of, survey
    from ..recipes import find, override

    if write is not None and write.exists():
        raise UserError(f"{write}: exists already; choose another --write")
    source = source_of(path, size, channels, broken, classes)
    base = override(replace(find(recipe), data=source), changes(set))
    found = survey(base.data.load(), base.data_range.width, base.data_range.low)
    _tell(found, base)
    if write is not None:
        _write(_suited(base, found), found, write)
    return 0


def _tell(found: Survey, base: Recipe) -> None:
    channels, height, width = found.shape
    say(f"{found.count} images of {width}×{height} pixels, {counted(channels, 'channel')}, {found.levels} levels")
    classes = counted(found.classes, "class") if found.classes else "no classes"
    if found.class_names:
        classes += f": {', '.join(f'{number} {name}' for number, name in enumerate(found.class_names))}"
    say(f"{found.training} for training, {found.held_out} held out; {classes}")
    inside = f"in the range [{base.data_range.low:g}, {base.data_range.high:g}]"
    say(f"mean {found.mean:.3f}, standard deviation {found.std:.3f} {inside}")
    say(f"largest distance of two images {found.largest_distance:.4g}; suggested sigma_max {found.sigma_max:g}")


def _suited(base: Recipe, found: Survey) -> Recipe:
    """The recipe for these images.

    A process that has a σ_max gets the one suggested, a network the spread of the data and, where it is told classes,
    their number.
    """
    import dataclasses

    names = {"process": "sigma_max", "parametrisation": "data_std", "network": "sigma_max"}
    values = {"sigma_max": found.sigma_max, "data_std": round(found.std, 3)}
    parts: dict[str, Any] = {}
    for part, name in names.items():
        value = getattr(base, part)
        if name in {f.name for f in dataclasses.fields(value)}:
            parts[part] = dataclasses.replace(value, **{name: values[name]})
    told = getattr(base.network, "classes", 0)
    if told and found.classes:
        parts["network"] = dataclasses.replace(parts.get("network", base.network), classes=found.classes)
    return dataclasses.replace(base, **parts)


def _write(recipe: Recipe, found: Survey, file: Path) -> None:
    from ..files import as_json, replace_file
    from ..recipes import encode

    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, as_json(encode(recipe)))
    kind = type(recipe.process).__name__
    level = getattr(recipe.process, "sigma_max", None)
    say(f"{file}: a recipe with {kind}{'' if level is None else f', sigma_max {level:g}'}")
    if level is None:
        say(f"{kind} needs no sigma_max; for a process that does, add --set process=VE")
    if found.classes and getattr(recipe.network, "classes", None) == 0:
        say(f"the network is not told the classes; for one that is, add --set network.classes={found.classes}")


@data_app.command
def convert(
    path: Path,
    out: Path,
    *,
    size: int | None = None,
    channels: Literal[1, 3] = 3,
    broken: Literal["stop", "skip"] = "stop",
    classes: Flag = False,
) -> int:
    """Read images once and for all into an array file, which later runs read, or map where it is large.

    Parameters
    ----------
    path
        A folder of images, CIFAR-10 or Parquet files.
    out
        The .npz (with labels, levels and what is held out) or .npy file (images alone, in shuffled order, mapped from
        2 GiB on).
    size, channels, broken, classes
        As for `data check`.
    """
    import numpy as np

    from ..data import permutation, source_of
    from ..files import aside

    if out.suffix not in (".npy", ".npz"):
        raise UserError(f"{out}: expected a name ending in .npz or .npy")
    if out.exists():
        raise UserError(f"{out}: exists already; choose another name")
    data = source_of(path, size, channels, broken, classes).load()
    out.parent.mkdir(parents=True, exist_ok=True)
    order = permutation(len(data), seed=0, epoch=0)
    images = data.images[order].numpy()
    known = {"labels": data.labels, "held_out": data.held_out}
    more: dict[str, Any] = {name: values[order].numpy() for name, values in known.items() if values is not None}
    with aside(out) as hidden:
        if out.suffix == ".npy":
            _save(images, hidden)
        else:
            np.savez(hidden, images=images, levels=data.levels, **more)
    say(f"{out}: {len(data)} images of {data.shape[2]}×{data.shape[1]} pixels")
    return 0


def _save(images: np.ndarray, file: Path) -> None:
    """As `np.save` does, which loses the last 4096 bytes on a full disk and says nothing."""
    import numpy as np

    images = np.ascontiguousarray(images)
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(images))
        stream.write(images.data)
