"""The log of a run: rows of JSON, and the same as scalars for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError


class Logger:
    """Writes rows of JSON, each flushed as it is written, and scalars for TensorBoard where there is a board."""

    def __init__(self, stream: Any, board: Any = None) -> None:
        self._stream, self._board = stream, board

    def row(self, step: int, **values: float) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps({"step": step, **values}) + "\n")
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
