"""Runs killed at any moment, and at every point of a save: they go on to the very end of a run that was not.

Children are forked with everything imported. They are killed from outside after a random time, or kill themselves at a
point of a save; what they leave is gone on with until it is done.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sdekit_generative.recipes import Recipe, override
from sdekit_generative.training import checkpoint

from .runs import differences, in_a_child, train, undisturbed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SAVES = {"first": 1, "middle": 3, "last": 5}  # at steps 0, 1, 2 (averages), 2 and 3


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


# --- points of a save -------------------------------------------------------------------------------------------------


def _opened(call: Callable[..., Any], file: Path, content: bytes) -> None:
    file.open("wb")
    _die()


def _halfway(call: Callable[..., Any], file: Path, content: bytes) -> None:
    with file.open("wb", buffering=0) as stream:
        stream.write(content[: len(content) // 2])
        _die()


def _before(call: Callable[..., Any], *arguments: Any, **more: Any) -> None:
    _die()


def _after(call: Callable[..., Any], *arguments: Any, **more: Any) -> None:
    call(*arguments, **more)
    _die()


def _some_removed(call: Callable[..., Any], folder: Path, **more: Any) -> None:
    next(folder.iterdir()).unlink()
    _die()


POINTS: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "a file was opened": (checkpoint, "write_through", _opened),
    "half of a file was written": (checkpoint, "write_through", _halfway),
    "a file is about to be flushed": (os, "fsync", _before),
    "the folder is about to be renamed": (Path, "rename", _before),
    "the folder was renamed": (Path, "rename", _after),
    "an old one was half removed": (shutil, "rmtree", _some_removed),
}


def _dying(folder: Path, recipe: Recipe, point: str, save: int) -> Callable[[], None]:
    """Train until a point of a save is reached: its first occurrence in the n-th save, or after it."""
    owner, name, die = POINTS[point]

    def work() -> None:
        write, call, saves = checkpoint.write, getattr(owner, name), 0

        def counted(*arguments: Any, **more: Any) -> Path:
            nonlocal saves
            saves += 1
            return write(*arguments, **more)

        def spied(*arguments: Any, **more: Any) -> Any:
            return call(*arguments, **more) if saves < save else die(call, *arguments, **more)

        checkpoint.write = counted
        setattr(owner, name, spied)
        train(folder, recipe)

    return work


# --- what must come of it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tiny: Recipe) -> Recipe:
    changes = {"steps": "3", "batch": "4", "save_every": "1", "keep": "1", "power_ema": "[0.1]", "snapshot_every": "2"}
    small = {"network.multipliers": "[1]", "network.attention": "[]"}
    return override(tiny, small | {f"training.{name}": value for name, value in changes.items()})


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), recipe)


PLACES = list(product(POINTS, SAVES))


@pytest.mark.parametrize(
    ("point", "save"), [pytest.param(*p, marks=[pytest.mark.slow] * (i % 4 > 0)) for i, p in enumerate(PLACES)]
)
def test_a_run_killed_inside_a_save_ends_as_one_that_was_not(recipe, whole, tmp_path, point, save):
    folder = tmp_path / "run"
    assert in_a_child(_dying(folder, recipe, point, SAVES[save])) == -signal.SIGKILL
    train(folder, recipe)
    assert differences(folder, whole[0]) == []


def _survived(recipe: Recipe, whole: tuple[Path, float], place: Path, wanted: int) -> dict[str, int]:
    """Kill runs at random times, each until it is done, and compare their ends: what was counted."""
    rng, counted = random.Random(0), {"kills": 0, "runs": 0, "unfinished saves": 0}
    while counted["kills"] < wanted:
        folder, longest = place / f"run-{counted['runs']}", 1.2 * whole[1]
        while status := in_a_child(partial(train, folder, recipe), after=rng.uniform(0.0, longest)):
            assert status == -signal.SIGKILL
            counted["kills"] += 1
            longest *= 1.1  # a machine that has become slower than it was when the time was taken gets on, too
            counted["unfinished saves"] += bool(list(folder.rglob(".writing-*")))
        counted["runs"] += 1
        assert differences(folder, whole[0]) == [], counted
        shutil.rmtree(folder)
    return counted


def test_runs_killed_at_random_times_end_as_one_that_was_not(recipe, whole, tmp_path):
    assert _survived(recipe, whole, tmp_path, 4)["kills"] >= 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_kills_at_random_times_change_nothing(recipe, tmp_path):
    longer = override(recipe, {"training.steps": "8", "training.save_every": "2"})
    counted = _survived(longer, undisturbed(tmp_path, longer), tmp_path, 500)
    print(counted)  # noqa: T201
    assert counted["unfinished saves"] > 10  # the kills did fall into saves, too
