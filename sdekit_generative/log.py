"""The log of a run: rows of JSON, and the same as scalars for TensorBoard.

A checkpoint keeps the seal of the log that was written before it, so that rows which were changed, cut off or added since
do not go unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import CheckpointWarning, RunError, UserError
from .files import naming


@dataclass(frozen=True)
class Seal:
    """The first so many bytes of a log, by their SHA-256."""

    length: int
    sha256: str

    def __post_init__(self) -> None:
        if type(self.length) is not int or not isinstance(self.sha256, str):
            raise TypeError("the seal of the log is none")

    @classmethod
    def of(cls, content: bytes) -> Seal:
        return cls(len(content), hashlib.sha256(content).hexdigest())


def sealed(file: Path) -> dict[str, Any] | None:
    """The seal of a log as plain JSON values, once all of it is on the disk; None where there is no log."""
    if not file.is_file():
        return None
    with naming(file), file.open("rb") as stream:
        os.fsync(stream.fileno())
        return asdict(Seal.of(stream.read()))


def rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line cut short by an interruption is left out.

    Raises RunError that names the line which is no row.
    """
    return [row for row, _ in _lines(file, file.read_bytes() if file.is_file() else b"")]


def _lines(file: Path, content: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """(row, line) of a log."""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):  # what follows the last line break was cut short
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            raise RunError(f"{file}: line {number} is not a row of a log; move the file aside to go on without it")
        yield row, line + b"\n"


def kept(file: Path, after: int, seal: Seal | None = None) -> bytes:
    """What a log says of steps up to `after`; later ones will be done again.

    Raises RunError where that is not what was sealed. Warns (CheckpointWarning) where it says nothing.
    """
    content = file.read_bytes() if file.is_file() else b""
    whole = seal is None or Seal.of(content[: seal.length]) == seal
    said = b"".join(
        line
        for row, line in _lines(file, content[: seal.length] if seal and whole else content)
        if row["step"] <= after
    )
    if not whole and said:
        raise RunError(
            f"{file}: truncated or altered since step {after} was saved; move the file aside to go on without it"
        )
    if not whole:
        warnings.warn(f"{file}: says nothing of the steps up to {after}", CheckpointWarning, stacklevel=2)
    return said


class Logger:
    """Writes rows of JSON into an unbuffered file, and scalars for TensorBoard where there is a board."""

    def __init__(self, stream: Any, board: Any = None) -> None:
        self._stream, self._board = stream, board

    def row(self, step: int, **values: float) -> None:
        """Write a row. Raises RunError where that fails."""
        if self._stream is not None:
            line = (json.dumps({"step": step, **values}) + "\n").encode()
            try:
                while line:  # a disk that is nearly full takes a part
                    line = line[self._stream.write(line) :]
            except OSError as problem:
                raise RunError(
                    f"{self._stream.name}: could not be written ({problem.strerror or problem}); the checkpoints are kept"
                ) from None
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


@contextmanager
def board(folder: Path, after: int) -> Iterator[Any]:
    """A writer for TensorBoard that forgets what came after a step. Raises UserError where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard: needs the package tensorboard; pip install 'sdekit[tensorboard]'") from None
    with SummaryWriter(str(folder), purge_step=after + 1) as board:
        yield board
