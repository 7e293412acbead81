"""Images in Parquet files, as Hugging Face distributes data sets: a column of encoded images, perhaps one of labels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .dataset import Dataset
from .decode import Fit
from .gather import Broken, Converted, as_dataset, gather, settle


@dataclass(frozen=True)
class Parquet:
    """`path` is a .parquet file, or a folder of them. Needs pyarrow.

    image, label  names of the columns; the images are encoded (PNG, JPEG, …), as bytes or as {"bytes": …}
    size, channels, crop, broken, converted  as in `Folder`

    Files named train-… and test-… (or validation-…) are the split, where there are both.
    """

    path: str = ""
    image: str = "image"
    label: str = "label"
    size: int | None = None
    channels: int = 3
    crop: int | None = None
    broken: Broken = "stop"
    converted: Converted = "keep"

    def __post_init__(self) -> None:
        Fit(self.size, self.crop, self.channels)

    def load(self) -> Dataset:
        """Raises DataError that names the file at fault, or says that pyarrow is missing."""
        if not self.path:
            raise DataError("data.path is not set: say where the .parquet files are, e.g. --set data.path=…")
        files = parquet_files(Path(self.path))
        rows = [(f"{file}, row {number}", *row, _held_out(file)) for file in files for number, row in self._rows(file)]
        fit = Fit(self.size, self.crop, self.channels)
        found = gather(((name, io.BytesIO(content)) for name, content, _, _ in rows), fit, self.converted != "skip")
        settle(found, self.broken, self.converted, self.path)
        labels = [label for _, _, label, _ in rows]
        split = [side for _, _, _, side in rows]
        known = [label for label in labels if label is not None]
        return as_dataset(
            found, known if len(known) == len(labels) else None, split if any(split) and not all(split) else None
        )

    def _rows(self, file: Path) -> Iterator[tuple[int, tuple[bytes, int | None]]]:
        """(number, (encoded image, label)) of a file."""
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise DataError("Parquet files need pyarrow; pip install 'sdekit[parquet]'") from None
        try:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            if self.image not in names:
                raise DataError(f"{file}: there is no column {self.image}; there are {', '.join(names)}")
            columns = [name for name in (self.image, self.label) if name in names]
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=columns):
                for row in batch.to_pylist():
                    yield number, (_bytes(row[self.image], file, number), _label(row.get(self.label), file, number))
                    number += 1
        except DataError:
            raise
        except Exception as problem:  # pyarrow raises a dozen kinds for a file that is not what its name says
            raise DataError(f"{file}: not a readable Parquet file ({' '.join(str(problem).split())})") from None


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files at a path, sorted. Raises DataError where there are none."""
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file")
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: there are no .parquet files in it")
    return files


def _held_out(file: Path) -> bool:
    return file.name.split("-")[0].removesuffix(".parquet") in ("test", "validation", "val")


def _bytes(value: Any, file: Path, number: int) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{file}, row {number}: expected an encoded image, got {type(content).__name__}")
    return content


def _label(value: Any, file: Path, number: int) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise DataError(f"{file}, row {number}: expected a whole number for a label, got {value!r}")
    return value
