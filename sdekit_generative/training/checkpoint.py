"""Checkpoints: a folder of safetensors and JSON that is either whole and verified, or refused by name.

    step-00000800/
        model.safetensors  ema.safetensors  optimizer.safetensors     tensors by name
        state.json                                                   everything that is not a tensor
        manifest.json                                                SHA-256 of each of the files above

safetensors does not notice flipped bits, hence the manifest; it is itself compared with its canonical form, so that no
byte of the folder can change unnoticed. Nothing here can run code: there is no pickle.

A checkpoint is written into a hidden folder, flushed to the disk and renamed: an interruption at any instant leaves
either the whole checkpoint or none, and the older ones are removed only afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError

_FORMAT = 1
_STATE, _MANIFEST, _TENSORS = "state.json", "manifest.json", ".safetensors"
_PREFIX, _HIDDEN = "step-", ".writing-"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run needs to go on: groups of named tensors ("model", "ema", …) and a record of plain JSON values."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def as_json(value: Any) -> bytes:
    """The one way in which this package writes JSON."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def folders(root: Path) -> list[Path]:
    """The checkpoints under root, oldest first."""
    found = [f for f in root.glob(f"{_PREFIX}*") if f.is_dir() and f.name[len(_PREFIX) :].isdigit()]
    return sorted(found, key=lambda f: int(f.name[len(_PREFIX) :]))


def latest(root: Path) -> Path:
    """The newest checkpoint under root. Raises CheckpointError where there is none."""
    found = folders(root)
    if not found:
        raise CheckpointError(f"{root}: there is no checkpoint in it")
    return found[-1]


# --- writing ----------------------------------------------------------------------------------------------------------


def write(root: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write root/step-… and then remove all but the newest `keep`. Raises CheckpointError; the old ones then stay."""
    target, hidden = root / f"{_PREFIX}{step:08d}", root / f"{_HIDDEN}{step:08d}"
    if target.exists() and _is_whole(target):
        return target
    contents = {f"{name}{_TENSORS}": safetensors.torch.save(dict(group)) for name, group in checkpoint.tensors.items()}
    contents[_STATE] = as_json(checkpoint.state)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[_MANIFEST] = as_json({"files": digests, "format": _FORMAT})
    try:
        _remove_unfinished(root)
        hidden.mkdir(parents=True)
        for name, content in contents.items():
            _write_through(hidden / name, content)
        _flush_folder(hidden)
        if target.exists():  # not whole, or it would have been returned above
            shutil.rmtree(target)
        hidden.rename(target)
        _flush_folder(root)
        for old in folders(root)[:-keep]:
            shutil.rmtree(old)
    except OSError as problem:
        shutil.rmtree(hidden, ignore_errors=True)
        raise CheckpointError(
            f"{target}: could not be written ({problem.strerror or problem}); the checkpoints before it are kept"
        ) from problem
    return target


def _remove_unfinished(root: Path) -> None:
    for leftover in root.glob(f"{_HIDDEN}*"):
        shutil.rmtree(leftover)


def _write_through(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets one open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(file: Path, content: bytes) -> None:
    """Write a single file so that an interruption leaves the old content or the new, never a part."""
    hidden = file.with_name(f"{_HIDDEN}{file.name}")
    _write_through(hidden, content)
    hidden.replace(file)
    _flush_folder(file.parent)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Checkpoint:
    """A checkpoint, every byte verified. Raises CheckpointError that names the file at fault."""
    digests = _read_manifest(folder)
    present = {f.name for f in folder.iterdir()} - {_MANIFEST}
    for name in sorted(present ^ set(digests)):
        raise CheckpointError(f"{folder / name}: {'missing' if name in digests else 'not part of this checkpoint'}")
    tensors: dict[str, dict[str, Tensor]] = {}
    state: dict[str, Any] | None = None
    for name, digest in digests.items():
        content = _read_file(folder / name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise CheckpointError(f"{folder / name}: truncated or altered (its SHA-256 is not the one written with it)")
        if name == _STATE:
            state = _parse(folder / name, content)
        elif name.endswith(_TENSORS):
            tensors[name.removesuffix(_TENSORS)] = _load_tensors(folder / name, content)
        else:
            raise CheckpointError(f"{folder / name}: a kind of file that checkpoints do not have")
    if state is None:
        raise CheckpointError(f"{folder / _STATE}: missing")
    return Checkpoint(tensors, state)


def _is_whole(folder: Path) -> bool:
    try:
        read(folder)
    except CheckpointError:
        return False
    return True


def _read_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as problem:
        raise CheckpointError(f"{file}: cannot be read ({problem.strerror or problem})") from None


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
