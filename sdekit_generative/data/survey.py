"""What there is to say about a set of images before training on it.

Notation: images as points of the model's range, of width w; d(a, b) the Euclidean distance of two of them.

σ_max of variance-exploding processes is best as large as the largest distance between two images: noise of that size
carries any image into any other. It is taken over a sample, of which all pairs are looked at.

Reference: Song, Ermon (2020), "Improved techniques for training score-based generative models", technique 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from .cifar import SIDE, Cifar10, is_cifar
from .dataset import Dataset, permutation
from .gather import Broken
from .images import Folder
from .parquet import Parquet

_SAMPLE = 2000


@dataclass(frozen=True)
class Survey:
    """Facts of a set of images, in a range of width `width`.

    count, shape, levels, classes, class_names  as of the set; classes is 0 where there are no labels
    training, held_out             numbers of images
    mean, std                      of all values, of the sample
    largest_distance               between two images of the sample
    sigma_max                      that, rounded up to two digits: what VE is recommended
    """

    count: int
    shape: tuple[int, int, int]
    levels: int
    classes: int
    training: int
    held_out: int
    mean: float
    std: float
    largest_distance: float
    class_names: tuple[str, ...] = ()

    @property
    def sigma_max(self) -> float:
        """The largest distance rounded up to two digits: a σ_max for a VE process, as Song, Ermon (2020) advise."""
        unit = 10.0 ** (math.floor(math.log10(max(self.largest_distance, 1e-9))) - 1)
        return round(math.ceil(self.largest_distance / unit - 1e-9) * unit, 10)


def survey(data: Dataset, width: float = 2.0, low: float = -1.0) -> Survey:
    """Look at a set of images in the range from `low` to `low + width`."""
    training, held_out = data.split()
    chosen = permutation(len(training), seed=0, epoch=0)[:_SAMPLE].sort().values
    sample = (training.images[chosen].to(torch.float64) + 0.5) / data.levels * width + low
    classes = 0 if data.labels is None else int(data.labels.max()) + 1
    return Survey(
        count=len(data),
        shape=data.shape,
        levels=data.levels,
        classes=classes,
        training=len(training),
        held_out=len(held_out),
        mean=float(sample.mean()),
        std=float(sample.std()),
        largest_distance=largest_distance(sample.flatten(1)),
        class_names=data.class_names,
    )


def largest_distance(points: Tensor, block: int = 250) -> float:
    """max ‖a − b‖ over all pairs of rows, a block of rows at a time."""
    centred = points - points.mean(0)
    norms = centred.square().sum(1)
    largest = 0.0
    for start in range(0, len(points), block):
        part = slice(start, start + block)
        squares = norms[part, None] + norms[None] - 2.0 * centred[part] @ centred.T
        largest = max(largest, float(squares.max()))
    return math.sqrt(max(largest, 0.0))


def source_of(
    path: Path, size: int | None = None, channels: int = 3, broken: Broken = "stop", classes: bool = False
) -> Folder | Cifar10 | Parquet:
    """The source that reads what lies at a path: CIFAR-10, Parquet files, a folder of images, or an array.

    Raises DataError where CIFAR-10 was to have another size, or ValueError for values that make no sense.
    """
    if is_cifar(path):
        if size not in (None, SIDE) or channels != 3:
            raise DataError(f"{path}: CIFAR-10 is taken as it is, {SIDE}×{SIDE} in colour; leave out size and channels")
        return Cifar10(str(path))
    parquet = path.suffix == ".parquet" or (path.is_dir() and any(path.glob("**/*.parquet")))
    if parquet:
        return Parquet(str(path), size=size, channels=channels, broken=broken)
    return Folder(str(path), size=size, channels=channels, broken=broken, classes=classes)
