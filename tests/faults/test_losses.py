"""Losses and gradients that are not finite: training stops there, says where, and has lost nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdekit_generative.cli import main
from sdekit_generative.files import as_json
from sdekit_generative.losses import DenoisingLoss
from sdekit_generative.recipes import Recipe, encode, override
from sdekit_generative.training import checkpoint

from .runs import differences, train

Spoil = Callable[[torch.Tensor], torch.Tensor]

SPOILED: dict[str, tuple[Spoil, str, dict[str, str]]] = {
    "nan": (lambda loss: loss * float("nan"), "the loss is nan", {}),
    "inf": (lambda loss: loss + float("inf"), "the loss is inf", {}),
    "-inf": (lambda loss: loss - float("inf"), "the loss is -inf", {}),
    "one of many": (lambda loss: torch.where(torch.arange(len(loss)) == 2, torch.nan, loss), "the loss is nan", {}),
    "a gradient without end": (
        lambda loss: loss + (loss - loss.detach()).sqrt(),  # √ has no slope at 0
        "the norm of the gradient is nan",
        {},
    ),
    "a gradient whose norm overflows": (
        lambda loss: loss + (loss - loss.detach()) * 1e25,  # its square is more than float32 holds
        "the norm of the gradient is inf",
        {"training.clip": "null"},
    ),
    "an overflow in bfloat16": (
        lambda loss: loss.bfloat16() * 3e38 * 10.0,
        "the loss is inf",
        {"training.precision": "bfloat16"},
    ),
    "an overflow in a part": (lambda loss: loss * 1e39, "the loss is inf", {"training.accumulate": "2"}),
}


@pytest.fixture(scope="module")
def recipe(tiny: Recipe) -> Recipe:
    small = {"network.multipliers": "[1]", "network.attention": "[]", "training.batch": "4"}
    return override(tiny, small | {"training.steps": "4", "training.save_every": "2", "training.keep": "1"})


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, recipe)
    return folder


def _spoiling(patch: pytest.MonkeyPatch, spoil: Spoil, at: int, parts: int = 1) -> None:
    """From the at-th evaluation of the loss in this process on, it is spoiled."""
    good, calls = DenoisingLoss.__call__, [0]

    def spoiled(self: DenoisingLoss, *arguments: Any) -> torch.Tensor:
        calls[0] += 1
        loss = good(self, *arguments)
        return spoil(loss) if calls[0] >= at * parts else loss

    patch.setattr(DenoisingLoss, "__call__", spoiled)


def _stopped(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments), "--threads=1", "--device=cpu"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("how", SPOILED)
def test_a_loss_that_is_not_finite_stops_and_the_run_can_be_gone_on_with(how, recipe, whole, tmp_path, capsys):
    spoil, words, changes = SPOILED[how]
    recipe = override(recipe, changes)
    file, folder = tmp_path / "mine.json", tmp_path / "run"
    file.write_bytes(as_json(encode(recipe)))
    with pytest.MonkeyPatch.context() as patch:
        _spoiling(patch, spoil, at=4, parts=recipe.training.accumulate)
        said = _stopped(capsys, "train", file, "--out", folder)
    assert f"{words} at step 4; the last good checkpoint is " in said
    assert "step-00000002" in said
    saved = checkpoint.read(checkpoint.latest(folder / "checkpoints"))
    assert all(torch.isfinite(t).all() for tensors in saved.tensors.values() for t in tensors.values())
    if changes == {}:
        train(folder, recipe)
        assert differences(folder, whole) == []


def test_ten_tries_that_fail_at_one_step_change_nothing(recipe, whole, tmp_path, capsys):
    file, folder = tmp_path / "mine.json", tmp_path / "run"
    file.write_bytes(as_json(encode(recipe)))
    with pytest.MonkeyPatch.context() as patch:
        _spoiling(patch, lambda loss: loss * float("nan"), at=4)
        _stopped(capsys, "train", file, "--out", folder)
    kept = shutil.copytree(folder, tmp_path / "kept")
    for _ in range(10):
        with pytest.MonkeyPatch.context() as patch:
            _spoiling(patch, lambda loss: loss * float("nan"), at=2)  # the checkpoint is of step 2
            assert "the loss is nan at step 4" in _stopped(capsys, "train", "--resume", folder)
    assert _contents(folder) == _contents(kept)
    train(folder, recipe)
    assert differences(folder, whole) == []


def _contents(folder: Path) -> dict[Path, bytes]:
    return {f.relative_to(folder): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
