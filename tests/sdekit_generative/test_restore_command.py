"""The command `restore`: its files, its figures, and every way to get it wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sdekit_generative.cli import main
from sdekit_generative.commands.restore import Settings, _operator
from sdekit_generative.inverse.page import as_images, page

FEW = ["--steps=4", "--n=2", "--count=2"]


@pytest.mark.parametrize("task", ["inpaint", "sr", "deblur", "motion", "cs", "mri", "ct", "phase", "jpeg"])
def test_every_task_leaves_a_picture_figures_and_samples(task, tiny_run, tmp_path):
    out = tmp_path / "page.png"
    assert main(["restore", str(tiny_run), f"--task={task}", *FEW, f"--out={out}"]) == 0
    with Image.open(out) as picture:
        assert picture.width == 6 * 68 + 4  # truth, observation, two samples, mean, standard deviation
        assert picture.height == 2 * 68 + 4 + 14
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["task"] == task
    assert figures["images"] == figures["samples"] == 2
    assert figures["network_evaluations"] == 5
    assert figures["residual"] > 0
    assert 0 < figures["psnr_mean"] < 60
    with np.load(out.with_suffix(".npz")) as arrays:
        assert arrays["samples"].shape == (2, 2, 1, 8, 8)


@pytest.mark.parametrize(
    "method", ["pigdm", "tmpd", "dps", "ddnm", "diffpir", "replacement", "projection", "repaint", "smc"]
)
def test_every_method_can_be_named(method, tiny_run, tmp_path):
    out = tmp_path / "page.png"
    arguments = ["--task=inpaint", f"--method={method}", *FEW, f"--out={out}", "--mask=border"]
    assert main(["restore", str(tiny_run), *arguments]) == 0


def test_observations_can_be_given_and_the_seed_says_which_samples(tiny_run, tmp_path):
    y = np.full((1, 1, 4, 4), 0.5, dtype=np.float32)
    np.save(tmp_path / "y.npy", y)
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.png"
        arguments = [str(tmp_path / "y.npy"), "--observed", "--task=sr", *FEW, f"--seed={seed}", f"--out={out}"]
        assert main(["restore", str(tiny_run), *arguments]) == 0
        assert "psnr_mean" not in json.loads(out.with_suffix(".json").read_text())
        with np.load(out.with_suffix(".npz")) as arrays:
            found.append(arrays["samples"])
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_a_mask_can_be_an_image(tiny_run, tmp_path):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "page.png"
    arguments = ["--task=inpaint", f"--mask={tmp_path / 'mask.png'}", *FEW, f"--out={out}"]
    assert main(["restore", str(tiny_run), *arguments]) == 0
    with np.load(out.with_suffix(".npz")) as arrays:
        seen = (arrays["observed"] != 0).any(axis=(0, 1, 3))
    assert seen.tolist() == [False, False, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task=colorize"], "no colour"),
        (["--task=inpaint", "--mask=middle"], "--mask"),
        (["--task=inpaint", "--noise=-1"], "--noise"),
        (["--task=inpaint", "--noise=0", "--method=smc", "--steps=2"], "noise > 0"),
        (["--task=sr", "--factor=3"], "3 does not divide 8"),
        (["--task=phase", "--method=ddnm"], "linear operator"),
        (["--task=sr", "--observed"], ".npy"),
        (["--task=inpaint", "--first=99999"], "--first"),
        (["--task=inpaint", "--out=page.jpg"], ".png"),
        (["--task=undo"], "undo"),
        (["nothing-there", "--task=sr"], "nothing-there"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, words, tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["restore", str(tiny_run), *arguments]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sdekit-generative: error")]
    assert len(err) == 1
    assert words in err[0]


def test_colours_are_asked_of_models_that_have_them():
    operator = _operator("colorize", Settings(), (3, 8, 8), 0)
    assert operator(torch.ones(1, 3, 8, 8)).shape == (1, 1, 8, 8)
    shown = as_images(operator, torch.full((2, 1, 8, 8), 0.5), (3, 8, 8))
    assert page(None, shown, torch.rand(2, 2, 3, 8, 8)).mode == "RGB"


def test_nothing_is_overwritten(tiny_run, tmp_path, capsys):
    out = tmp_path / "page.png"
    out.with_suffix(".json").write_text("kept")
    assert main(["restore", str(tiny_run), "--task=sr", *FEW, f"--out={out}"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.with_suffix(".json").read_text() == "kept"
