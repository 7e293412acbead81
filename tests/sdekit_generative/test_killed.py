"""Runs killed at every point of a save, and between: they go on to the very weights of a run that was not.

A child process is forked with everything imported, and kills itself at the k-th call of what it does to the disk.
"""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdekit_generative.recipes import Recipe, override
from sdekit_generative.run import Run
from sdekit_generative.train import begin, resume
from sdekit_generative.training import Stop, checkpoint, files

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

POINTS = {
    "write": (files, "write_through"),
    "flush": (os, "fsync"),
    "rename": (Path, "rename"),
    "remove": (shutil, "rmtree"),
    "step": (torch.optim.Adam, "step"),
}


def _dying(original: Callable, k: int, after: bool) -> Callable:
    """The k-th call is the last thing that this process does, or the last that it does not."""
    calls = 0

    def call(*arguments, **more):
        nonlocal calls
        calls += 1
        if calls < k:
            return original(*arguments, **more)
        if after:
            original(*arguments, **more)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    return call


def _train(folder: Path, recipe: Recipe) -> None:
    job = resume(folder, lambda before: before) if (folder / "recipe.json").exists() else begin(folder, recipe)
    job.train(Stop(), lambda step, loss: None)


def _killed(folder: Path, recipe: Recipe, point: str, k: int, after: bool) -> bool:
    """Train in a child that kills itself; whether it came to that."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            owner, name = POINTS[point]
            dying = _dying(getattr(owner, name), k, after)
            setattr(owner, name, dying)
            if point == "write":  # what has imported it by name, too
                checkpoint.write_through = dying
            _train(folder, recipe)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _final(folder: Path) -> dict[str, torch.Tensor]:
    saved = checkpoint.read(checkpoint.latest(folder / "checkpoints"))
    return {f"{g}/{n}": t for g, tensors in saved.tensors.items() for n, t in tensors.items()}


@pytest.fixture(scope="module")
def recipe(tiny) -> Recipe:
    return override(
        tiny, {"training.steps": "8", "training.batch": "4", "training.save_every": "2", "training.keep": "2"}
    )


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    _train(folder, recipe)
    return folder


def _ends_alike(folder: Path, whole: Path, recipe: Recipe) -> None:
    _train(folder, recipe)
    ours, theirs = _final(folder), _final(whole)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert set(ours) == set(theirs)
    assert Run.open(folder).log() == Run.open(whole).log()
    kept = [f.name for f in (folder / "checkpoints").iterdir()]
    assert sorted(kept) == ["step-00000006", "step-00000008"]


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_inside_its_saves_ends_with_the_weights_of_one_that_was_not(recipe, whole, tmp_path, point):
    folder, rng = tmp_path / "run", random.Random(point)
    kills = sum(_killed(folder, recipe, point, rng.randint(1, 3), rng.random() < 0.5) for _ in range(2))
    assert kills >= 1
    _ends_alike(folder, whole, recipe)


@pytest.mark.slow
def test_thirty_kills_at_random_points_change_nothing(recipe, whole, tmp_path):
    rng, kills, number = random.Random(0), 0, 0
    while kills < 30:
        folder = tmp_path / f"run-{number}"
        number += 1
        for _ in range(3):
            point = rng.choice(list(POINTS))
            kills += _killed(folder, recipe, point, rng.randint(1, 14), rng.random() < 0.5)
        _ends_alike(folder, whole, recipe)
    assert kills >= 30
