"""Many images into one set, with what is odd about them: what cannot be used is said by name, and left out or refused.

Odd images are of two kinds: broken (no image, damaged, too small, of another size than most) and converted (grey,
transparent or 16 bits a pixel among ordinary colour).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch

from ..errors import DataError, DataWarning, counted
from .dataset import Dataset
from .decode import Fit, read_image

Broken = Literal["stop", "skip"]
Converted = Literal["keep", "skip", "stop"]
_NAMED = 20  # how many odd images a message names


@dataclass
class Gathered:
    """Images as they come in, `(C, H, W)` each, with their names; what is odd in `broken` and `converted`."""

    pixels: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)

    def drop(self, unwanted: set[int]) -> None:
        """Leave out the images at these positions."""
        kept = [i for i in range(len(self.pixels)) if i not in unwanted]
        self.pixels, self.names = [self.pixels[i] for i in kept], [self.names[i] for i in kept]
        self.places = [self.places[i] for i in kept]


def gather(images: Iterable[tuple[str, Path | IO[bytes]]], fit: Fit, convert: bool = True) -> Gathered:
    """Read all images; those that need converting are left out where `convert` is False."""
    found = Gathered()
    for place, (name, file) in enumerate(images):
        try:
            pixels, was = read_image(file, name, fit)
        except DataError as problem:
            found.broken.append(str(problem))
            continue
        if was is not None:
            found.converted.append(f"{name} ({was})")
            if not convert:
                continue
        found.pixels.append(pixels)
        found.names.append(name)
        found.places.append(place)
    _drop_other_sizes(found)
    return found


def _drop_other_sizes(found: Gathered) -> None:
    """Without a size to be brought to, all must have the size that most have."""
    if not found.pixels:
        return
    usual = Counter(p.shape for p in found.pixels).most_common(1)[0][0]
    odd = {i for i, p in enumerate(found.pixels) if p.shape != usual}
    example = next(Path(name).name for name, p in zip(found.names, found.pixels, strict=True) if p.shape == usual)
    found.broken += [
        f"{found.names[i]}: {found.pixels[i].shape[2]}×{found.pixels[i].shape[1]} pixels, but {example} has "
        f"{usual[2]}×{usual[1]}; give a common size, e.g. --set data.size=64"
        for i in sorted(odd)
    ]
    found.drop(odd)


def settle(found: Gathered, broken: Broken, converted: Converted, where: str) -> None:
    """Refuse, or mention, what is odd. Raises DataError, or warns (DataWarning), naming the images."""
    if found.broken and broken == "stop":
        more = len(found.broken) - 1
        others = f" (and {more} more)" if more else ""
        raise DataError(
            f"{found.broken[0]}{others}; mend or remove {'them' if more else 'it'}, or leave such files out: "
            "data check --broken skip, train --set data.broken=skip"
        )
    if found.broken:
        left_out = f"{counted(len(found.broken), 'file')} left out"
        warnings.warn(f"{left_out}: {_listed(found.broken)}", DataWarning, stacklevel=3)
    if not found.converted:
        pass
    elif converted == "stop":
        raise DataError(f"{where}: images of another kind than asked for: {_listed(found.converted)}")
    else:
        done = "converted" if converted == "keep" else "left out"
        warnings.warn(
            f"{counted(len(found.converted), 'image')} {done}: {_listed(found.converted)}", DataWarning, stacklevel=3
        )
    if not found.pixels:
        raise DataError(f"{where}: not one image in it can be used")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return "; ".join(names[:_NAMED]) + (f"; and {more} more" if more > 0 else "")


def as_dataset(found: Gathered, labels: Sequence[int] | None = None, held_out: Sequence[bool] | None = None) -> Dataset:
    """The set; labels and held_out are those of all images, of which some may have been left out."""
    images = torch.from_numpy(np.stack(found.pixels))
    chosen = torch.tensor(found.places)
    return Dataset(
        images,
        labels=None if labels is None else torch.tensor(labels, dtype=torch.int64)[chosen],
        held_out=None if held_out is None else torch.tensor(held_out)[chosen],
    )
