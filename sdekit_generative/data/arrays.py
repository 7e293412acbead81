"""Images as numpy arrays on disk: .npy and .npz."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..npz import unpack
from .dataset import LARGE, Dataset
from .decode import MODES

ARRAYS = (".npz", ".npy")
_AS_LEVELS = "values from 0 to 1 become levels by (255 * images).round().astype(numpy.uint8)"
_USUAL = (2, 4, 8, 16, 17, 32, 64)  # numbers of levels that values may give away; all else has 256


def read_array(path: Path, levels: int | None = None) -> Dataset:
    """The images of an array file. Raises DataError that names it.

    levels: None for what the file says, or else what the values show: the smallest usual number above all of them.
    A .npy file of more than 2 GiB is mapped, so that it need not fit into memory.
    """
    images, extras = _load(path)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: expected uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), got {images.dtype} {images.shape}"
            + (f"; {_AS_LEVELS}" if images.dtype != np.uint8 else "")
        )
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] in MODES:
        images = images.transpose(0, 3, 1, 2)
    elif images.shape[1] not in MODES:
        raise DataError(f"{path}: expected 1 or 3 channels, got shape {images.shape}")
    if not len(images):
        raise DataError(f"{path}: there are no images in it")
    mapped = images.nbytes > LARGE
    if not mapped:
        images = np.ascontiguousarray(images)
    labels, held_out = extras.get("labels"), extras.get("held_out")
    found = levels or _said(extras, path) or (256 if mapped else shown_levels(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory that cannot be written to, which nothing here does
        tensor = torch.from_numpy(images)
    return Dataset(
        tensor,
        found,
        None if labels is None else _as_labels(labels, path),
        None if held_out is None else _as_split(held_out, path),
    )


def _load(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    large = path.suffix == ".npy" and path.stat().st_size > LARGE
    try:
        if large:
            return np.load(path, mmap_mode="r", allow_pickle=False), {}
        if not path.is_file():  # a pipe or a device would be read for ever
            raise ValueError("not a file")
        if path.suffix == ".npy":
            with path.open("rb") as stream:
                return np.lib.format.read_array(stream, allow_pickle=False), {}
        found = unpack(path)
    except Exception as problem:  # a damaged file may fail in any way
        raise DataError(f"{path}: not a readable numpy file ({' '.join(str(problem).split())})") from None
    name = "images" if "images" in found else next(iter(found))
    if name != "images" and len(found) > 1:
        raise DataError(
            f'{path}: expected an array named "images" in it (and, where there are classes, "labels"); '
            f"there are {', '.join(found)}"
        )
    return found.pop(name), found


def _said(extras: dict[str, Any], path: Path) -> int | None:
    levels = extras.get("levels")
    if levels is None:
        return None
    if levels.shape != () or levels.dtype.kind not in "iu":
        raise DataError(f'{path}: "levels" is to be one whole number, got {levels.dtype} {levels.shape}')
    return int(levels)


def _as_labels(labels: np.ndarray, path: Path) -> torch.Tensor:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f'{path}: "labels" are to be whole numbers (N,), got {labels.dtype} {labels.shape}')
    return torch.from_numpy(labels.astype(np.int64))


def _as_split(held_out: np.ndarray, path: Path) -> torch.Tensor:
    if held_out.dtype != np.bool_ or held_out.ndim != 1:
        raise DataError(f'{path}: "held_out" is to be true or false (N,), got {held_out.dtype} {held_out.shape}')
    return torch.from_numpy(held_out)


def shown_levels(images: np.ndarray) -> int:
    """The smallest usual number of levels above every value, 256 where there is none."""
    largest = int(images.max())
    return next((levels for levels in _USUAL if levels > largest), 256)
