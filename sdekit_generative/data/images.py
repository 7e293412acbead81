"""One's own images: a folder of files in any format Pillow reads, or an array on disk.

An image that cannot be used is named, and stops the reading or is left out, as the source says; none goes unmentioned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import DataError, counted
from .arrays import ARRAYS, read_array
from .dataset import Dataset
from .decode import Fit
from .gather import Broken, Converted, as_dataset, gather, settle

_SPLITS = {"train": False, "training": False, "test": True, "val": True, "valid": True, "validation": True}
_NO_IMAGES = ("metadata.csv", "metadata.jsonl", "dataset_info.json", "README.md")  # beside the images of other tools


@dataclass(frozen=True)
class Folder:
    """Images on disk: `path` is a folder (searched with its subfolders), or a .npz or .npy file of uint8 values.

    size       every file is cropped to its central square and resized to size × size; None takes the files as they
               are, and then all must have the same size
    channels   3 for colour, 1 for grey; files are converted
    crop       pixels a side of the central part that is kept before, as 140 for CelebA
    broken     what to do about files that cannot be used: stop, or skip them
    converted  what to do about images of another kind than `channels`: keep them converted, skip them, or stop
    classes    whether the folder that a file lies in is its class: cat, or animals/cat where folders lie in folders
    levels     number of grey levels; None for 256, or for arrays what they say or show

    Subfolders named train and test (or validation) at the top are the split, where there are both.
    An array file holds (N, H, W), (N, H, W, C) or (N, C, H, W), and is taken as it is; a .npz holds it as "images", and
    may hold "labels", "levels" and "held_out".

    Raises ValueError for values that make no sense.
    """

    path: str = ""
    size: int | None = None
    channels: int = 3
    crop: int | None = None
    broken: Broken = "stop"
    converted: Converted = "keep"
    classes: bool = False
    levels: int | None = None

    def __post_init__(self) -> None:
        _ = self.fit
        for name, known in (("broken", ("stop", "skip")), ("converted", ("keep", "skip", "stop"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.levels is not None and not 2 <= self.levels <= 256:
            raise ValueError(f"levels: expected 2 to 256, got {self.levels}")

    @property
    def fit(self) -> Fit:
        """How files are made to fit."""
        return Fit(self.size, self.crop, self.channels)

    def load(self) -> Dataset:
        """Raises DataError that names the file at fault; warns (DataWarning) of files that are left out or converted."""
        if not self.path:
            raise DataError("data.path is not set: say where the images are, e.g. --set data.path=images/")
        path = Path(self.path)
        if path.is_dir():
            return self._read_folder(path)
        if not path.exists():
            raise DataError(f"{path}: there is no such folder or file")
        if path.suffix in ARRAYS:
            return self._as_asked(read_array(path, self.levels))
        raise DataError(f"{path}: expected a folder of images, or a file ending in .npz or .npy")

    def _read_folder(self, folder: Path) -> Dataset:
        files = image_files(folder)
        if not files:
            raise DataError(f"{folder}: there are no files in it")
        found = gather(((str(f), f) for f in files), self.fit, convert=self.converted != "skip")
        settle(found, self.broken, self.converted, str(folder))
        split = _split(folder, files)
        data = as_dataset(found, held_out=split)
        if self.levels is not None:
            data = replace(data, levels=self.levels)
        return _classified(data, folder, [files[i] for i in found.places], split is not None) if self.classes else data

    def _as_asked(self, data: Dataset) -> Dataset:
        """An array, unless it was to be another. (3 channels are usual, and no wish.)"""
        channels, height, width = data.shape
        if (self.size or width, self.size or height, self.crop) != (width, height, None) or self.channels < channels:
            raise DataError(
                f"{self.path}: has images of {width}×{height} pixels and {counted(channels, 'channel')}; "
                "arrays are taken as they are: leave out size, crop and channels, or convert it yourself"
            )
        return data


def image_files(folder: Path) -> list[Path]:
    """Every file under the folder that is not hidden, in an order that does not depend on the file system."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.name not in _NO_IMAGES)
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _classified(data: Dataset, folder: Path, files: list[Path], split: bool) -> Dataset:
    """The set with the folders of its files for classes, below those that are the split."""
    places = ["/".join(f.relative_to(folder).parts[1 if split else 0 : -1]) or "." for f in files]
    names = tuple(sorted(set(places)))
    number = {name: i for i, name in enumerate(names)}
    return replace(data, labels=torch.tensor([number[place] for place in places]), class_names=names)


def _split(folder: Path, files: list[Path]) -> list[bool] | None:
    """Which files are held out, where the folder says so."""
    tops = [f.relative_to(folder).parts[0] for f in files]
    sides = {_SPLITS.get(top) for top in tops}
    return [_SPLITS[top] for top in tops] if sides == {True, False} else None
