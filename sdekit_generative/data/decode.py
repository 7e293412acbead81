"""One encoded image to pixels, or a word on why not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError

MODES = {1: "L", 3: "RGB"}
_SPOKEN = {
    "L": "grey",
    "RGB": "colour",
    "RGBA": "transparent",
    "LA": "transparent grey",
    "P": "a palette",
    "1": "two-tone",
}
_MOVING, _FIRST = ("GIF", "PNG", "WEBP", "AVIF"), "an animation, of which the first picture"
_WIDE = ("I", "F")  # 32 bits a pixel, of unknown range


@dataclass(frozen=True)
class Fit:
    """How images are made to fit: cut to the central `crop` pixels, then to the central square, then resized.

    size      pixels a side; None leaves images as they are
    crop      pixels a side of the central square that is kept of each image before; None for the largest there is
    channels  3 for colour, 1 for grey
    """

    size: int | None = None
    crop: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels not in MODES:
            raise ValueError(f"channels: expected 1 (grey) or 3 (colour), got {self.channels}")
        for name in ("size", "crop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a number of pixels, got {value}")

    @property
    def smallest(self) -> int:
        """The shortest side that an image may have: half of what it is to become."""
        return 1 if self.size is None else max(1, self.size // 2)


def read_image(file: Path | IO[bytes], name: str, fit: Fit) -> tuple[np.ndarray, str | None]:
    """(pixels, what it was converted from): uint8 `(C, H, W)`, and None where nothing had to be converted.

    Raises DataError that names the image.
    """
    image, was = _open(file, name, MODES[fit.channels])
    width, height = image.size
    if min(width, height) < fit.smallest:
        raise DataError(f"{name}: {width}×{height} pixels, too small to become {fit.size}×{fit.size}")
    if fit.crop is not None:
        image = _centre(image, min(fit.crop, width), min(fit.crop, height))
    if fit.size is not None:
        edge = min(image.size)
        image = _centre(image, edge, edge).resize((fit.size, fit.size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), was


def _open(file: Path | IO[bytes], name: str, mode: str) -> tuple[Image.Image, str | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats()) as opened:
                moving = opened.format in _MOVING and getattr(opened, "is_animated", False)
                image, was = _converted(ImageOps.exif_transpose(opened), name, mode)
                return image, _FIRST if moving else was
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name}: too large to be opened safely; scale it down first") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, MemoryError) as problem:
        raise DataError(f"{name}: a damaged image ({' '.join(str(problem).split())})") from None


@cache
def _formats() -> tuple[str, ...]:
    """All that Pillow reads by itself: for PostScript it would start another program on what is in the file."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _converted(image: Image.Image, name: str, mode: str) -> tuple[Image.Image, str | None]:
    if image.mode == mode:
        image.load()
        return image, None
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint16) >> 8
        return Image.fromarray(wide.astype(np.uint8)).convert(mode), "16 bits"
    if image.mode in _WIDE:
        raise DataError(f"{name}: 32 bits a pixel, of which the range is unknown; convert it to 8 bits first")
    return image.convert(mode), _SPOKEN.get(image.mode, image.mode)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
