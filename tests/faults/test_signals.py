"""Runs that are asked to stop, at any moment: they save the step they are at, end as they should, and can be gone on with."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from sdekit_generative.files import as_json
from sdekit_generative.recipes import Recipe, encode, override
from sdekit_generative.run import Run
from sdekit_generative.training import checkpoint

from .runs import commanded, differences, in_a_child, minds, train, undisturbed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

ENDS = {signal.SIGTERM: 0, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def recipe(tiny: Recipe) -> Recipe:
    return override(
        tiny, {"training.steps": "24", "training.batch": "4", "training.save_every": "60", "training.keep": "1"}
    )


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), recipe)


def _command(folder: Path, recipe: Path) -> list[str]:
    """What one types to begin with a run, or to go on with it."""
    begun = (folder / "recipe.json").exists()
    what = ["--resume", str(folder)] if begun else [str(recipe), "--out", str(folder)]
    return ["train", *what, "--threads=1", "--device=cpu"]


def _stopped(recipe: Recipe, whole: tuple[Path, float], place: Path, number: int, wanted: int) -> int:
    """Ask runs to stop at random times, time after time until they are done; returns how many steps were stopped at."""
    rng, stops, runs = random.Random(number), 0, 0
    (place / "recipe.json").write_bytes(as_json(encode(recipe)))
    while stops < wanted:
        folder, said = place / f"run-{runs}", place / f"said-{runs}"
        runs += 1
        for _ in range(3):
            before = len(said.read_text()) if said.exists() else 0
            command = _command(folder, place / "recipe.json")
            work = partial(commanded, command, said)
            status = in_a_child(work, number, rng.uniform(0.0, whole[1]), since=minds)
            new = said.read_text()[before:]
            assert "Traceback" not in new
            if "trained for 24 steps" in new:
                assert status in (0, ENDS[number])
                break
            assert status == ENDS[number], new
            if "stopped at step" in new:
                step = Run.open(folder).log()[-1]["step"] if (folder / "log.jsonl").stat().st_size else 0
                assert f"stopped at step {step}, saved" in new
                assert checkpoint.latest(folder / "checkpoints").name == f"step-{step:08d}"
                assert not list(folder.rglob(".writing-*"))
                stops += 1
        train(folder, recipe)
        assert differences(folder, whole[0]) == []
    return stops


@pytest.mark.parametrize("number", ENDS)
def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on_to_the_same_end(recipe, whole, tmp_path, number):
    assert _stopped(recipe, whole, tmp_path, number, 1) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "wanted"), [(signal.SIGTERM, 10), (signal.SIGINT, 5)])
def test_many_runs_that_are_asked_to_stop_do(recipe, whole, tmp_path, number, wanted):
    assert _stopped(recipe, whole, tmp_path, number, wanted) >= wanted
