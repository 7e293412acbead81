"""Long work in chunks on disk: shared out over processes, and gone on with after an interruption of any kind.

Items 0 … total − 1 are made in chunks of `size`; chunk k holds items k·size …, and is one file, written whole or not at
all. The files are the only state: what is there is done. So it does not matter how many processes there are, nor whether
those that go on are as many as those that began.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdekit.processes import Processes

from .errors import UserError
from .files import replace_file
from .npz import unpack
from .samplers import Progress

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Chunks:
    """The chunks of one piece of work, in a folder of their own."""

    folder: Path
    total: int
    size: int

    def spans(self) -> list[range]:
        """The items of every chunk."""
        return [range(start, min(start + self.size, self.total)) for start in range(0, self.total, self.size)]

    def missing(self) -> list[range]:
        """Chunks that are still to be made."""
        return [span for span in self.spans() if not self.file(span).exists()]

    def file(self, span: range) -> Path:
        """Where a chunk is kept."""
        return self.folder / f"{span.start:08d}-{span.stop:08d}.npz"

    def write(self, span: range, arrays: Arrays) -> None:
        """Keep a chunk. Raises UserError where it cannot be written; those there are stay."""
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        file = self.file(span)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(file, stream.getvalue())
        except OSError as problem:
            raise UserError(
                f"{file}: could not be written ({problem.strerror or problem}); what is done is kept, run again to go on"
            ) from None

    def read(self, span: range) -> dict[str, np.ndarray]:
        """A chunk that was kept. Raises UserError where it is missing or damaged."""
        file = self.file(span)
        try:
            return unpack(io.BytesIO(file.read_bytes()))
        except Exception as problem:  # a damaged file may fail in any way
            why = " ".join(str(problem).split())[:150]
            raise UserError(f"{file}: damaged ({why}); remove it and run again to make it anew") from None

    def each(self) -> Iterator[dict[str, np.ndarray]]:
        """All chunks in their order."""
        return (self.read(span) for span in self.spans())

    def make(
        self, make: Callable[[range, Progress], Arrays], group: Processes, progress: Progress | None = None
    ) -> None:
        """Make what is missing, each process its part; returns when all is there.

        make      `(items, progress within the chunk) → arrays`; what it makes of a chunk must not depend on the process
        progress  called with the fraction of this process's part

        Raises on every process what went wrong on one.
        """
        report = progress or (lambda fraction: None)
        missing: list[range] = group.gather(self.missing() if group.leads else None)[0]
        mine = missing[group.rank :: group.size]
        with group.together():
            for done, span in enumerate(mine):
                self.write(span, make(span, lambda part, done=done: report((done + part) / len(mine))))
            report(1.0)
        with group.together():
            if group.leads and self.missing():
                raise UserError(
                    f"{self.file(self.missing()[0])}: made by another process, but not to be seen here; "
                    "let all processes write to one shared folder"
                )
