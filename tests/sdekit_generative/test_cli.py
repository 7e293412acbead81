"""Every command, and every way to get one wrong: one clear line, status 2, nothing lost."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdekit.sdes.diffusion import VE
from sdekit_generative import recipes
from sdekit_generative.cli import main
from sdekit_generative.data import Folder
from sdekit_generative.training import checkpoint

TINY = ["--set=network.channels=8", "--set=network.multipliers=1,2", "--set=network.attention=1", "--batch=8"]


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "a run")


def _refused(capsys, *arguments: object, after: str = "") -> str:
    """The one line that a refused command says; `after` is what it may have said before on stdout."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == after
    assert err.count("\n") == 1, err
    assert err.startswith("sdekit-generative: error: ")
    assert "Traceback" not in err
    return err


def test_help_comes_without_torch():
    code = "import sys; from sdekit_generative.cli import main; main(['--help']); print('torch' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
    assert "demo" in done.stdout
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    assert worked < 0.5  # of this process's own time, whatever else the machine is doing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], 'Did you mean "train"'),
        (["train"], "say what to train: one of digits, folder"),
        (["train", "digit"], "did you mean digits"),
        (["train", "digits", "--stepps", "3"], "Did you mean --steps"),
        (["train", "digits", "--steps", "three"], "three"),
        (["train", "digits", "--steps", "-1"], "steps: expected 1 or more"),
        (["train", "digits", "--set", "training.stps=3"], "did you mean steps"),
        (["train", "digits", "--set", "training.steps"], "expected place=value"),
        (["train", "digits", "--device", "gpu9"], "not a device"),
        (["train", "digits", "--threads", "-1"], "Must be >= 1"),
        (["sample", "nowhere", "--n", "0"], "--images: expected 1 or more"),
        (["sample", "nowhere", "--sampler", "ode", "--steps", "9"], "--steps: is for --sampler pc"),
        (["train", "folder"], "data.path is not set"),
        (["train", "--resume"], "say which run"),
        (["train", "--resume", "nowhere"], "nowhere: there is no such run folder"),
        (["sample", "nowhere"], "nowhere: there is no such run folder"),
        (["likelihood", "nowhere"], "nowhere: there is no such run folder"),
        (["demo", "--resume", "--out", "nowhere"], "nowhere: there is no such run folder"),
        (["data", "check", "nowhere"], "nowhere: there is no such folder"),
        (["sample", "nowhere", "--sampler", "euler"], "euler"),
        (["sample"], "requires an argument"),
    ],
)
def test_a_mistake_is_answered_in_one_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in _refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_an_error_came_from(tmp_path):
    from sdekit_generative.errors import RunError

    with pytest.raises(RunError):
        main(["sample", str(tmp_path / "nowhere"), "--debug"])


def test_a_folder_that_holds_another_run_is_not_touched(capsys, run):
    before = sorted((f, f.stat().st_mtime_ns) for f in run.rglob("*"))
    assert "holds another run" in _refused(capsys, "train", "digits", "--out", run)
    assert "holds another run" in _refused(capsys, "demo", "--out", run)
    assert sorted((f, f.stat().st_mtime_ns) for f in run.rglob("*")) == before


def _harm(folder: Path, harm: str) -> None:
    file = folder / "ema.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    else:
        file.unlink()


@pytest.mark.parametrize("command", ["sample", "likelihood", "resume"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_run_whose_checkpoints_are_all_harmed_is_refused_by_their_names(capsys, run, command, harm):
    for place in checkpoint.folders(run / "checkpoints"):
        _harm(place, harm)
    arguments = ["train", "--resume", run] if command == "resume" else [command, run]
    said = _refused(capsys, *arguments)
    assert all(f"{step}/ema.safetensors" in said for step in ("step-00000004", "step-00000008", "step-00000012"))


@pytest.mark.parametrize("command", [["sample", "--n=1", "--steps=24"], ["train", "--resume"]])
def test_a_harmed_newest_checkpoint_is_passed_over_and_it_is_said_so(capsys, run, command):
    _harm(run / "checkpoints" / "step-00000012", "flip")
    assert main([command[0], str(run), *command[1:]]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "step-00000012/ema.safetensors: truncated or altered" in notes[0]
    assert "going back to step-00000008" in notes[0]
    if command[0] == "train":  # the steps since were made again, and the broken checkpoint is mended
        checkpoint.read(run / "checkpoints" / "step-00000012")


def test_a_file_that_is_no_image_is_named(capsys, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "b.txt").write_text("no image")
    for arguments in (
        ["data", "check", folder],
        ["train", "folder", "--set", f"data.path={folder}", "--out", tmp_path / "r"],
    ):
        assert "b.txt: not an image" in _refused(capsys, *arguments)
    assert not (tmp_path / "r").exists()


def test_a_loss_that_is_not_a_number_ends_with_status_two_and_the_step(capsys, tmp_path, monkeypatch):
    from sdekit_generative.losses import DenoisingLoss

    good, calls = DenoisingLoss.__call__, []

    def poisoned(self, *arguments):
        calls.append(1)
        return good(self, *arguments) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(DenoisingLoss, "__call__", poisoned)
    said = _refused(
        capsys,
        *["train", "digits", "--steps=5", "--set=training.save_every=2", *TINY, "--out", tmp_path / "r"],
        after="training in 1 process on cpu\n",
    )
    assert "loss is nan at step 3" in said
    assert "step-00000002" in said


def test_a_run_is_trained_sampled_and_measured(capsys, tmp_path):
    run = tmp_path / "run"
    assert main(["train", "digits", "--steps=3", *TINY, "--out", str(run), "--seed=4", "--device=cpu"]) == 0
    assert main(["sample", str(run), "--n=3", "--first=2", "--steps=24", "--seed=5"]) == 0
    assert (
        main(["sample", str(run), "--n=2", "--sampler=ode", "--tolerance=0.01", "--out", str(tmp_path / "o.png")]) == 0
    )
    for name, count in (("run/samples-pc-seed5-2-4", 3), ("o", 2)):
        with np.load(tmp_path / f"{name}.npz") as arrays:
            assert arrays["images"].shape == (count, 1, 8, 8)
            assert arrays["images"].max() < 17
        Image.open(tmp_path / f"{name}.png").verify()
    capsys.readouterr()
    np.save(tmp_path / "held.npy", np.random.default_rng(0).integers(0, 17, (3, 8, 8), dtype=np.uint8))
    assert main(["likelihood", str(run), "--data", str(tmp_path / "held.npy"), "--tolerance=0.01"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["images"] == 3
    assert np.isfinite(figures["bits_per_dim"])


def test_likelihoods_may_be_taken_under_another_law_of_dequantisation(capsys, run, tmp_path, monkeypatch):
    from sdekit_generative.commands import likelihood

    monkeypatch.setattr(likelihood, "_FIT", 2)
    np.save(tmp_path / "held.npy", np.random.default_rng(0).integers(0, 17, (3, 8, 8), dtype=np.uint8))
    for law in ("truncated", "learned"):
        command = [
            "likelihood",
            str(run),
            "--data",
            str(tmp_path / "held.npy"),
            "--tolerance=0.01",
            "--dequantise",
            law,
        ]
        capsys.readouterr()
        assert main(command) == 0
        figures = json.loads(capsys.readouterr().out)
        assert figures["dequantise"] == law
        assert np.isfinite(figures["bits_per_dim"])


def test_checkpoints_and_averages_that_a_run_does_not_have_are_said(capsys, run):
    assert "nothing was measured during training" in _refused(capsys, "sample", run, "--checkpoint=best")
    assert "kept no snapshots" in _refused(capsys, "sample", run, "--average=0.1")


def test_the_recipes_are_listed(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(recipes.RECIPES)
    assert any(line.split() == ["cifar10-ncsnpp-ve", "Cifar10,", "VE,", "NCSNpp"] for line in lines)


def test_existing_pictures_are_not_overwritten(capsys, run, tmp_path):
    (tmp_path / "o.png").write_text("mine")
    assert "exists already" in _refused(capsys, "sample", run, "--out", tmp_path / "o.png")
    assert (tmp_path / "o.png").read_text() == "mine"
    assert "ending in .png" in _refused(capsys, "sample", run, "--out", tmp_path / "o.jpg")


def test_images_that_do_not_fit_the_model_are_refused(capsys, run, tmp_path):
    np.save(tmp_path / "big.npy", np.zeros((2, 9, 9), dtype=np.uint8))
    np.save(tmp_path / "bright.npy", np.full((2, 8, 8), 17, dtype=np.uint8))
    assert "big.npy: has images of 9×9 pixels" in _refused(capsys, "likelihood", run, "--data", tmp_path / "big.npy")
    assert "17 levels" in _refused(capsys, "likelihood", run, "--data", tmp_path / "bright.npy")


def test_data_check_says_what_it_sees(capsys, tmp_path):
    for i in range(6):
        Image.new("RGB", (9, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    assert main(["data", "check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(
        "6 images of 9×8 pixels, 3 channels, 256 levels\n5 for training, 1 held out"
    )


def test_data_check_suggests_a_noise_level_and_writes_a_recipe_that_trains(capsys, tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.fromarray(generator.integers(0, 256, (10, 8, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    file = tmp_path / "mine.json"
    command = ["data", "check", tmp_path / "images", "--size=8", "--write", file]
    assert "notes.txt: not an image" in _refused(capsys, *command)
    assert not file.exists()
    assert main([str(a) for a in [*command, "--broken=skip", "--set=process=VE", "--set=network.channels=8"]]) == 0
    out, err = capsys.readouterr()
    assert "note: 1 file left out: " in err
    level = float(out.split("suggested sigma_max ")[1].split()[0])
    assert f"mine.json: a recipe with VE, sigma_max {level:g}" in out
    recipe = recipes.find(str(file))
    assert recipe.process == VE(sigma_max=level)
    assert recipe.data == Folder(str(tmp_path / "images"), size=8, broken="skip")
    assert "exists already" in _refused(capsys, *command)
    run = tmp_path / "run"
    assert (
        main(
            [
                "train",
                str(file),
                "--out",
                str(run),
                "--steps=1",
                "--batch=4",
                "--set=network.multipliers=1",
                "--set=network.attention=[]",
            ]
        )
        == 0
    )
    assert recipes.read(run / "recipe.json").process.sigma_max == level


def test_images_are_converted_once_and_read_from_the_array_afterwards(capsys, tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.new("RGB", (9, 8), (i, i, 255)).save(tmp_path / "images" / f"{i}.png")
    for name in ("a.npy", "a.npz"):
        assert main(["data", "convert", str(tmp_path / "images"), str(tmp_path / name)]) == 0
        data = Folder(str(tmp_path / name)).load()
        assert (data.shape, data.levels) == ((3, 8, 9), 256)
        assert sorted(data.images[:, 0, 0, 0].tolist()) == list(range(6))
    assert "exists already" in _refused(capsys, "data", "convert", tmp_path / "images", tmp_path / "a.npy")
    assert "ending in .npz or .npy" in _refused(capsys, "data", "convert", tmp_path / "images", tmp_path / "a.zip")


def _classes(folder: Path) -> Path:
    """Images of 10 × 8 pixels by class, some of them to be held out."""
    for i, place in enumerate(("train/cat", "train/cat", "train/ant", "train/ant", "test/cat", "test/ant")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        Image.new("L", (10, 8), 20 * i).save(folder / place / f"{i}.png")
    return folder


def test_data_check_names_the_classes_and_writes_a_recipe_of_as_many(capsys, tmp_path):
    images, file, other = _classes(tmp_path / "images"), tmp_path / "mine.json", tmp_path / "other.json"
    look = ["data", "check", str(images), "--size=8", "--channels=1"]
    assert main([*look, "--set=data.classes=true", "--recipe=digits-classes", "--write", str(file)]) == 0
    assert "4 for training, 2 held out; 2 classes: 0 ant, 1 cat" in capsys.readouterr().out
    recipe = recipes.find(str(file))
    assert recipe.data == Folder(str(images), size=8, channels=1, classes=True)
    assert recipe.network.classes == 2
    assert main([*look, "--classes", "--write", str(other)]) == 0
    assert "--set network.classes=2" in capsys.readouterr().out
    assert recipes.find(str(other)).data == recipe.data


def test_what_is_held_out_and_the_classes_outlive_the_conversion_to_an_array(tmp_path):
    images, array = _classes(tmp_path / "images"), tmp_path / "a.npz"
    assert main(["data", "convert", str(images), str(array), "--classes", "--size=8", "--channels=1"]) == 0
    for data in (Folder(str(array)).load(), Folder(str(images), 8, 1, classes=True).load()):
        training, held_out = data.split()
        told = [
            sorted(zip(p.images[:, 0, 0, 0].tolist(), p.labels.tolist(), strict=True)) for p in (training, held_out)
        ]
        assert told == [[(0, 1), (20, 1), (40, 0), (60, 0)], [(80, 1), (100, 0)]]


def test_images_of_any_size_are_brought_to_that_of_the_model_for_its_likelihood(capsys, run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("L", (12, 10), 9).save(images / "a.png")
    Image.new("L", (9, 15), 16).save(images / "b.png")
    assert main(["likelihood", str(run), "--data", str(images), "--tolerance=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2


def test_the_recipe_can_be_printed_and_tried_out_without_writing_anything(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *TINY, "--print-config", "--set=process=VE"]) == 0
    printed = recipes.decode(json.loads(capsys.readouterr().out), recipes.Recipe)
    assert (printed.process, printed.training.batch) == (VE(), 8)
    assert main(["train", "digits", *TINY, "--dry-run", "--threads=1"]) == 0
    said = capsys.readouterr().out
    assert "1497 images of 8×8 pixels, 1 channel, 17 levels" in said
    assert "one step of 8 images: loss" in said
    assert "1,300 steps at that rate: " in said
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r.json").write_text('{"kind": "Recipe", "traning": 1}')
    assert "r.json: recipe: Recipe has no traning; did you mean training?" in _refused(capsys, "train", "r.json")


def test_one_may_train_on_images_of_ones_own(tmp_path):
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (10, 8, 3), dtype=np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    changes = [
        f"--set=data.path={tmp_path}",
        "--set=data.size=8",
        "--set=network.multipliers=1",
        "--set=network.attention=[]",
    ]
    run = tmp_path.with_name("run of mine")
    assert (
        main(["train", "folder", "--out", str(run), "--steps=2", "--batch=4", "--set=network.channels=8", *changes])
        == 0
    )
    assert main(["sample", str(run), "--n=1", "--steps=24"]) == 0


def test_the_number_of_threads_is_noted_and_a_change_is_said(capsys, run):
    threads = torch.get_num_threads()
    assert main(["train", "--resume", str(run), "--steps", "13"]) == 0
    assert "note:" not in capsys.readouterr().err
    assert torch.get_num_threads() == 1
    try:
        assert main(["train", "--resume", str(run), "--steps", "14", "--threads", "2"]) == 0
        assert "begun with 1 threads, going on with 2" in capsys.readouterr().err
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("command", [["sample", "--steps=24"], ["sample", "--sampler=ode"], ["likelihood"]])
def test_a_model_whose_weights_are_not_numbers_is_said_to_be_so(capsys, run, command):
    newest = checkpoint.latest(run / "checkpoints")
    saved = checkpoint.read(newest)
    shutil.rmtree(newest)
    saved.tensors["ema"]["leave.bias"].fill_(float("nan"))
    checkpoint.write(run / "checkpoints", 12, saved, keep=3)
    assert main([command[0], str(run), *command[1:], "--threads=1"]) == 2
    *progress, said = capsys.readouterr().err.splitlines()
    assert "a run: the model gives no finite result for" in said
    assert all(" %" in line for line in progress)
