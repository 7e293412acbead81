"""Command lines that nobody would type, and some that somebody might: they do it, or say in one line why not."""

from __future__ import annotations

import io
import os
import re
import shutil
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sdekit_generative.cli import main
from sdekit_generative.commands import app

COUNTED: Counter[int] = Counter()
KNOWN: set[Path] = set()
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")

# What bounds the work of a command stays, unless it is given another of the (small) values below.
BOUNDED: dict[str, dict[str, str]] = {
    "train": {"--steps": "1", "--batch": "4", "--set": "network.channels=8"},
    "sample": {"--images": "2", "--steps": "2", "--sampler": "fast"},
    "film": {"--images": "2", "--steps": "3", "--sampler": "fast", "--frames": "3"},
    "evaluate": {"--images": "2", "--steps": "2", "--sampler": "fast", "--metric": "is", "--data": "a.npz"},
    "likelihood": {"--data": "a.npz", "--tolerance": "0.1"},
    "restore": {"--task": "inpaint", "--images": "1", "--n": "2", "--steps": "3"},
    "edit rework": {"--images": "2", "--steps": "2"},
    "edit interpolate": {"--images": "2", "--frames": "2", "--tolerance": "0.1"},
    "edit temper": {"--images": "2"},
    "edit towards": {"--images": "2", "--steps": "2", "--training": "1", "--label": "1"},
    "export": {"--out": "weights.safetensors"},
    "import": {"--recipe": "digits", "--out": "imported"},
    "data check": {},
    "data convert": {},
    "data statistics": {"--out": "s.npz"},
    "recipes": {},
    "demo": {"--resume": "", "--out": "nowhere"},
}
WHERE: dict[str, list[str]] = {
    "train": ["digits"],
    "import": ["checkpoint.pth"],
    "data check": ["images"],
    "data convert": ["images", "o.npz"],
    "data statistics": ["digits"],
    "recipes": [],
    "demo": [],
}
_STRAY = ("--stpes", "--no-resume", "-h", "-x", "--", "---", "--help", "--version", "--set", "--steps")
_VALUES = """
0 1 2 3 -1 1.5 nan inf -inf 1e-3 1e300 x None null [] {} true 0-1 1-0 1- - é数 a\\tb %s ../x /dev/null /nowhere/x run
images a.npz mine.json notes.txt digits folder cifar10-ncsnpp-ve fid kid,is nonsense $(id) DDIM AngularAdams cpu cuda
auto newest best safetensors diffusers score-sde skip stop inpaint superres colour ode pc fast song2021 none
"""
ODD = [
    "",
    " ",
    "a folder with spaces/x.png",
    "\x1b[31mred",
    "line\nbreak",
    "naïve 数/é.png",
    "\udcff",
    "9" * 400,
    "x" * 5000,
]
_CHANGES = """
network.channels=8 network.channels=0 network.channels=-8 network.channels=x network.multipliers=1
network.attention=[] network.multipliers=[] network.blocks=0 network.dropout=2 network.dropout=nan network=Nonsense
network=NCSNppConfig training.steps=1 training.steps=0 training.ema=1 training.clip=null training.clip=-1
training.learning_rate=inf training.learning_rate=1e400 training.precision=float8 training.precision=bfloat16
training.accumulate=3 training.power_ema=[0.1] training.power_ema=9 training.nonsense=1 nonsense=1 training process=VE
process.beta_max=-1 process=OS process=[] loss=SlicedLoss loss.times=UniformTime loss=ClassifierLoss data=Folder
data.path=images data.path=nowhere data.size=8 data.size=-1 data_range.low=nan data_range.high=-1 kind=Recipe
training.kind=x =1 .=1 training.=1 .training=1 a.b.c.d=1 training={} training=[] training=null training.seed=1e9
training.batch=true parametrisation.data_std=0 parametrisation=PredictNoise dequantisation=Nonsense
training.measure_every=1 training.sample_every=1 network.classes=10
"""


VALUES, CHANGES = _VALUES.split(), _CHANGES.split()
_INTEGERS, _NUMBERS = (
    ("0", "1", "2", "3", "7", "-1"),
    ("0", "0.1", "0.5", "1", "3", "-1", "nan", "inf", "1e-300", "1e300"),
)
_NAMES = (
    "run",
    "images",
    "a.npz",
    "checkpoint.pth",
    "mine.json",
    "notes.txt",
    "nowhere",
    "new/o.png",
    "new.npz",
    "digits",
)


def _options(name: str) -> dict[str, st.SearchStrategy[str | None]]:
    """The options of a command, by name: what they may be given, None for nothing."""
    command, found = app, {}
    for word in name.split():
        command = command[word]
    for argument in command.assemble_argument_collection():
        hint, choices = str(argument.hint), argument.get_choices()
        for option in (n for n in argument.names if n.startswith("--") and n != "--set"):
            if argument.hint is bool:
                found[option] = st.none()
            elif choices:
                found[option] = st.sampled_from(choices)
            else:
                some = _INTEGERS if "int" in hint else _NUMBERS if "float" in hint else (*_NAMES, *VALUES)
                found[option] = st.sampled_from(some)
    return found


@cache
def _all_options() -> dict[str, dict[str, st.SearchStrategy[str | None]]]:
    return {name: _options(name) for name in BOUNDED}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with what it needs, and some options of its own; now and then one of another's, or another value."""
    name = draw(st.sampled_from(sorted(BOUNDED)))
    own, odd = _all_options()[name], st.sampled_from(VALUES) | st.sampled_from(ODD)
    rarely = st.integers(0, 14).map(lambda n: n == 0)
    where = WHERE.get(name, ["run"])
    line = [draw(odd) if draw(rarely) else part for part in where]
    given = {option: [option, value] if value else [option] for option, value in BOUNDED[name].items()}
    for option in draw(st.lists(st.sampled_from(sorted(own)), max_size=3)) if own else ():
        value = draw(odd) if draw(rarely) else draw(own[option])
        given[option] = [option] if value is None else [option, value]
    if draw(rarely):
        stray = draw(st.sampled_from(_STRAY))
        given[stray] = [stray, draw(odd)] if draw(st.booleans()) else [stray]
    for part in given.values():
        line += part
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)):
        line += ["--set", change] if name in ("train", "data check", "import") else []
    words = [draw(odd)] if draw(rarely) else name.split()
    return [*words, *line]


@pytest.fixture(scope="module")
def place(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one of everything that a command line may name, in which commands are typed."""
    folder = tmp_path_factory.mktemp("a place") / "naïve café 数"
    shutil.copytree(tiny_run, folder / "run")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (10, 8, 3), dtype=np.uint8)).save(folder / "images" / f"{i} é.png")
    np.savez(folder / "a.npz", images=rng.integers(0, 17, (6, 8, 8), dtype=np.uint8), levels=17)
    torch.save({"model": {"a": torch.zeros(2)}, "step": 1}, folder / "checkpoint.pth")
    (folder / "mine.json").write_text('{"kind": "Recipe", "traning": 1}')
    (folder / "notes.txt").write_text("notes")
    before = Path.cwd()
    os.chdir(folder)
    KNOWN.update(folder.rglob("*"))
    yield folder
    os.chdir(before)
    print(dict(COUNTED))  # noqa: T201


def _tidy(place: Path) -> None:
    """Remove what a command has made, so that it is not in the way of the next."""
    for made in sorted(set(place.rglob("*")) - KNOWN, reverse=True):
        made.rmdir() if made.is_dir() else made.unlink()


def _wrong(line: list[str]) -> str:
    """What is wrong with how a command line ends; nothing, where it ends as it should."""
    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = main(line)
    except BaseException:
        return traceback.format_exc()
    finally:
        torch.set_num_threads(threads)
    said, heard = err.getvalue(), out.getvalue()
    COUNTED[status] += 1
    if status not in (0, 2):
        return f"status {status}"
    if "Traceback" in said or CONTROL.search(said + heard):
        return f"a traceback, or control codes: {said[-2000:]!r}"
    errors = said.count("sdekit-generative: error: ")
    return "" if errors == (status == 2) else f"status {status}, and {errors} errors: {said[-2000:]}"


def _plain(line: list[str]) -> list[str]:
    return [part for part in line if part != "--debug"]  # which shows the traceback


@given(command_lines())
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_any_command_line_is_done_or_answered_in_one_line(place, line):
    assert _wrong(_plain(line)) == "", line
    _tidy(place)


@pytest.mark.slow
@given(command_lines())
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_three_hundred_command_lines_are_done_or_answered_in_one_line(place, line):
    assert _wrong(_plain(line)) == "", line
    _tidy(place)


def test_paths_may_have_spaces_and_letters_of_any_script(place, capsys):
    run, out = place / "ein Lauf 数", place / "Bilder é"
    small = ["--set=network.channels=8", "--set=network.multipliers=1", "--set=network.attention=[]", "--batch=4"]
    for line in (
        ["train", "digits", "--steps=1", *small, f"--out={run}", "--threads=1", "--device=cpu"],
        ["sample", str(run), "--images=2", "--sampler=fast", "--steps=2", f"--out={out}/a b.png"],
        ["data", "convert", str(place / "images"), f"{out}/c d.npz"],
        ["export", str(run), f"--out={out}/w é.safetensors"],
    ):
        assert main(line) == 0
    assert sorted(f.name for f in out.iterdir()) == ["a b.json", "a b.npz", "a b.png", "c d.npz", "w é.safetensors"]
    assert not CONTROL.search("".join(capsys.readouterr()))


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes there")
def test_names_that_are_no_text_are_written_out(place, capsys):
    name = os.fsdecode(b"\xff\xfe")
    assert main(["sample", str(place / name)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()
