"""Files that are whole or not there: written aside, flushed to the disk, and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HIDDEN = ".writing-"


def as_json(value: Any) -> bytes:
    """The one way in which this package writes JSON."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_through(file: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets one open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Inside, an OSError names the file: what is written to an open one, or flushed, fails without."""
    try:
        yield
    except OSError as problem:
        if problem.errno is not None:
            problem.filename = str(file)
        raise


@contextmanager
def aside(file: Path) -> Iterator[Path]:
    """Where to write a file: it takes its place when it is whole and on the disk, and goes where anything is in the way.

    So an interruption, or a full disk, leaves the old content or the new, never a part. An OSError names the file.
    """
    hidden = file.with_name(f"{HIDDEN}{file.name}")
    with naming(file):
        try:
            yield hidden
            with hidden.open("rb") as stream:
                os.fsync(stream.fileno())
            hidden.replace(file)
        except BaseException:
            with suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise
        flush_folder(file.parent)


def replace_file(file: Path, content: bytes) -> None:
    """Write a single file, whole or not at all."""
    with aside(file) as hidden:
        hidden.write_bytes(content)
