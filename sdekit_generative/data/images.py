"""One's own images: a folder of files in any format Pillow reads, or an array on disk.

An image that cannot be used is an error that names the file and says what to do; nothing is skipped in silence.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from .dataset import Dataset

_ARRAYS = (".npz", ".npy")
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Folder:
    """Images on disk: `path` is a folder (searched with its subfolders), or a .npz or .npy file of uint8 values.

    size      every file is cropped to its central square and resized to size × size; None takes the files as they are,
              and then all must have the same size
    channels  3 for colour, 1 for grey; files are converted

    An array file holds (N, H, W), (N, H, W, C) or (N, C, H, W); a .npz holds it as "images", and may hold "labels".
    """

    path: str = ""
    size: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels not in _MODES:
            raise ValueError(f"channels: expected 1 (grey) or 3 (colour), got {self.channels}")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size: expected a number of pixels, got {self.size}")

    def load(self) -> Dataset:
        """Raises DataError that names the file at fault."""
        if not self.path:
            raise DataError("data.path is not set: say where the images are, e.g. --set data.path=images/")
        path = Path(self.path)
        if path.is_dir():
            return Dataset(torch.from_numpy(np.stack(self._read_all(path))))
        if not path.exists():
            raise DataError(f"{path}: there is no such folder or file")
        if path.suffix in _ARRAYS:
            return _read_array(path)
        raise DataError(f"{path}: expected a folder of images, or a file ending in .npz or .npy")

    def _read_all(self, folder: Path) -> list[np.ndarray]:
        files = image_files(folder)
        if not files:
            raise DataError(f"{folder}: there are no files in it")
        images = [read_image(file, _MODES[self.channels], self.size) for file in files]
        for file, image in zip(files, images, strict=True):
            if image.shape != images[0].shape:
                raise DataError(
                    f"{file}: {image.shape[2]}×{image.shape[1]} pixels, but {files[0].name} has "
                    f"{images[0].shape[2]}×{images[0].shape[1]}; give a common size, e.g. --set data.size=64"
                )
        return images


def image_files(folder: Path) -> list[Path]:
    """Every file under the folder that is not hidden, in an order that does not depend on the file system."""
    files = (f for f in folder.rglob("*") if f.is_file())
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def read_image(file: Path, mode: str, size: int | None) -> np.ndarray:
    """One image as uint8 (C, H, W); `mode` is Pillow's "L" or "RGB"."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image = image.convert(mode)
    except UnidentifiedImageError:
        raise DataError(f"{file}: not an image (remove it from the folder, or point to another folder)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{file}: too large to be opened safely; scale it down first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as problem:
        raise DataError(f"{file}: a damaged image ({' '.join(str(problem).split())})") from None
    if size is not None:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        box = (left, top, left + edge, top + edge)
        image = image.crop(box).resize((size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _read_array(path: Path) -> Dataset:
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                images, labels = loaded, None
            else:
                images, labels = loaded["images"], loaded.get("labels")
    except KeyError:
        raise DataError(f'{path}: expected an array named "images" in it') from None
    except Exception as problem:  # numpy and zipfile raise a dozen kinds for a file that is not what its name says
        raise DataError(f"{path}: not a readable numpy file ({' '.join(str(problem).split())})") from None
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: expected uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), got {images.dtype} {images.shape}"
        )
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] in _MODES:
        images = images.transpose(0, 3, 1, 2)
    elif images.shape[1] not in _MODES:
        raise DataError(f"{path}: expected 1 or 3 channels, got shape {images.shape}")
    return Dataset(
        torch.from_numpy(np.ascontiguousarray(images)),
        labels=None if labels is None else torch.from_numpy(labels).long(),
    )
