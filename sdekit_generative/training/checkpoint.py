"""Checkpoints: a folder of safetensors and JSON that is either whole and verified, or refused by name.

    step-00000800/
        model.safetensors  ema.safetensors  optimizer.safetensors     tensors by name
        state.json                                                   everything that is not a tensor
        manifest.json                                                SHA-256 of each of the files above

safetensors does not notice flipped bits, hence the manifest; it is itself compared with its canonical form, so that no
byte of the folder can change unnoticed. Nothing here can run code: there is no pickle.

A checkpoint is written into a hidden folder, flushed to the disk and renamed: an interruption at any instant leaves
either the whole checkpoint or none, and the older ones are removed only afterwards. Kept are the newest, and the best:
the one with the smallest `measure` in its state, where training measured any.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError
from ..files import HIDDEN, as_json, flush_folder, write_through

_FORMAT = 1
_STATE, _MANIFEST, _TENSORS = "state.json", "manifest.json", ".safetensors"
_PREFIX, _MEASURE = "step-", "measure"
_NUMBER = re.compile("[0-9]{1,18}")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run needs to go on: groups of named tensors ("model", "ema", …) and a record of plain JSON values."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def folders(root: Path) -> list[Path]:
    """The checkpoints under root, oldest first."""
    found = [f for f in root.glob(f"{_PREFIX}*") if f.is_dir() and _NUMBER.fullmatch(f.name[len(_PREFIX) :])]
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name[len(_PREFIX) :])


def latest(root: Path) -> Path:
    """The newest checkpoint under root. Raises CheckpointError where there is none."""
    found = folders(root)
    if not found:
        raise CheckpointError(f"{root}: there is no checkpoint in it")
    return found[-1]


def best(root: Path) -> Path | None:
    """The checkpoint of the smallest `measure` in its state; None where none was measured."""
    measured = [(value, folder) for folder in folders(root) if (value := _measure(folder)) is not None]
    return min(measured)[1] if measured else None


def _measure(folder: Path) -> float | None:
    try:
        value = _parse(folder / _STATE, _read_file(folder / _STATE)).get(_MEASURE)
    except CheckpointError:
        return None
    return value if isinstance(value, float) and math.isfinite(value) else None


def newest_whole(root: Path) -> tuple[Path, Checkpoint, list[str]]:
    """(folder, checkpoint, what is wrong with the newer ones): the newest checkpoint that can be read.

    Raises CheckpointError where there is none, with the reason for each.
    """
    reasons: list[str] = []
    latest(root)
    for folder in reversed(folders(root)):
        try:
            return folder, read(folder), reasons
        except CheckpointError as problem:  # noqa: PERF203
            reasons.append(str(problem))
    raise CheckpointError(f"{root}: none of its checkpoints can be used: {'; '.join(reasons)}")


# --- writing ----------------------------------------------------------------------------------------------------------


def write(root: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write root/step-…, and then remove all but the newest `keep` and the best.

    Raises CheckpointError where that fails; the older ones then stay.
    """
    target, hidden = root / f"{_PREFIX}{step:08d}", root / f"{HIDDEN}{step:08d}"
    try:
        _remove_unfinished(root)
        if not (target.exists() and _is_whole(target)):
            _write_whole(target, hidden, checkpoint)
        _prune(root, step, keep)
    except OSError as problem:
        shutil.rmtree(hidden, ignore_errors=True)
        raise CheckpointError(
            f"{target}: could not be written ({_reason(problem)}); the checkpoints before it are kept"
        ) from problem
    return target


def _write_whole(target: Path, hidden: Path, checkpoint: Checkpoint) -> None:
    contents = {f"{name}{_TENSORS}": safetensors.torch.save(dict(group)) for name, group in checkpoint.tensors.items()}
    contents[_STATE] = as_json(checkpoint.state)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[_MANIFEST] = as_json({"files": digests, "format": _FORMAT})
    hidden.mkdir(parents=True)
    for name, content in contents.items():
        write_through(hidden / name, content)
    flush_folder(hidden)
    if target.exists():  # and is broken
        shutil.rmtree(target)
    hidden.rename(target)
    flush_folder(target.parent)


def _remove_unfinished(root: Path) -> None:
    for leftover in root.glob(f"{HIDDEN}*"):
        shutil.rmtree(leftover)


def _prune(root: Path, step: int, keep: int) -> None:
    """Remove what is neither among the newest nor the best, and later ones that are broken: they will be made again."""
    found = folders(root)
    made = [f for f in found if _step(f) <= step]
    kept = {*made[-keep:], best(root)}
    gone = [f for f in made if f not in kept] + [f for f in found if _step(f) > step and not _is_whole(f)]
    for old in gone:
        aside = old.with_name(f"{HIDDEN}{old.name}")  # so that an interruption leaves no half of a checkpoint
        old.rename(aside)
        shutil.rmtree(aside)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Checkpoint:
    """A checkpoint, every byte verified. Raises CheckpointError that names the file at fault."""
    digests = _read_manifest(folder)
    present = {f.name for f in folder.iterdir()} - {_MANIFEST}
    for name in sorted(present ^ set(digests)):
        raise CheckpointError(f"{folder / name}: {'missing' if name in digests else 'not part of this checkpoint'}")
    tensors: dict[str, dict[str, Tensor]] = {}
    state: dict[str, Any] | None = None
    for name in digests:
        content = _verified(folder, name, digests)
        if name == _STATE:
            state = _parse(folder / name, content)
        elif name.endswith(_TENSORS):
            tensors[name.removesuffix(_TENSORS)] = _load_tensors(folder / name, content)
        else:
            raise CheckpointError(f"{folder / name}: a kind of file that checkpoints do not have")
    if state is None:
        raise CheckpointError(f"{folder / _STATE}: missing")
    return Checkpoint(tensors, state)


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint without its tensors, verified. Raises CheckpointError that names the file at fault."""
    return _parse(folder / _STATE, _verified(folder, _STATE, _read_manifest(folder)))


def _verified(folder: Path, name: str, digests: Mapping[str, str]) -> bytes:
    content = _read_file(folder / name)
    if hashlib.sha256(content).hexdigest() != digests.get(name):
        raise CheckpointError(f"{folder / name}: truncated or altered (its SHA-256 is not the one written with it)")
    return content


def _is_whole(folder: Path) -> bool:
    try:
        read(folder)
    except CheckpointError:
        return False
    return True


def _read_file(file: Path) -> bytes:
    try:
        if file.exists() and not file.is_file():  # a pipe or a device would be read for ever
            raise CheckpointError(f"{file}: not a file")
        return file.read_bytes()
    except (OSError, MemoryError) as problem:
        raise CheckpointError(f"{file}: cannot be read ({_reason(problem)})") from None


def _reason(problem: OSError | MemoryError) -> str:
    return getattr(problem, "strerror", None) or str(problem) or "it does not fit into memory"


def _parse(file: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file}: truncated or altered (not JSON)") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: truncated or altered (not a JSON object)")
    return value


def _read_manifest(folder: Path) -> dict[str, str]:
    file = folder / _MANIFEST
    content = _read_file(file)
    manifest = _parse(file, content)
    if as_json(manifest) != content or set(manifest) != {"files", "format"}:
        raise CheckpointError(f"{file}: altered")
    if manifest["format"] != _FORMAT:
        raise CheckpointError(f"{file}: format {manifest['format']!r}; this version reads format {_FORMAT}")
    files = manifest["files"]
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise CheckpointError(f"{file}: altered")
    return files


def _load_tensors(file: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as problem:
        raise CheckpointError(f"{file}: not a safetensors file ({problem})") from None
