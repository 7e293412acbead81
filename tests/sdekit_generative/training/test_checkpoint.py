import errno
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from sdekit_generative.errors import CheckpointError
from sdekit_generative.files import as_json
from sdekit_generative.training import Checkpoint, checkpoint


@pytest.fixture
def sample() -> Checkpoint:
    torch.manual_seed(0)
    tensors = {
        "model": {
            "a": torch.randn(3, 4),
            "b": torch.randn(2, 3, 3, 3).to(memory_format=torch.channels_last).contiguous(),
        },
        "optimizer": {"a/step": torch.tensor(7.0), "a/exp_avg": torch.randn(3, 4)},
    }
    return Checkpoint(tensors, {"steps_done": 7, "name": "déjà vu", "none": None, "third": 1 / 3})


def test_what_is_written_is_read_back_bit_for_bit(tmp_path, sample):
    back = checkpoint.read(checkpoint.write(tmp_path, 7, sample, keep=3))
    assert back.state == sample.state
    assert {g: set(t) for g, t in back.tensors.items()} == {g: set(t) for g, t in sample.tensors.items()}
    for group, tensors in sample.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(back.tensors[group][name], tensor)


def test_only_the_newest_are_kept_and_the_newest_is_found_by_number(tmp_path, sample):
    for step in (8, 9, 10, 100):
        checkpoint.write(tmp_path, step, sample, keep=2)
    assert [f.name for f in checkpoint.folders(tmp_path)] == ["step-00000010", "step-00000100"]
    assert checkpoint.latest(tmp_path).name == "step-00000100"
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.latest(tmp_path / "elsewhere")


def _mutations(content: bytes, rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(content))
    flipped = bytearray(content)
    flipped[place] ^= 1 << rng.randrange(8)
    zeroed = bytearray(content)
    zeroed[place : place + 16] = bytes(len(zeroed[place : place + 16]))
    header = bytearray(content)
    header[0] ^= 0xFF
    return [bytes(flipped), bytes(zeroed), bytes(header), content[:place], b"", content + b" ", content + content]


def _refusal(folder: Path) -> str:
    """What reading says against a folder; nothing, if it is taken."""
    try:
        checkpoint.read(folder)
    except CheckpointError as problem:
        return str(problem)
    return ""


def test_no_altered_byte_of_any_file_goes_unnoticed(tmp_path, sample):
    folder = checkpoint.write(tmp_path, 7, sample, keep=3)
    rng, silent, tried = random.Random(0), [], 0
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for _ in range(15):
            for mutated in _mutations(whole, rng):
                if mutated == whole:
                    continue
                tried += 1
                file.write_bytes(mutated)
                said = _refusal(folder)
                if folder.name not in said or "\n" in said:
                    silent.append((file.name, said))
        file.write_bytes(whole)
    assert tried > 300
    assert silent == []
    checkpoint.read(folder)


def test_a_missing_file_and_a_foreign_file_are_named(tmp_path, sample):
    folder = checkpoint.write(tmp_path, 7, sample, keep=3)
    (folder / "extra.bin").touch()
    with pytest.raises(CheckpointError, match=r"extra\.bin: not part"):
        checkpoint.read(folder)
    (folder / "extra.bin").unlink()
    for name in ("model.safetensors", "state.json", "manifest.json"):
        (folder / name).rename(folder / "aside")
        shutil.move(folder / "aside", tmp_path / "aside")
        with pytest.raises(CheckpointError, match=name):
            checkpoint.read(folder)
        shutil.move(tmp_path / "aside", folder / name)


def test_a_manifest_cannot_point_outside_its_folder_or_name_other_kinds_of_files(tmp_path, sample):
    folder = checkpoint.write(tmp_path, 7, sample, keep=3)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in ("../../etc/passwd", "/etc/passwd", "weights.pkl"):
        forged = {**manifest, "files": {**manifest["files"], name: "0" * 64}}
        (folder / "manifest.json").write_bytes(as_json(forged))
        with pytest.raises(CheckpointError):
            checkpoint.read(folder)


def test_a_checkpoint_of_another_format_is_refused_by_its_number(tmp_path, sample):
    folder = checkpoint.write(tmp_path, 7, sample, keep=3)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(as_json({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="format 2"):
        checkpoint.read(folder)


def _failure(root: Path, step: int, sample: Checkpoint) -> str:
    """What writing says, where it fails."""
    try:
        checkpoint.write(root, step, sample, keep=1)
    except CheckpointError as problem:
        return str(problem)
    return ""


FAILING = {
    "fsync": (os, "fsync"),
    "open a folder": (os, "open"),
    "open a file": (Path, "open"),
    "mkdir": (Path, "mkdir"),
    "rename": (Path, "rename"),
    "remove": (shutil, "rmtree"),
}


@pytest.mark.parametrize("failing", FAILING)
def test_a_full_disk_at_any_point_leaves_the_old_checkpoint_usable(tmp_path, sample, monkeypatch, failing):
    """The k-th call of each kind fails, for every k that a save makes."""
    root = tmp_path / "checkpoints"
    checkpoint.write(root, 1, sample, keep=1)
    failures = 0
    for k in range(12):
        calls = 0
        owner, name = FAILING[failing]
        original = getattr(owner, name)

        def limited(*args, k=k, original=original, **kwargs):
            nonlocal calls
            writing = failing != "open a file" or (args[1:] or ("r",))[0].startswith("w")
            calls += writing
            if writing and calls == k + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, limited)
            said = _failure(root, 2 + k, sample)
        failures += "No space left" in said
        assert bool(said) == (calls > k)
        checkpoint.read(checkpoint.latest(root))
        checkpoint.write(root, 100 + k, sample, keep=1)
        assert not list(root.glob(".writing-*"))
        shutil.rmtree(root / f"step-{100 + k:08d}")
        checkpoint.write(root, 2 + k, sample, keep=1)
    assert failures >= 1


class _Full:
    """A file that takes so many bytes and no more."""

    def __init__(self, stream, room: int) -> None:
        self._stream, self._room = stream, room

    def write(self, content: bytes) -> int:
        taken = content[: self._room]
        self._stream.write(taken)
        if len(taken) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(content)

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self._stream.close()

    def __getattr__(self, name):
        return getattr(self._stream, name)


@pytest.mark.parametrize("which", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_disk_that_fills_up_in_the_middle_of_a_file_leaves_the_old_checkpoint_usable(
    tmp_path, sample, monkeypatch, which
):
    checkpoint.write(tmp_path, 1, sample, keep=1)
    original = Path.open

    def limited(self, mode="r", **more):
        stream = original(self, mode, **more)
        return _Full(stream, 20) if self.name == which and "w" in mode else stream

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", limited)
        assert "No space left on device" in _failure(tmp_path, 2, sample)
    assert [f.name for f in tmp_path.iterdir()] == ["step-00000001"]
    checkpoint.read(checkpoint.latest(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_really_full_disk_leaves_the_old_checkpoint_usable(tmp_path, sample):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        checkpoint.write(disk, 1, sample, keep=1)
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
        assert "No space left on device" in _failure(disk, 2, sample)
        assert sorted(f.name for f in disk.iterdir()) == ["ballast", "step-00000001"]
        checkpoint.read(checkpoint.latest(disk))
        (disk / "ballast").unlink()
        checkpoint.write(disk, 2, sample, keep=1)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_leftovers_of_a_killed_save_are_cleared_and_never_read(tmp_path, sample):
    leftover = tmp_path / ".writing-00000003"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert checkpoint.folders(tmp_path) == []
    checkpoint.write(tmp_path, 4, sample, keep=3)
    assert not leftover.exists()


def test_saving_the_same_step_again_mends_a_broken_checkpoint(tmp_path, sample):
    folder = checkpoint.write(tmp_path, 7, sample, keep=3)
    (folder / "model.safetensors").write_bytes(b"broken")
    checkpoint.write(tmp_path, 7, sample, keep=3)
    checkpoint.read(folder)
