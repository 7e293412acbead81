"""Folders of work that may be gone on with, as long as it is the same work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import as_json, replace_file
from .recipes import differences

_PLAN, _LOCK = "plan.json", ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the folder for this launch; the system lets go however it ends. Raises UserError where another has it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / _LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder}: another evaluation is at work there; wait for it, or choose another folder"
            ) from None
        yield


def settle(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder one of this plan, or see that it is. Raises UserError where it holds anything else."""
    plan, file = json.loads(as_json(plan)), folder / _PLAN
    if file.exists():
        try:
            held = json.loads(file.read_bytes())
        except (OSError, ValueError):
            raise UserError(f"{file}: cannot be read; remove the folder, or choose another") from None
        found = differences(held, plan)
        if found:
            place, (theirs, ours) = next(iter(found.items()))
            raise UserError(f"{folder}: holds an evaluation with {place} {theirs}, not {ours}; choose another folder")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds something else than an evaluation; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(file, as_json(plan))
    except OSError as problem:
        raise UserError(f"{folder}: cannot be written to ({problem.strerror or problem})") from None
