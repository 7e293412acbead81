"""Options that several commands share, and what every command leaves beside a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from sdekit_generative import recipes
from sdekit_generative.cli import main
from sdekit_generative.commands.options import Drawn, Taken
from sdekit_generative.errors import UserError, counted
from sdekit_generative.progress import work_bar


def images_of(file):
    with np.load(file.with_suffix(".npz")) as arrays:
        return arrays["images"]


@pytest.mark.parametrize(
    ("which", "usual", "span"),
    [
        (Drawn(), 64, range(64)),
        (Drawn(images="8-15"), 64, range(8, 16)),
        (Drawn(images="3", first=5), 64, range(5, 8)),
        (Drawn(first=2), 8, range(2, 10)),
        (Taken(images="7-7"), 4, range(7, 8)),
        (Taken(first=1), 4, range(1, 5)),
    ],
)
def test_images_are_named_by_their_numbers_or_by_how_many(which, usual, span):
    assert which.span(usual) == span


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (Drawn(images="9-3"), "the last number is below the first"),
        (Drawn(images="0-"), "such as 64, or their numbers, such as 0-63, got '0-'"),
        (Drawn(images="a folder"), "got 'a folder'"),
        (Drawn(images="-3"), "got '-3'"),
        (Drawn(images="0-3", first=2), "says already which is the first"),
        (Taken(images="0"), "expected 1 or more, got 0"),
        (Taken(first=-1), "--first: expected 0 or more"),
    ],
)
def test_numbers_that_name_no_images_are_refused(which, words):
    with pytest.raises(UserError, match=words):
        which.span(8)


def test_an_image_is_the_same_whichever_others_are_asked_for(tiny_run, tmp_path):
    drawn = {}
    for name, options in (
        ("all", ["--images=0-5"]),
        ("range", ["--images=2-4"]),
        ("count", ["--n=3", "--first=2"]),
    ):
        out = tmp_path / f"{name}.png"
        assert main(["sample", str(tiny_run), "--steps=24", "--seed=3", f"--out={out}", *options]) == 0
        drawn[name] = images_of(out)
    assert np.array_equal(drawn["range"], drawn["count"])
    assert np.array_equal(drawn["range"], drawn["all"][2:5])


def test_the_precision_of_the_network_is_an_option_and_recorded(tiny_run, tmp_path):
    drawn = {}
    for precision in ("float32", "bfloat16"):
        out = tmp_path / f"{precision}.png"
        options = ["--images=0-3", "--frames=3", "--sampler=fast", "--steps=8", f"--precision={precision}"]
        assert main(["film", str(tiny_run), *options, f"--out={out}"]) == 0
        with np.load(out.with_suffix(".npz")) as arrays:
            drawn[precision] = arrays["states"]
        told = json.loads(out.with_suffix(".json").read_text())
        assert told["model"]["precision"] == (None if precision == "float32" else precision)
        assert (told["checkpoint"], told["average"]) == ("newest", None)
    gap = np.abs(drawn["float32"] - drawn["bfloat16"])
    assert 0.0 < gap.max() < 0.02 * np.abs(drawn["float32"]).max()


@pytest.mark.parametrize(
    "command",
    [
        "sample", "film", "likelihood", "evaluate --metric=bpd", "restore --task=sr", "edit temper", "edit rework",
        "edit interpolate", "edit towards --label=1", "export",
    ],
)  # fmt: skip
def test_every_command_takes_the_best_checkpoint_or_another_average(tiny_run, tmp_path, capsys, command):
    out = tmp_path / "made.png"
    given = [*command.split(), str(tiny_run), *([] if command == "likelihood" else [f"--out={out}"])]
    for option, said in (("--checkpoint=best", "nothing was measured"), ("--average=0.1", "kept no snapshots")):
        assert main([*given, option]) == 2
        assert said in capsys.readouterr().err
    assert not out.exists()


def test_every_picture_has_beside_it_what_it_was_made_with(tiny_run, tmp_path):
    recipe = json.loads((tiny_run / "recipe.json").read_text())
    few = ["--steps=4", "--images=0-1"]
    for command, options, evaluations in (
        (["sample"], [*few, "--sampler=fast"], 5),
        (["film"], [*few, "--sampler=fast", "--frames=3"], 6),
        (["restore"], [*few, "--task=sr", "--n=2"], 5),
        (["edit", "rework"], few, 3),
        (["edit", "interpolate"], ["--images=2-3", "--frames=2", "--tolerance=0.1"], None),
        (["edit", "temper"], ["--images=0-1"], None),
        (["edit", "towards"], [*few, "--label=1", "--training=2"], 5),
    ):
        out = tmp_path / f"{command[-1]}.png"
        assert main([*command, str(tiny_run), *options, f"--out={out}"]) == 0
        about = json.loads(out.with_suffix(".json").read_text())
        assert recipes.decode(about["recipe"], recipes.Recipe) == recipes.decode(recipe, recipes.Recipe)
        assert set(about["versions"]) == {"sdekit", "torch", "python"}
        assert len(about["model"]["weights_sha256"]) == 64
        assert about["seconds"] > 0
        assert about["network_evaluations"] == evaluations or (evaluations is None and about["network_evaluations"] > 4)
        if command[-1] != "interpolate":  # nothing in it is drawn
            assert about["seed"] == 0


def test_bits_are_measured_of_the_images_that_are_named(tiny_run, capsys):
    found = []
    for images in ("0-3", "0-1", "2-3"):
        assert (
            main(["likelihood", str(tiny_run), f"--images={images}", "--tolerance=0.05", "--dequantise=truncated"]) == 0
        )
        found.append(json.loads(capsys.readouterr().out))
    assert [figures["images"] for figures in found] == [4, 2, 2]
    assert found[0]["bits_per_dim"] == pytest.approx(
        (found[1]["bits_per_dim"] + found[2]["bits_per_dim"]) / 2, abs=1e-4
    )
    assert main(["likelihood", str(tiny_run), "--images=300-301"]) == 2
    assert "there are images 0 to 299, got 300" in capsys.readouterr().err


def test_a_film_ends_with_the_images_that_sample_draws(tiny_run, tmp_path):
    same = [str(tiny_run), "--images=1-3", "--seed=2", "--sampler=fast", "--steps=6"]
    assert main(["sample", *same, f"--out={tmp_path / 's.png'}"]) == 0
    for ending in ("gif", "png"):
        out = tmp_path / f"{ending}.{ending}"
        assert main(["film", *same, "--frames=5", f"--out={out}"]) == 0
        assert main(["film", *same, f"--out={out}"]) == 2
    with np.load(tmp_path / "gif.npz") as arrays:
        states, levels = arrays["states"], arrays["log_sigma"]
    assert states.shape == (5, 3, 1, 8, 8)
    assert (np.diff(levels) < 0).all()
    last = np.clip(np.floor((np.clip(states[-1], -1, 1) + 1) / 2 * 17), 0, 16)
    assert np.abs(last - images_of(tmp_path / "s.png")).max() <= 1  # rounding of the network in another batch
    with Image.open(tmp_path / "gif.gif") as picture:
        assert (picture.n_frames, picture.size) == (5, (2 * 68 + 4, 2 * 68 + 4))
        shown = []
        for k in range(5):
            picture.seek(k)
            shown.append(picture.info["duration"])
        assert shown == [120] * 4 + [1500]
    with Image.open(tmp_path / "png.png") as picture:
        assert picture.size == (5 * 68 + 4, 3 * 68 + 4)


def test_the_papers_own_sampler_can_be_asked_for(tiny_run, tmp_path, capsys):
    out = tmp_path / "s.png"
    options = ["--sampler=song2021", "--steps=24", "--snr=0.1", "--predictor=ancestral", "--corrector=ald"]
    assert main(["sample", str(tiny_run), "--images=2", *options, f"--out={out}"]) == 0
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["sampler"]["kind"] == "Song2021PC"
    assert (about["sampler"]["predictor"], about["sampler"]["corrector"]) == ("ancestral", "ald")
    assert about["network_evaluations"] == 48
    assert main(["sample", str(tiny_run), "--sampler=ode", "--snr=0.1"]) == 2
    assert "--snr: is for --sampler pc or song2021" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_a_printed_recipe_can_be_edited_and_passed_back(name, tmp_path, capsys):
    assert main(["train", name, "--print-config", "--steps=7"]) == 0
    printed = capsys.readouterr().out
    edited = printed.replace('"steps": 7', '"steps": 9')
    file = tmp_path / "mine.json"
    file.write_text(edited)
    assert main(["train", str(file), "--print-config"]) == 0
    assert capsys.readouterr().out == edited
    assert recipes.find(str(file)) == recipes.override(recipes.RECIPES[name], {"training.steps": "9"})


def test_a_number_of_processes_that_is_none_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "x")
    assert main(["train", "digits", "--out", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "WORLD_SIZE is 'x'; start several processes by torchrun" in said


def test_progress_in_a_log_is_lines_with_the_rate_and_the_time_left(capsys, monkeypatch):
    from sdekit_generative import progress

    clock = iter([0.0, 0.0, *np.repeat([20.0, 40.0, 80.0], 3)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with work_bar("sampling", 64) as report:
        for fraction in (0.25, 0.5, 1.0):
            report(fraction)
    assert capsys.readouterr().err.splitlines() == [
        "sampling: 25 %, 20 s, 0.8 images/s, 60 s left",
        "sampling: 50 %, 40 s, 0.8 images/s, 40 s left",
        "sampling: 100 %, 80 s, 0.8 images/s",
    ]


def test_one_thing_is_not_said_as_if_there_were_more():
    said = [counted(n, thing) for n, thing in ((1, "channel"), (3, "channel"), (1, "class"), (0, "class"))]
    assert said == ["1 channel", "3 channels", "1 class", "0 classes"]
