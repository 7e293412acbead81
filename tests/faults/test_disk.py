"""A disk that is full, or cannot be written to, at any moment: one line says so, and what was there before is kept."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdekit_generative.cli import main
from sdekit_generative.files import as_json
from sdekit_generative.recipes import Recipe, encode, override
from sdekit_generative.training import checkpoint

from .runs import commanded, differences, in_a_child, train, undisturbed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def recipe(tiny: Recipe) -> Recipe:
    changes = {"steps": "3", "batch": "4", "save_every": "1", "keep": "1", "power_ema": "[0.1]", "snapshot_every": "2"}
    small = {"network.multipliers": "[1]", "network.attention": "[]"}
    return override(tiny, small | {f"training.{name}": value for name, value in changes.items()})


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), recipe)[0]


def _training(folder: Path, recipe: Recipe) -> list[str]:
    """What one types to train; the recipe is kept beside the run."""
    if (folder / "recipe.json").exists():
        return ["train", "--resume", str(folder), "--threads=1"]
    file = folder.with_name("mine.json")
    file.write_bytes(as_json(encode(recipe)))
    return ["train", str(file), "--out", str(folder), "--threads=1"]


def _refusal(said: str) -> str:
    """The one line of a command that failed."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("sdekit-generative: error: ")]
    assert len(lines) == 1, said
    return lines[0]


# --- injected: the k-th call of a kind fails ---------------------------------------------------------------------------

CALLS: dict[str, tuple[Any, str]] = {
    "write": (os, "write"),  # stands for writing into a file, which no module can replace
    "flush": (os, "fsync"),
    "rename": (Path, "rename"),
    "replace": (Path, "replace"),
    "make a folder": (Path, "mkdir"),
    "remove": (shutil, "rmtree"),
}


class _Full:
    """A file on a disk that is full."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, content: bytes) -> int:
        self._stream.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _failing(kind: str, k: int) -> Iterator[list[int]]:
    """Inside, the k-th call of a kind finds the disk full; yields the calls so far."""
    owner, name = (Path, "open") if kind == "write" else CALLS[kind]
    call, calls = getattr(owner, name), [0]

    def limited(*arguments: Any, **more: Any) -> Any:
        counts = kind != "write" or ("w" in more.get("mode", (*arguments, "r")[1]) and ".lock" not in str(arguments[0]))
        calls[0] += counts
        if not counts or calls[0] != k:
            return call(*arguments, **more)
        if kind == "write":
            return _Full(call(*arguments, **more))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, limited)
        yield calls


def _full_at(kind: str, k: int, folder: Path, recipe: Recipe, whole: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether training met a full disk at the k-th call; what is left must be good to go on from, to the same end."""
    command = _training(folder, recipe)
    with _failing(kind, k) as calls:
        status = main(command)
    said = capsys.readouterr().err
    met = calls[0] >= k
    if not met:
        assert status == 0, said
    elif status:
        assert status == 2
        assert "No space left on device" in _refusal(said)
        assert str(folder) in said
    for kept in checkpoint.folders(folder / "checkpoints"):
        checkpoint.read(kept)
    assert main(_training(folder, recipe)) == 0, capsys.readouterr().err
    assert differences(folder, whole) == []
    capsys.readouterr()
    return met


@pytest.mark.parametrize(("kind", "k"), [("write", 3), ("flush", 8), ("rename", 2), ("replace", 1), ("remove", 2)])
def test_a_disk_that_is_full_once_costs_a_line_and_nothing_else(kind, k, recipe, whole, tmp_path, capsys):
    assert _full_at(kind, k, tmp_path / "run", recipe, whole, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CALLS)
def test_a_disk_that_is_full_at_any_call_costs_a_line_and_nothing_else(kind, recipe, whole, tmp_path, capsys):
    met = [k for k in range(1, 41) if _full_at(kind, k, tmp_path / f"run-{k}", recipe, whole, capsys)]
    assert met == list(range(1, len(met) + 1))
    assert len(met) >= 2
    print(kind, len(met))  # noqa: T201


# --- real: files of more than so many bytes cannot be written ----------------------------------------------------------


def _limited(size: int, arguments: list[str], said: Path) -> int:
    said.touch()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return commanded(arguments, said)


@pytest.mark.parametrize("size", [300, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2000, 20_000, 60_000))])
def test_files_that_grow_too_large_cost_a_line_and_nothing_else(size, recipe, whole, tmp_path):
    folder, said = tmp_path / "run", tmp_path / "said"
    status = in_a_child(partial(_limited, size, _training(folder, recipe), said))
    assert status == 2
    if size >= 300:  # else there is no room for what is said, either
        assert "File too large" in _refusal(said.read_text())
    for kept in checkpoint.folders(folder / "checkpoints"):
        checkpoint.read(kept)
    train(folder, recipe)
    assert differences(folder, whole) == []


WRITERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "sample": lambda run, out: ["sample", str(run), "--n=2", "--steps=24", f"--out={out}/o.png"],
    "convert": lambda run, out: ["data", "convert", str(run.parent / "a.npz"), f"{out}/o.npy"],
    "convert to an archive": lambda run, out: ["data", "convert", str(run.parent / "a.npz"), f"{out}/o.npz"],
    "statistics": lambda run, out: ["data", "statistics", "digits", f"--out={out}/o.npz"],
    "export": lambda run, out: ["export", str(run), f"--out={out}/o.safetensors"],
    "check": lambda run, out: ["data", "check", str(run.parent / "a.npz"), f"--write={out}/o.json"],
    "evaluate": lambda run, out: [
        "evaluate",
        str(run),
        "--metric=fid",
        "--images=4",
        "--sampler=fast",
        f"--out={out}/e",
    ],
}


SHORT = ("sample", "convert", "export")


@pytest.mark.parametrize("command", [c if c in SHORT else pytest.param(c, marks=pytest.mark.slow) for c in WRITERS])
def test_commands_that_cannot_write_leave_no_half_of_a_file(command, tiny_run, tmp_path):
    run, out, said = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "out", tmp_path / "said"
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).integers(0, 17, (60, 8, 8), dtype=np.uint8), levels=17)
    out.mkdir()
    arguments = WRITERS[command](run, out)
    status = in_a_child(partial(_limited, 1000, arguments, said))
    assert status == 2, said.read_text()
    assert str(out) in _refusal(said.read_text())
    left = [f.name for f in out.rglob("*") if f.is_file() and f.name not in (".lock", "plan.json")]
    assert left == []
    assert main(arguments) == 0  # and nothing is in the way of another try
    if command == "convert":
        assert sorted(np.load(out / "o.npy").reshape(60, -1).sum(1)) == sorted(
            np.load(tmp_path / "a.npz")["images"].reshape(60, -1).sum(1)
        )


# --- places that cannot be written to ----------------------------------------------------------------------------------


def test_a_file_in_place_of_a_folder_is_named(tmp_path, tiny_run, capsys):
    (tmp_path / "file").write_text("mine")
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for command in (
        ["train", "digits", "--steps=1", "--out", f"{tmp_path}/file"],
        ["train", "digits", "--steps=1", "--out", f"{tmp_path}/file/run"],
        ["sample", str(run), "--n=1", "--sampler=fast", "--out", f"{tmp_path}/file/o.png"],
        ["export", str(run), "--out", f"{tmp_path}/file/o.safetensors"],
        ["data", "convert", f"{tmp_path}/file", f"{tmp_path}/o.npy"],
        ["sample", f"{tmp_path}/file"],
    ):
        assert main(command) == 2
        assert f"{tmp_path}/file" in _refusal(capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount")
def test_a_folder_that_can_only_be_read_is_named_and_can_be_sampled_from(tmp_path, tiny_run, capsys):
    place = tmp_path / "disk"
    shutil.copytree(tiny_run, place / "run")
    if subprocess.run(["mount", "--bind", place, place], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True, capture_output=True)
        for command in (
            ["train", "digits", "--steps=1", "--out", f"{place}/new"],
            ["train", "--resume", f"{place}/run", "--steps=20"],
            ["sample", f"{place}/run", "--n=1", "--sampler=fast"],
        ):
            assert main(command) == 2
            said = _refusal(capsys.readouterr().err)
            assert "Read-only file system" in said
            assert str(place) in said
        assert main(["sample", f"{place}/run", "--n=1", "--sampler=fast", "--out", f"{tmp_path}/o.png"]) == 0
    finally:
        subprocess.run(["umount", place], check=True)


def test_two_processes_cannot_train_one_run(recipe, whole, tmp_path, capsys):
    folder, longer = tmp_path / "run", override(recipe, {"training.steps": "100000"})
    child = os.fork()
    if child == 0:
        try:
            train(folder, longer)
        finally:
            os._exit(1)
    try:
        while not ((folder / "log.jsonl").exists() and (folder / "log.jsonl").stat().st_size):
            time.sleep(0.01)
        assert main(["train", "--resume", str(folder), "--threads=1"]) == 2
        assert "another process is training" in _refusal(capsys.readouterr().err)
        assert main(["train", "digits", "--out", str(folder)]) == 2
        assert "holds another run" in _refusal(capsys.readouterr().err)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert torch.isfinite(checkpoint.read(checkpoint.latest(folder / "checkpoints")).tensors["ema"]["leave.bias"]).all()
