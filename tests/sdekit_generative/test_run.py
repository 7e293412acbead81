import json
import shutil

import pytest
import torch

import sdekit_generative as sg
from sdekit_generative.errors import CheckpointError, CheckpointWarning, RecipeError, RunError
from sdekit_generative.run import Run, load
from sdekit_generative.training import checkpoint


def test_a_loaded_model_has_the_averaged_weights_and_scores(tiny_run, tiny):
    model = sg.load(tiny_run)
    saved = checkpoint.read(checkpoint.latest(tiny_run / "checkpoints"))
    assert all(torch.equal(p, saved.tensors["ema"][name]) for name, p in model.network.named_parameters())
    assert (model.shape, model.levels, model.process) == ((1, 8, 8), 17, tiny.process)
    assert not model.network.training
    x = torch.randn(3, 1, 8, 8)
    assert torch.isfinite(model(0.5, x)).all()


def test_a_run_can_be_loaded_without_its_recipe_file_being_touched(tiny_run, tiny):
    assert Run.open(tiny_run).recipe() == tiny


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "Recipe", "traning": 1}', '{"kind": "VP"}'])
def test_an_altered_recipe_file_is_named(tiny_run, tmp_path, content):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    (folder / "recipe.json").write_text(content)
    with pytest.raises(RecipeError, match=r"recipe\.json"):
        Run.open(folder).recipe()


def test_folders_that_are_not_runs_are_named(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        load(tmp_path / "absent")
    with pytest.raises(RunError, match="not a run folder"):
        load(tmp_path)


def test_nothing_is_ever_written_into_a_folder_that_holds_something(tiny_run, tiny, tmp_path):
    with pytest.raises(RunError, match="holds another run"):
        Run.create(tiny_run, tiny)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not empty"):
        Run.create(tmp_path, tiny)
    with pytest.raises(RunError, match="a file of that name"):
        Run.create(tmp_path / "thesis.txt", tiny)
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_broken_newest_checkpoint_is_passed_over_with_a_warning(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    file = folder / "checkpoints" / "step-00000012" / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(CheckpointWarning, match=r"ema\.safetensors: truncated.*going back to step-00000008"):
        model = load(folder)
    before = checkpoint.read(folder / "checkpoints" / "step-00000008")
    assert all(torch.equal(p, before.tensors["ema"][name]) for name, p in model.network.named_parameters())
    for other in checkpoint.folders(folder / "checkpoints"):
        (other / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"none of its checkpoints can be used: .*step-00000004"):
        load(folder)


def test_the_best_checkpoint_is_the_one_of_the_smallest_measure(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(CheckpointError, match="nothing was measured"):
        load(folder, which="best")
    root = folder / "checkpoints"
    saved = checkpoint.read(checkpoint.latest(root))
    for step, measure in ((13, 3.0), (14, 1.0), (15, 2.0), (16, float("nan")), (17, None)):
        average = {name: torch.full_like(t, step) for name, t in saved.tensors["ema"].items()}
        state = {**saved.state, "measure": measure}
        checkpoint.write(root, step, sg.training.Checkpoint({**saved.tensors, "ema": average}, state), keep=2)
    assert [f.name for f in checkpoint.folders(root)] == ["step-00000014", "step-00000016", "step-00000017"]
    assert float(next(load(folder, which="best").network.parameters()).flatten()[0]) == 14.0
    assert float(next(load(folder).network.parameters()).flatten()[0]) == 17.0
    with pytest.raises(ValueError, match="newest"):
        load(folder, which="last")  # type: ignore[arg-type]


def test_a_whole_checkpoint_of_something_else_is_refused(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    newest = checkpoint.latest(folder / "checkpoints")
    saved = checkpoint.read(newest)
    shutil.rmtree(newest)
    for state in ({}, {**saved.state, "recipe": "digits"}, {**saved.state, "shape": 3}):
        checkpoint.write(folder / "checkpoints", 12, sg.training.Checkpoint(saved.tensors, state), keep=3)
        with pytest.raises(CheckpointError, match="not the checkpoint of a model"):
            load(folder)
        shutil.rmtree(newest)


def test_two_processes_cannot_train_one_run(tiny_run):
    run = Run.open(tiny_run)
    with run.locked(), pytest.raises(RunError, match="another process"), run.locked():
        pass
    with run.locked():
        pass


def test_the_log_forgets_steps_that_will_be_done_again_and_half_written_lines(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    rows = Run.open(folder).log()
    assert [row["step"] for row in rows] == list(range(1, 13))
    with (folder / "log.jsonl").open("a") as stream:
        stream.write('{"step": 13, "lo')
    with Run.open(folder).logging(after=8) as log:
        log.row(step=9, loss=1.0)
    assert [row["step"] for row in Run.open(folder).log()] == list(range(1, 10))
    assert all(json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
