"""The bundled default data: the UCI optical handwritten digits, 1,797 real images of 8 × 8 pixels and 17 grey levels.

Source and licence are stated in SOURCE.txt beside the archive.

Reference: Alpaydin, Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
import torch

from .dataset import Dataset

LEVELS = 17


@dataclass(frozen=True)
class Digits:
    """The bundled digits: images `(1797, 1, 8, 8)`, 17 levels, labels 0 to 9."""

    def load(self) -> Dataset:
        """Read them from the package."""
        with (
            as_file(files("sdekit_generative.data") / "digits.npz") as path,
            np.load(path, allow_pickle=False) as arrays,
        ):
            images = torch.from_numpy(arrays["images"])[:, None]
            labels = torch.from_numpy(arrays["labels"]).long()
        return Dataset(images, LEVELS, labels)
