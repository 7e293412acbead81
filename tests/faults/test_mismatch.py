"""Runs gone on with otherwise than they were begun: what differs is named, with both values, and nothing is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sdekit_generative import errors
from sdekit_generative.cli import main
from sdekit_generative.run import load
from sdekit_generative.training import Checkpoint, checkpoint

CHANGES = {
    "the network": (["network.channels=16"], "network.channels is 8", "become 16"),
    "its kind": (["network=NCSNppConfig"], "network.kind is UNetConfig", "become NCSNppConfig"),
    "dropout": (["network.dropout=0.2"], "network.dropout is 0.1", "become 0.2"),
    "the process": (["process=VE"], "process.kind is VP", "become VE"),
    "its noise": (["process.beta_max=30"], "process.beta_max is 20.0", "become 30.0"),
    "what is predicted": (["parametrisation=PredictNoise"], "parametrisation.kind is PredictVelocity", "PredictNoise"),
    "the loss": (["loss.times=UniformTime"], "loss.times.kind is FocusedNoiseLevel", "become UniformTime"),
    "the batch": (["training.batch=16"], "training.batch is 8", "become 16"),
    "the average": (["training.ema=0.99"], "training.ema is 0.999", "become 0.99"),
    "the precision": (["training.precision=bfloat16"], "training.precision is float32", "become bfloat16"),
    "the seed": (["training.seed=7"], "training.seed is 0", "become 7"),
    "the range": (["data_range.low=0"], "data_range.low is -1.0", "become 0.0"),
    "a missing average": (["training.power_ema=0.1"], "training.power_ema is []", "become [0.1]"),
}


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def _refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def _contents(folder: Path) -> dict[Path, bytes]:
    return {f: f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_half_way_is_named_with_both_values(run, capsys, what):
    changes, *words = CHANGES[what]
    before = _contents(run)
    said = _refused(capsys, "train", "--resume", run, *(f"--set={change}" for change in changes))
    assert all(word in said for word in (*words, "half-way", "--out"))
    assert _contents(run) == before


def test_other_images_are_named_by_both_fingerprints(run, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 17, (12, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, levels=17)
    begin = ["train", "digits", "--set=data=Folder", f"--set=data.path={tmp_path}/a.npz", "--set=network.channels=8"]
    assert main([*begin, "--set=network.multipliers=1", "--set=network.attention=[]", "--steps=1", "--batch=4",
                 f"--out={tmp_path}/mine", "--threads=1"]) == 0  # fmt: skip
    images[3, 0, 0] ^= 1
    np.savez(tmp_path / "a.npz", images=images, levels=17)
    capsys.readouterr()
    said = _refused(capsys, "train", "--resume", tmp_path / "mine", "--threads=1")
    assert "the images have changed" in said
    assert "SHA-256" in said
    assert "now" in said


def _remade(run: Path, **changes: object) -> None:
    """Change what the newest checkpoint says of how it was made."""
    root = run / "checkpoints"
    newest = checkpoint.latest(root)
    saved = checkpoint.read(newest)
    shutil.rmtree(newest)
    checkpoint.write(root, 12, Checkpoint(saved.tensors, {**saved.state, **changes}), keep=3)


def test_what_changes_results_by_rounding_only_is_noted(run, capsys):
    _remade(run, torch="1.0.0", processes=3, threads=2)
    assert main(["train", "--resume", str(run), "--threads=1", "--device=cpu"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3
    for number, words in enumerate(("begun with 2 threads, going on with 1", "begun with 3 processes", "torch 1.0.0")):
        assert words in notes[number]


def test_another_number_of_processes_than_the_recipe_asks_for_is_refused(run, capsys):
    said = _refused(capsys, "train", "--resume", run, "--processes=2")
    assert "2 processes were asked for, but 1 was started" in said


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_as_many_broken_checkpoints_as_there_are_whole_ones_behind_are_passed_over(run, capsys, broken):
    """The files of the newest one, two or all three are changed, each another file."""
    newest_first = checkpoint.folders(run / "checkpoints")[::-1]
    files = ("ema.safetensors", "state.json", "manifest.json")
    for folder, name in list(zip(newest_first, files, strict=True))[:broken]:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))
    named = [f"{folder.name}/{name}" for folder, name in zip(newest_first, files, strict=True)][:broken]
    if broken == 3:
        before = _contents(run)
        for command in (["sample", run, "--n=1"], ["train", "--resume", run]):
            said = _refused(capsys, *command)
            assert all(name in said for name in named)
        assert _contents(run) == before  # nothing begins again from the start without being told to
        return
    with pytest.warns(errors.CheckpointWarning) as noted:
        load(run)
    assert [name in str(w.message) for name, w in zip(named, noted, strict=True)] == [True] * broken
    assert f"going back to {newest_first[broken].name}" in str(noted[0].message)
    assert main(["train", "--resume", str(run), "--threads=1"]) == 0
    out, err = capsys.readouterr()
    assert f"from step {12 - 4 * broken} of 12" in out
    assert err.count("note: ") == broken
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"] == 12
    assert [f.name for f in checkpoint.folders(run / "checkpoints")] == [f.name for f in newest_first[::-1]]
    for folder in newest_first:
        checkpoint.read(folder)
