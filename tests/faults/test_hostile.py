"""Files made to do harm: nothing in them is run, nothing outside is touched, and one line says which file it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdekit_generative.cli import main
from sdekit_generative.errors import UserError
from sdekit_generative.files import as_json
from sdekit_generative.recipes import DIGITS, encode
from sdekit_generative.run import load
from sdekit_generative.train import resume
from sdekit_generative.training import checkpoint

from .mutations import mutated


class _Harm:
    """What makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self._canary}'",)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run with a single checkpoint."""
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    for older in checkpoint.folders(folder / "checkpoints")[:-1]:
        shutil.rmtree(older)
    return folder


def _forge(run: Path, name: str, content: bytes) -> None:
    """Replace a file of the checkpoint, and mend the manifest."""
    folder = checkpoint.latest(run / "checkpoints")
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_bytes(as_json(manifest))


def _listed(run: Path, name: str) -> None:
    """Have the manifest name another file."""
    manifest = checkpoint.latest(run / "checkpoints") / "manifest.json"
    listed = json.loads(manifest.read_bytes())
    listed["files"][name] = hashlib.sha256(b"").hexdigest()
    manifest.write_bytes(as_json(listed))


def _safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _part(start: int, end: int, shape: tuple[int, ...] = (1,), kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": (start, end)}


def _bomb(file: Path) -> None:
    """An archive of a few megabytes that unpacks to four gigabytes of zeros."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (23170, 23170)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("mu.npy", "sigma.npy"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(stream.getvalue())
                for _ in range(2):
                    member.write(bytes(1 << 24))
    content = bytearray(file.read_bytes())  # what it says of itself is what counts: nobody has to wait for the zeros
    for found in _places(content, b"PK\x01\x02"):
        content[found + 24 : found + 28] = struct.pack("<I", 0xF0000000)
    file.write_bytes(bytes(content))


def _places(content: bytes | bytearray, what: bytes) -> list[int]:
    return [i for i in range(len(content)) if content[i : i + 4] == what]


def _broken_recipe(file: Path, text: str) -> list[str]:
    file.write_text(text)
    return ["train", str(file), "--print-config"]


def _recipe(**changes: object) -> str:
    return json.dumps({**encode(DIGITS), **changes})


Make = Callable[[Path, Path, Path], list[str]]  # (folder, canary, run) → the command that meets the file


def _pickle_as(name: str, command: Callable[[Path, Path], list[str]]) -> Make:
    def make(place: Path, canary: Path, run: Path) -> list[str]:
        (place / name).write_bytes(pickle.dumps({"model": _Harm(canary)}))
        return command(place / name, run)

    return make


def _saved_as(name: str, command: Callable[[Path, Path], list[str]]) -> Make:
    def make(place: Path, canary: Path, run: Path) -> list[str]:
        torch.save({"model": _Harm(canary)}, place / name)
        return command(place / name, run)

    return make


def _forged(name: str, content: Callable[[Path], bytes]) -> Make:
    def make(place: Path, canary: Path, run: Path) -> list[str]:
        _forge(run, name, content(canary))
        return ["sample", str(run), "--n=1"]

    return make


def _listing(name: str) -> Make:
    def make(place: Path, canary: Path, run: Path) -> list[str]:
        _listed(run, name)
        return ["sample", str(run), "--n=1"]

    return make


def _linked(name: str, to: str) -> Make:
    def make(place: Path, canary: Path, run: Path) -> list[str]:
        file = checkpoint.latest(run / "checkpoints") / name
        file.unlink()
        file.symlink_to(to)
        return ["sample", str(run), "--n=1"]

    return make


def _pipe(place: Path, canary: Path, run: Path) -> list[str]:
    os.mkfifo(place / "recipe.json")
    return ["train", str(place / "recipe.json"), "--print-config"]


def _objects(place: Path, canary: Path, run: Path) -> list[str]:
    np.save(place / "images.npy", np.array([_Harm(canary)], dtype=object), allow_pickle=True)
    return ["data", "check", str(place / "images.npy")]


def _packed_objects(place: Path, canary: Path, run: Path) -> list[str]:
    np.savez(place / "s.npz", mu=np.array([_Harm(canary)], dtype=object))
    return ["evaluate", str(run), "--metric=fid", "--images=2", "--reference", str(place / "s.npz")]


def _unpacking(place: Path, canary: Path, run: Path) -> list[str]:
    _bomb(place / "s.npz")
    return ["evaluate", str(run), "--metric=fid", "--images=2", "--reference", str(place / "s.npz")]


def _written(text: str) -> Make:
    return lambda place, canary, run: _broken_recipe(place / "mine.json", text.replace("CANARY", str(canary)))


def _import(file: Path, run: Path) -> list[str]:
    return ["import", str(file), "--recipe=digits", f"--out={file.parent / 'out'}"]


def _measure(file: Path, run: Path) -> list[str]:
    return ["evaluate", str(run), "--metric=fid", "--images=2", f"--features={file}"]


HOSTILE: dict[str, tuple[Make, str]] = {
    "a pickle to import": (_saved_as("weights.pth", _import), "weights.pth"),
    "a bare pickle to import": (_pickle_as("weights.pth", _import), "weights.pth"),
    "a pickle of features": (_saved_as("features.pth", _measure), "features.pth"),
    "a pickle by another name": (_pickle_as("f.safetensors", _measure), "f.safetensors"),
    "a pickle in a checkpoint": (
        _forged("model.safetensors", lambda canary: pickle.dumps(_Harm(canary))),
        "model.safetensors",
    ),
    "objects in an array": (_objects, "images.npy"),
    "objects in an archive": (_packed_objects, "s.npz"),
    "an archive without end": (_unpacking, "s.npz"),
    "a header without end": (
        _forged("ema.safetensors", lambda _: _safetensors({}, length=1 << 63)),
        "ema.safetensors",
    ),
    "tensors that overlap": (
        _forged("ema.safetensors", lambda _: _safetensors({"a": _part(0, 4), "b": _part(2, 6)}, bytes(6))),
        "ema.safetensors",
    ),
    "a shape that overflows": (
        _forged("ema.safetensors", lambda _: _safetensors({"a": _part(0, 4, (1 << 62, 1 << 62))}, bytes(4))),
        "ema.safetensors",
    ),
    "a name twice in a header": (
        _forged(
            "ema.safetensors",
            lambda _: _safetensors({"a": _part(0, 4)}, bytes(4)).replace(b'{"a"', b'{"a": 0, "a"', 1),
        ),
        "ema.safetensors",
    ),
    "a manifest that points above": (_listing("../../../../etc/passwd"), "passwd"),
    "a manifest that points anywhere": (_listing("/etc/passwd"), "passwd"),
    "a manifest with a name that ends early": (_listing("model.safetensors\0.txt"), "model.safetensors?.txt"),
    "a manifest that steers the terminal": (_listing("\x1b]0;owned\x07"), "step-00000012"),
    "a link to what has no end": (_linked("model.safetensors", "/dev/zero"), "model.safetensors"),
    "a manifest that has no end": (_linked("manifest.json", "/dev/zero"), "manifest.json"),
    "a link to secrets": (_linked("state.json", "/etc/passwd"), "state.json"),
    "a pipe that nobody writes to": (_pipe, "recipe.json"),
    "a class that runs commands": (_written(_recipe(process={"kind": "os.system"})), "mine.json"),
    "a class by its place": (_written(_recipe(network={"kind": "sdekit_generative.cli.main"})), "mine.json"),
    "tags of YAML": (_written('!!python/object/apply:os.system ["touch CANARY"]'), "mine.json"),
    "a name twice": (_written(_recipe().replace('"kind"', '"kind": "os.system", "kind"', 1)), "mine.json"),
    "other types": (_written(_recipe(training=["touch CANARY"], network=7, loss=None)), "mine.json"),
    "numbers without end": (_written(_recipe(process={"kind": "VE", "sigma_max": 10**400})), "mine.json"),
    "brackets without end": (_written("[" * 100_000), "mine.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_file_runs_code_hangs_or_ends_in_a_traceback(run, tmp_path, capsys, name):
    make, named = HOSTILE[name]
    place, canary = tmp_path / "given", tmp_path / "canary"
    place.mkdir()
    command = make(place, canary, run)
    start = time.process_time()
    assert main(command) == 2
    spent = time.process_time() - start
    said = capsys.readouterr().err
    assert said.startswith("sdekit-generative: error: ")
    assert said.count("\n") == 1
    assert named in said
    assert said.rstrip("\n").isprintable()
    assert not canary.exists()
    assert spent < 5.0  # most of it for what is imported


# --- checkpoints changed by someone who mends the manifest -----------------------------------------------------------------


def _use_it(run: Path) -> list[str]:
    """What becomes of loading, and of going on: taken, or what is said."""
    outcomes = []
    for use in (load, lambda path: resume(path, lambda recipe: recipe)):
        try:
            use(run)
            outcomes.append("taken")
        except UserError as problem:  # noqa: PERF203
            outcomes.append(str(problem))
    return outcomes


def _outcomes(run: Path, count: int) -> list[str]:
    newest = checkpoint.latest(run / "checkpoints")
    whole = {f.name: f.read_bytes() for f in sorted(newest.iterdir())}
    names, rng, outcomes = sorted(set(whole) - {"manifest.json"}), random.Random(0), []
    for i in range(count):
        name = names[i % len(names)]
        _forge(run, name, mutated(whole[name], rng, rng.randrange(8)))
        outcomes += _use_it(run)
        for other, content in whole.items():
            (newest / other).write_bytes(content)
    return outcomes


def _sound(outcomes: list[str]) -> bool:
    refused = [said for said in outcomes if said != "taken"]
    return len(refused) > 0.3 * len(outcomes) and all("run" in said and "\n" not in said for said in refused)


def test_forged_checkpoints_are_refused_by_name_or_loaded(run):
    assert _sound(_outcomes(run, 30))


@pytest.mark.slow
def test_three_hundred_forged_checkpoints_are_refused_by_name_or_loaded(run):
    assert _sound(_outcomes(run, 300))


@pytest.mark.parametrize(
    "state",
    [
        b"[]",
        b"null",
        b'{"recipe": {"kind": "os.system"}}',
        b'{"steps_done": "many"}',
        b"{" * 100_000,
        b"\xff\xfe",
        {"steps_done": float("inf")},
        {"steps_done": -1},
        {"shape": [[1], 8, 8]},
        {"levels": 0},
        {"threads": None},
        {"log": {"length": "all", "sha256": 3}},
        {"log": [1, 2]},
        {"images": 7},
    ],
)
def test_forged_states_are_refused(run, state):
    if isinstance(state, dict):
        whole = json.loads((checkpoint.latest(run / "checkpoints") / "state.json").read_bytes())
        state = json.dumps({**whole, **state}).encode()
    _forge(run, "state.json", state)
    said = _use_it(run)
    assert said != ["taken", "taken"]
    assert all("run" in words for words in said if words != "taken")
