"""Runs that are interrupted, in processes of their own, and go on to the very weights of a run that was not."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from sdekit_generative.data import Folder
from sdekit_generative.errors import CheckpointWarning, DataWarning, RecipeError, RunError, TrainingDiverged
from sdekit_generative.recipes import Recipe, encode, override
from sdekit_generative.run import Run
from sdekit_generative.train import begin, load_images, resume
from sdekit_generative.training import Stop, checkpoint

TINY = {
    "network.channels": "8",
    "network.multipliers": "1,2",
    "network.attention": "1",
    "network.dropout": "0.1",
    "training.batch": "8",
    "training.cooldown": "0",
}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sdekit_generative", *arguments, "--threads", "1", "--device", "cpu"]


def _begin(folder: Path, steps: int, save_every: int) -> list[str]:
    changes = {**TINY, "training.steps": str(steps), "training.save_every": str(save_every)}
    return _command("train", "digits", "--out", str(folder), *(f"--set={p}={v}" for p, v in changes.items()))


def _start(command: list[str]) -> subprocess.Popen:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(command: list[str]) -> tuple[int, str, str]:
    process = _start(command)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def _wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    """Until the log says that the step was made (or the process has ended)."""
    log = folder / "log.jsonl"
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= step:
            return
        time.sleep(0.005)


def _final(folder: Path) -> dict[str, torch.Tensor]:
    saved = checkpoint.read(checkpoint.latest(folder / "checkpoints"))
    return {f"{g}/{n}": t for g, tensors in saved.tensors.items() for n, t in tensors.items()}


def _assert_same_run(a: Path, b: Path) -> None:
    ours, theirs = _final(a), _final(b)
    assert set(ours) == set(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert Run.open(a).log() == Run.open(b).log()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, _, err = _finish(_begin(folder, steps=60, save_every=5))
    assert code == 0, err
    return folder


def _kill_and_go_on(folder: Path, kills: int, rng: random.Random) -> int:
    """Kills a run at random moments until it is done; returns how often it was killed."""
    command, killed, done = _begin(folder, steps=60, save_every=5), 0, 0
    for _ in range(kills):
        process = _start(command)
        _wait_for_step(folder, min(done + rng.randint(1, 15), 59), process)
        time.sleep(rng.random() * 0.02)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if not (folder / "recipe.json").exists():
            continue
        command = _command("train", "--resume", str(folder))
        rows = Run.open(folder).log()
        done = rows[-1]["step"] if rows else 0
        if done >= 60:
            break
    code, out, err = _finish(command)
    assert code == 0, err
    assert "going on with" in out
    return killed


def test_a_run_killed_three_times_ends_with_the_weights_of_one_that_was_not(uninterrupted, tmp_path):
    assert _kill_and_go_on(tmp_path / "run", 3, random.Random(0)) == 3
    _assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_runs_killed_at_thirty_random_moments_end_with_the_same_weights(uninterrupted, tmp_path, seed):
    assert _kill_and_go_on(tmp_path / "run", 3, random.Random(100 + seed)) >= 1
    _assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_saves_the_present_step_and_ends_with_its_status(uninterrupted, tmp_path, number, status):
    folder = tmp_path / "run"
    process = _start(_begin(folder, steps=60, save_every=1000))
    _wait_for_step(folder, 7, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert "Traceback" not in err
    done = Run.open(folder).log()[-1]["step"]
    assert 7 <= done < 60
    assert f"stopped at step {done}" in out
    assert checkpoint.latest(folder / "checkpoints").name == f"step-{done:08d}"
    code, out, err = _finish([*_command("train", "--resume", str(folder)), "--set", "training.save_every=5"])
    assert code == 0, err
    assert f"from step {done} of 60" in out
    _assert_same_run(folder, uninterrupted)


# --- in this process -------------------------------------------------------------------------------------------------


def _run(folder: Path, recipe: Recipe) -> None:
    begin(folder, recipe).train(Stop(), lambda step, loss: None)


def _changed(recipe: Recipe, **training) -> Recipe:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **training))


def test_a_longer_run_goes_on_to_what_it_would_have_been(tiny, tmp_path):
    _run(tmp_path / "whole", tiny)
    _run(tmp_path / "part", _changed(tiny, steps=5))
    job = resume(tmp_path / "part", lambda recipe: override(recipe, {"training.steps": "12"}))
    assert job.trainer.steps_done == 5
    job.train(Stop(), lambda step, loss: None)
    _assert_same_run(tmp_path / "part", tmp_path / "whole")


def test_a_stop_between_two_steps_is_heard(tiny, tmp_path):
    stop = Stop()

    def after(step: int, loss: float) -> None:
        if step == 3:
            stop.signal = signal.SIGTERM

    begin(tmp_path / "run", tiny).train(stop, after)
    assert [f.name for f in checkpoint.folders(tmp_path / "run/checkpoints")] == ["step-00000000", "step-00000003"]


def test_what_a_step_computes_cannot_be_changed_half_way(tiny, tmp_path):
    _run(tmp_path / "run", _changed(tiny, steps=2))
    for place, value in (("training.learning_rate", "1"), ("process", "VE"), ("training.seed", "5")):
        with pytest.raises(RecipeError, match=place.split(".")[0]) as caught:
            resume(tmp_path / "run", lambda recipe, p=place, v=value: override(recipe, {p: v}))
        assert "half-way" in str(caught.value)


def test_the_kind_of_measure_cannot_be_changed_once_there_is_one(tiny, tmp_path):
    wanted = {"training.measure": "frechet", "training.steps": "3"}
    for every, name in ((0, "never"), (1, "measured")):
        _run(tmp_path / name, _changed(tiny, steps=2, measure_every=every))
    resume(tmp_path / "never", lambda recipe: override(recipe, wanted))
    with pytest.raises(RecipeError, match=r"training\.measure is loss .* cannot become frechet"):
        resume(tmp_path / "measured", lambda recipe: override(recipe, wanted))


def test_the_number_of_steps_cannot_be_changed_where_the_learning_rate_depends_on_it(tiny, tmp_path):
    _run(tmp_path / "run", _changed(tiny, steps=2, cooldown=0.5))
    with pytest.raises(RecipeError, match=r"training\.steps is 2 .* cannot become 9"):
        resume(tmp_path / "run", lambda recipe: override(recipe, {"training.steps": "9"}))


def test_of_many_processes_only_one_says_what_is_odd_about_the_images(tiny, tmp_path):
    from PIL import Image

    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    recipe = dataclasses.replace(tiny, data=Folder(str(tmp_path), broken="skip"))
    with pytest.warns(DataWarning, match=r"notes\.txt"):
        loud, _ = load_images(recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet, _ = load_images(recipe, aloud=False)
    assert torch.equal(loud.images, quiet.images)


def test_other_images_are_not_taken_for_those_of_the_run(tiny, tmp_path):
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    _run(tmp_path / "run", dataclasses.replace(_changed(tiny, steps=2), data=Folder(str(tmp_path / "images.npy"))))
    (tmp_path / "images.npy").rename(tmp_path / "moved.npy")
    moved = {"data.path": str(tmp_path / "moved.npy")}
    job = resume(tmp_path / "run", lambda recipe: override(recipe, {**moved, "training.steps": "3"}))
    job.train(Stop(), lambda *_: None)
    assert Run.open(tmp_path / "run").recipe().data.path == moved["data.path"]
    images[3, 0, 0] ^= 1
    np.save(tmp_path / "moved.npy", images)
    with pytest.raises(RunError, match="images have changed"):
        resume(tmp_path / "run", lambda recipe: recipe)


@pytest.mark.parametrize("broken", [1, 2])
def test_a_run_whose_newest_checkpoints_are_altered_goes_on_from_the_one_before_to_the_same_end(tiny, tmp_path, broken):
    _run(tmp_path / "whole", _changed(tiny, steps=12, save_every=3))
    _run(tmp_path / "run", _changed(tiny, steps=9, save_every=3))
    for step in (9, 6)[:broken]:
        file = tmp_path / f"run/checkpoints/step-{step:08d}/optimizer.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
    with pytest.warns(CheckpointWarning, match=r"optimizer\.safetensors: truncated or altered") as said:
        job = resume(tmp_path / "run", lambda recipe: override(recipe, {"training.steps": "12"}))
    assert len(said) == broken
    assert job.trainer.steps_done == 9 - 3 * broken
    job.train(Stop(), lambda step, loss: None)
    _assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_passed_over_checkpoint_never_outlives_the_good_one(tiny, tmp_path):
    """With a single checkpoint kept, the broken one counts for nothing."""
    _run(tmp_path / "run", _changed(tiny, steps=9, save_every=3, keep=2))
    (tmp_path / "run/checkpoints/step-00000009/ema.safetensors").write_bytes(b"broken")
    with pytest.warns(CheckpointWarning, match="going back to step-00000006"):
        job = resume(tmp_path / "run", lambda recipe: override(recipe, {"training.keep": "1"}))
    job.trainer.step()
    job.save()
    assert [f.name for f in checkpoint.folders(tmp_path / "run/checkpoints")] == ["step-00000007"]


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(tiny, tmp_path):
    job = begin(tmp_path / "run", tiny)
    good = job.trainer.loss
    job.trainer.loss = lambda *a: good(*a) * (float("nan") if job.trainer.steps_done == 6 else 1.0)
    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 7; the last good checkpoint is .*step-00000004"):
        job.train(Stop(), lambda step, loss: None)
    assert all(torch.isfinite(t).all() for t in _final(tmp_path / "run").values())
    resume(tmp_path / "run", lambda recipe: recipe).train(Stop(), lambda step, loss: None)
    _run(tmp_path / "whole", tiny)
    _assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_stopped_before_its_first_checkpoint_begins_again(tiny, tmp_path):
    Run.create(tmp_path / "run", tiny)
    resume(tmp_path / "run", lambda recipe: recipe).train(Stop(), lambda step, loss: None)
    _run(tmp_path / "whole", tiny)
    _assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_unreadable_images_leave_no_folder_behind(tiny, tmp_path):
    with pytest.raises(Exception, match="no such folder"):
        begin(tmp_path / "run", dataclasses.replace(tiny, data=Folder(str(tmp_path / "absent"))))
    assert not (tmp_path / "run").exists()


def test_every_checkpoint_says_what_it_was_made_with(tiny, tmp_path):
    _run(tmp_path / "run", _changed(tiny, steps=1))
    state = checkpoint.read(checkpoint.latest(tmp_path / "run/checkpoints")).state
    assert state["recipe"] == encode(_changed(tiny, steps=1))
    assert (state["threads"], state["torch"], state["levels"], state["shape"]) == (1, torch.__version__, 17, [1, 8, 8])
