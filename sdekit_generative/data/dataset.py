"""A set of images as every other module sees it: levels as uint8 until they reach the device.

Notation: N images of shape (C, H, W); levels L, so that every value is an integer in [0, L).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdekit.random import KeyedDraws, Purpose

from ..errors import DataError

_SPLIT_SEED = 0  # fixed, so that "held-out" means the same images in every run, script and table
_HELD_OUT = 1 / 6
LARGE = 2 << 30  # bytes from which a set is not copied, and only a sample of it compared
_COMPARED = 4096


def check_images(images: object) -> None:
    """Raise DataError unless images are uint8 `(N, C, H, W)`, and there are some."""
    if not isinstance(images, Tensor) or images.device.type == "meta":
        raise DataError(f"images: expected a tensor uint8 (N, C, H, W) with values, got {type(images).__name__}")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(f"images: expected uint8 (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}")
    if images.numel() == 0:
        raise DataError(f"images: there are none, got shape {tuple(images.shape)}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and, where there are any, their labels.

    images  uint8 `(N, C, H, W)`, values in [0, levels)
    levels  number of grey levels a channel: 17 for the digits, 256 for ordinary images
    labels  int64 `(N,)`, or None
    held_out  which images the source itself holds out, bool `(N,)`; None where it does not say
    class_names  what the classes 0, 1, … are called; empty where that is not known

    Raises DataError where the parts do not fit together.
    """

    images: Tensor
    levels: int = 256
    labels: Tensor | None = None
    held_out: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_images(self.images)
        if not 2 <= self.levels <= 256 or (self.levels < 256 and int(self.images.max()) >= self.levels):
            raise DataError(
                f"levels: expected 2 to 256 and above the largest value {int(self.images.max())}, got {self.levels}"
            )
        for name, kind in (("labels", torch.int64), ("held_out", torch.bool)):
            given = getattr(self, name)
            if given is not None and (
                not isinstance(given, Tensor) or given.dtype != kind or given.device.type == "meta"
            ):
                got = f"{given.dtype} on {given.device}" if isinstance(given, Tensor) else type(given).__name__
                raise DataError(f"{name}: expected a tensor {kind} (N,), got {got}")
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise DataError(f"labels: expected one an image ({len(self.images)}), got shape {tuple(self.labels.shape)}")
        if self.held_out is not None and self.held_out.shape != self.images.shape[:1]:
            raise DataError(f"held_out: expected one an image ({len(self.images)}), got {tuple(self.held_out.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def select(self, index: Tensor) -> Dataset:
        """The images at the given places, in that order."""
        return self._part(index)

    def split(self) -> tuple[Dataset, Dataset]:
        """(train, held-out): as the source has it, or else five sixths and one sixth, drawn with a fixed seed.

        Images that are mapped from a large file stay there: of those, the last sixth is held out.
        """
        if self.held_out is not None:
            count = int(self.held_out.sum())
            if count in (0, len(self)):
                raise DataError(
                    f"held_out: expected some images that are held out and some not, got {count} of {len(self)}"
                )
            return self.select((~self.held_out).nonzero()[:, 0]), self.select(self.held_out.nonzero()[:, 0])
        held_out = max(1, round(len(self) * _HELD_OUT))
        if held_out >= len(self):
            raise DataError(f"images: {len(self)} are too few to hold any out; 2 or more are needed")
        if self.images.nbytes > LARGE:
            return self._part(slice(None, -held_out)), self._part(slice(-held_out, None))
        order = permutation(len(self), seed=_SPLIT_SEED, epoch=0)
        return self.select(order[held_out:].sort().values), self.select(order[:held_out].sort().values)

    def _part(self, places: Tensor | slice) -> Dataset:
        labels = None if self.labels is None else self.labels[places]
        return Dataset(self.images[places], self.levels, labels, class_names=self.class_names)

    def fingerprint(self, labelled: bool = False) -> str:
        """SHA-256 of shape, levels and values: tells whether a run goes on with the images it began with.

        Of sets of more than 2 GiB, some four thousand images stand for all. labelled: whether labels count, too.
        """
        if not labelled or self.labels is None:
            return self._fingerprint
        return hashlib.sha256(self._fingerprint.encode() + self.labels.numpy().tobytes()).hexdigest()

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.levels}".encode())
        every = max(1, len(self) // _COMPARED) if self.images.nbytes > LARGE else 1
        digest.update(self.images[::every].contiguous().numpy().tobytes())
        return digest.hexdigest()


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """An order of n images as a function of (seed, epoch) alone: int64 `(n,)`."""
    keys = KeyedDraws(seed).uniform(Purpose.DATA, epoch, (n,), torch.float64, torch.device("cpu"))
    return keys.argsort(stable=True)
