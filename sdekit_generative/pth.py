"""Files of torch's own format, read without running anything that may be in them."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_pth(path: Path) -> Any:
    """What is in a .pth file: tensors, numbers, text, and collections of them.

    Raises whatever a damaged file, or one that asks for code to be run, comes to.
    """
    if path.exists() and not path.is_file():  # a pipe or a device would be read for ever
        raise ValueError("not a file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles that torch does not expect: they are refused or they are read
        if zipfile.is_zipfile(path):  # files of torch before 1.6 are not, and have no checksums
            with zipfile.ZipFile(path) as file:  # torch does not look at them
                if file.testzip() is not None:
                    raise ValueError("a part of it is not what its checksum says")
        return torch.load(path, map_location="cpu", weights_only=True)
