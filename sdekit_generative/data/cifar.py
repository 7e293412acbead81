"""CIFAR-10 as its authors distribute it: the archive of pickled batches, or the folder it unpacks to.

Reference: Krizhevsky (2009), "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from .dataset import Dataset
from .pickled import read_pickle

SIDE = 32
_SHAPE = (3, SIDE, SIDE)
_LARGEST = 128 << 20  # bytes of a batch; the real ones have 31 million
TRAINING, HELD_OUT = "data_batch_", "test_batch"


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10: 50,000 colour images of 32 × 32 for training, 10,000 held out, ten classes.

    path  cifar-10-python.tar.gz, or the folder cifar-10-batches-py
    """

    path: str = ""

    def load(self) -> Dataset:
        """Raises DataError that names the file at fault."""
        if not self.path:
            raise DataError("data.path is not set: say where cifar-10-python.tar.gz is, e.g. --set data.path=…")
        images, labels, held_out = [], [], []
        for name, content in sorted(_batches(Path(self.path))):
            pixels, classes = _read_batch(name, content)
            images.append(pixels)
            labels.append(classes)
            held_out.append(torch.full((len(classes),), Path(name).name == HELD_OUT))
        if not images:
            raise DataError(f"{self.path}: there are no CIFAR-10 batches in it ({TRAINING}1 …, {HELD_OUT})")
        split = torch.cat(held_out)
        return Dataset(torch.cat(images), 256, torch.cat(labels), split if split.any() and not split.all() else None)


def is_cifar(path: Path) -> bool:
    """Whether something looks like CIFAR-10 on disk."""
    return (path / f"{TRAINING}1").is_file() if path.is_dir() else path.name.endswith((".tar.gz", ".tgz", ".tar"))


def _batches(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        yield from ((str(f), f.read_bytes()) for f in path.iterdir() if _is_batch(f.name))
        return
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not (member.isfile() and _is_batch(Path(member.name).name)):
                    continue
                stream = archive.extractfile(member) if member.size <= _LARGEST else None
                if stream is None:
                    raise DataError(f"{path}: {member.name} is too large for a batch of CIFAR-10")
                yield member.name, stream.read()
    except (tarfile.TarError, EOFError, OSError) as problem:
        raise DataError(f"{path}: not a readable archive ({' '.join(str(problem).split())})") from None


def _is_batch(name: str) -> bool:
    return name == HELD_OUT or (name.startswith(TRAINING) and name.removeprefix(TRAINING).isdigit())


def _read_batch(name: str, content: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    batch = read_pickle(content, name)
    data, labels = batch.get("data"), batch.get("labels")
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072):
        raise DataError(f'{name}: expected "data" of uint8 (N, 3072)')
    if not (
        isinstance(labels, list) and len(labels) == len(data) and all(type(n) is int and 0 <= n < 10 for n in labels)
    ):
        raise DataError(f'{name}: expected "labels" from 0 to 9, one for each of {len(data)} images')
    return torch.from_numpy(data.reshape(-1, *_SHAPE).copy()), torch.tensor(labels, dtype=torch.int64)
