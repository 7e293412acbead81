"""Archives of arrays, read without trusting them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

_LARGE, _RATIO = 1 << 30, 200  # bytes, and times its own size, to which an honest archive does not unpack


def unpack(source: Path | IO[bytes]) -> dict[str, np.ndarray]:
    """The arrays of an .npz, by name; their checksums are verified, and objects are never unpickled.

    Raises ValueError where there are none, or they would fill the memory, and whatever NumPy and zipfile raise for a file
    that is not what its name says: a dozen kinds.
    """
    with zipfile.ZipFile(source) as archive:
        packed, unpacked = (
            sum(getattr(m, size) for m in archive.infolist()) for size in ("compress_size", "file_size")
        )
        if not archive.infolist():
            raise ValueError("there is nothing in it")
        if unpacked > max(_LARGE, _RATIO * packed):
            raise ValueError(f"it would unpack to {unpacked / 2**30:.0f} GiB")
    if not isinstance(source, Path):
        source.seek(0)
    with np.load(source, allow_pickle=False) as loaded:
        return dict(loaded)
