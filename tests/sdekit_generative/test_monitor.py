"""Measures, pictures and logs that are made during training, and that change nothing of it."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from sdekit_generative.data import Folder
from sdekit_generative.errors import RecipeError, UserError
from sdekit_generative.recipes import override
from sdekit_generative.run import Run, load
from sdekit_generative.train import begin, resume
from sdekit_generative.training import Stop, checkpoint


def _run(folder, recipe, **more):
    job = begin(folder, recipe)
    job.train(Stop(), lambda step, loss: None, **more)
    return job


def _weights(folder) -> dict[str, torch.Tensor]:
    return dict(checkpoint.read(checkpoint.latest(folder / "checkpoints")).tensors["model"])


def test_measuring_and_picturing_change_no_weight_and_the_best_is_kept(tiny, tmp_path):
    plain = _run(tmp_path / "plain", tiny)
    watched = override(tiny, {"training.measure_every": "3", "training.sample_every": "6", "training.keep": "1"})
    _run(tmp_path / "watched", watched)
    ours, theirs = _weights(tmp_path / "plain"), _weights(tmp_path / "watched")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = Run.open(tmp_path / "watched").log()
    measured = {row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row}
    assert list(measured) == [3, 6, 9, 12]
    assert [row["loss"] for row in rows] == [row["loss"] for row in Run.open(plain.run.folder).log()]
    best = min(measured, key=measured.get)
    kept = [f.name for f in checkpoint.folders(tmp_path / "watched" / "checkpoints")]
    assert kept == [f"step-{step:08d}" for step in sorted({best, 12})]
    load(tmp_path / "watched", which="best")
    for step in (6, 12):
        with Image.open(tmp_path / "watched" / "samples" / f"step-{step:08d}.png") as picture:
            picture.verify()


def test_a_measure_is_the_same_whenever_it_is_taken_of_the_same_weights(tiny, tmp_path):
    watched = override(tiny, {"training.measure_every": "4"})
    _run(tmp_path / "whole", watched)
    _run(tmp_path / "run", override(watched, {"training.steps": "6"}))
    resume(tmp_path / "run", lambda recipe: override(recipe, {"training.steps": "12"})).train(
        Stop(), lambda step, loss: None
    )
    assert Run.open(tmp_path / "run").log() == Run.open(tmp_path / "whole").log()


def test_digits_may_be_measured_by_their_frechet_distance(tiny, tmp_path):
    _run(tmp_path / "run", override(tiny, {"training.measure_every": "12", "training.measure": "frechet"}))
    row = Run.open(tmp_path / "run").log()[-1]
    assert row["frechet"] > 10.0  # after twelve steps there is nothing to see


def test_images_without_features_are_not_measured_by_them(tiny, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8))
    recipe = override(tiny, {"training.measure_every": "1", "training.measure": "frechet"})
    with pytest.raises(RecipeError, match="features for the digits only"):
        _run(tmp_path / "run", dataclasses.replace(recipe, data=Folder(str(tmp_path / "a.npy"))))


def test_the_log_goes_to_tensorboard_too_where_it_is_asked_for(tiny, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _run(tmp_path / "run", override(tiny, {"training.measure_every": "6"}), tensorboard=True)
    board = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    rows = Run.open(tmp_path / "run").log()
    for name in ("loss", "learning_rate", "gradient", "held_out_loss"):
        ours = [(row["step"], row[name]) for row in rows if name in row]
        theirs = [(event.step, event.value) for event in board.Scalars(name)]
        assert [step for step, _ in ours] == [step for step, _ in theirs]
        assert [v for _, v in theirs] == pytest.approx([v for _, v in ours], rel=1e-5)


def test_a_missing_tensorboard_is_said_with_the_way_to_get_it(tiny, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'sdekit\[tensorboard\]'"):
        _run(tmp_path / "run", tiny, tensorboard=True)
