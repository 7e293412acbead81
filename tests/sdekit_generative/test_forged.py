"""Checkpoints mutated by someone who mends the manifest afterwards: an error that names them, or a model; nothing else."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest

from sdekit_generative.errors import CheckpointError, RecipeError, UserError
from sdekit_generative.run import load
from sdekit_generative.train import resume
from sdekit_generative.training import checkpoint
from sdekit_generative.training.files import as_json


def _mutated(content: bytes, rng: random.Random) -> bytes:
    """One of eight ways to spoil a file; most of them near its beginning, where the structure is."""
    changed, place = bytearray(content), min(int(rng.expovariate(1 / 400)), len(content) - 1)
    way = rng.randrange(8)
    if way == 0:
        changed[place] ^= 1 << rng.randrange(8)
    elif way == 1:
        changed[place : place + 8] = rng.randbytes(8)
    elif way == 2:
        del changed[place:]
    elif way == 3:
        changed[place : place + 64] = bytes(64)
    elif way == 4:
        changed[place:place] = changed[place : place + 100]
    elif way == 5:
        changed[:8] = rng.randbytes(8)
    elif way == 6:
        changed = bytearray()
    else:
        changed += rng.randbytes(50)
    return bytes(changed)


def _forge(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and mend the manifest."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_bytes(as_json(manifest))


def _outcomes(tiny_run: Path, tmp_path: Path, count: int) -> list[str]:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    newest = checkpoint.latest(run / "checkpoints")
    for other in checkpoint.folders(run / "checkpoints")[:-1]:
        shutil.rmtree(other)
    whole = shutil.copytree(newest, tmp_path / "whole")
    rng, outcomes = random.Random(0), []
    names = sorted(f.name for f in whole.iterdir() if f.name != "manifest.json")
    for i in range(count):
        name = names[i % len(names)]
        _forge(newest, name, _mutated((whole / name).read_bytes(), rng))
        for use in (load, lambda path: resume(path, lambda recipe: recipe)):
            try:
                use(run)
                outcomes.append("taken")
            except UserError as problem:  # noqa: PERF203
                outcomes.append(str(problem))
        shutil.rmtree(newest)
        shutil.copytree(whole, newest)
    return outcomes


def _sound(outcomes: list[str]) -> bool:
    refused = [said for said in outcomes if said != "taken"]
    return len(refused) > 0.3 * len(outcomes) and all("run" in said and "\n" not in said for said in refused)


def test_forged_checkpoints_are_refused_by_name_or_loaded(tiny_run, tmp_path):
    assert _sound(_outcomes(tiny_run, tmp_path, 30))


@pytest.mark.slow
def test_three_hundred_forged_checkpoints_are_refused_by_name_or_loaded(tiny_run, tmp_path):
    assert _sound(_outcomes(tiny_run, tmp_path, 300))


@pytest.mark.parametrize(
    "state",
    [b"[]", b"null", b'{"recipe": {"kind": "os.system"}}', b'{"steps_done": "many"}', b"{" * 100_000, b"\xff\xfe"],
)
def test_forged_states_are_refused(tiny_run, tmp_path, state):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for folder in checkpoint.folders(run / "checkpoints"):
        _forge(folder, "state.json", state)
    for use in (load, lambda path: resume(path, lambda recipe: recipe)):
        with pytest.raises((CheckpointError, RecipeError)):
            use(run)
