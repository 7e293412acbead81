"""Files that are whole or not there: written aside, flushed to the disk, and renamed."""

from __future__ import annotations

import json
import os
from contextlib import suppress
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


def replace_file(file: Path, content: bytes) -> None:
    """Write a single file so that an interruption, or a full disk, leaves the old content or the new, never a part."""
    hidden = file.with_name(f"{HIDDEN}{file.name}")
    try:
        write_through(hidden, content)
        hidden.replace(file)
    except OSError:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
        raise
    flush_folder(file.parent)
