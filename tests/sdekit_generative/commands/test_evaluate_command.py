"""`evaluate` and `data statistics`, and every way to get them wrong: one clear line, status 2, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdekit_generative.cli import main
from sdekit_generative.data import Digits
from sdekit_generative.metrics import DigitFeatures, Statistics, measure_images
from sdekit_generative.metrics.inception import Inception

QUICK = ["--sampler=fast", "--steps=3", "--images=24", "--batch=8", "--bits-tolerance=0.3"]


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "a run")


@pytest.fixture(scope="module")
def small_data(tmp_path_factory) -> Path:
    """A few digits as an array."""
    file = tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(file, images=Digits().load().images[:12].numpy(), levels=17)
    return file


_IN_PASSING = ("sampling:", "features", "likelihood:", "note: 1 image converted")


def _refused(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [
        line
        for line in err.splitlines()
        if not line.startswith(("sampling:", "features", "likelihood:", "note: 1 image converted"))
    ]
    assert len(lines) == 1, err
    assert lines[0].startswith("sdekit-generative: error: ")
    assert "Traceback" not in err
    return lines[0]


def test_a_run_is_evaluated_and_gone_on_with(run, small_data, capsys):
    ask = ["evaluate", str(run), *QUICK, f"--data={small_data}"]
    assert main([*ask, "--metric=fid,kid,is,pr,bpd", "--repeats=2"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    folder = Path(said.pop("folder"))
    kept = json.loads((folder / "evaluation.json").read_text())
    assert kept["metrics"] == said
    assert set(said) == {"fid", "kid", "inception_score", "precision", "recall", "bits_per_dim"}
    assert kept["recipe"]["kind"] == "Recipe"
    assert kept["images"]["sampler"]["kind"] == "Fast"
    assert kept["images"]["seed"] == 0
    assert kept["features"]["network"] == "digit-classifier"
    assert kept["reference"]["images"]["count"] == 12
    assert set(kept["versions"]) == {"sdekit", "torch", "python"}
    assert "note: precision and recall: of the first 12 images" in err
    assert "note: fid: 24 images for 32 features" in err
    times = {f: f.stat().st_mtime_ns for f in folder.rglob("*.npz")}
    assert main([*ask, "--metric=fid"]) == 0
    assert json.loads(capsys.readouterr().out)["fid"] == said["fid"]
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*.npz")} == times


def test_statistics_are_made_and_compared_with(run, small_data, tmp_path, capsys):
    file = tmp_path / "there" / "digits.npz"
    assert main(["data", "statistics", str(small_data), f"--out={file}", "--channels=1", "--keep"]) == 0
    assert f"12 images, 32 features of digit-classifier: {file}" in capsys.readouterr().out
    ask = ["evaluate", str(run), *QUICK, "--metric=fid,kid"]
    assert main([*ask, f"--reference={file}"]) == 0
    by_file = json.loads(capsys.readouterr().out)
    assert main([*ask, f"--data={small_data}"]) == 0
    by_images = json.loads(capsys.readouterr().out)
    assert by_file["fid"] == pytest.approx(by_images["fid"], rel=1e-6)
    assert by_file["kid"]["mean"] == pytest.approx(by_images["kid"]["mean"], rel=1e-6)
    assert "exists already" in _refused(capsys, "data", "statistics", "digits", f"--out={file}")


def test_a_picture_has_what_it_was_made_with_beside_it(run, capsys):
    assert main(["sample", str(run), "--n=2", "--sampler=fast", "--steps=3", "--solver=DPMSolverPP", "--order=3"]) == 0
    about = json.loads((run / "samples-fast-seed0-0-1.json").read_text())
    assert about["sampler"]["solver"] == {"kind": "DPMSolverPP", "order": 3, "eta": None}
    assert (about["n"], about["seed"], about["network_evaluations"]) == (2, 0, 4)
    assert len(about["model"]["weights_sha256"]) == 64


def test_images_that_a_metric_does_not_need_need_not_be_there(run, small_data, capsys, monkeypatch):
    monkeypatch.setattr(Digits, "load", lambda self: pytest.fail("the images were loaded"))
    assert main(["evaluate", str(run), *QUICK, "--metric=is"]) == 0
    assert json.loads(capsys.readouterr().out)["inception_score"]["mean"] > 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric=fidd"], "expected some of fid, kid, is, pr, bpd, got"),
        (["--metric="], "expected some of fid"),
        (["--images=8-31"], "takes images from 0 on"),
        (["--images=1"], "n: the number of images must be an integer of 2 or more, got 1"),
        (["--images=3", "--metric=pr"], "pr: needs 4 images or more of each set, made and real; there are 3"),
        (["--images=3", "--metric=is"], "is: needs 10 images or more"),
        (["--steps=0"], "--sampler fast: Fast: steps must be an integer of 1 or more"),
        (["--solver=DPMSolver3"], "--solver: there is no DPMSolver3; did you mean DPMSolver"),
        (["--solver=DDIM", "--order=2"], "--order: DDIM comes in one order only"),
        (["--solver=UniPC", "--order=9"], "order must be an integer from 1 to 3"),
        (["--sampler=pc", "--churn=1"], "--churn: is for --sampler fast; --sampler pc takes --steps"),
        (["--classes=3", "--label=1"], "not both"),
        (["--label=1"], "labels were given to a "),
        (["--features=nowhere.pth"], "nowhere.pth: there is no such file"),
        (["--reference=nowhere.npz"], "nowhere.npz: there is no such file"),
        (["--data=nowhere"], "nowhere: there is no such"),
        (["--bits-tolerance=0"], "tolerance must be positive"),
        (["--device=gpu9"], "gpu9 is not a device"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(run, small_data, capsys, arguments, said):
    asked = {word.split("=")[0]: word for word in [*QUICK, f"--data={small_data}", *arguments]}
    assert said in _refused(capsys, "evaluate", run, *asked.values())


def test_a_folder_of_images_that_does_not_fit_is_said_in_one_line(run, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in _refused(capsys, "evaluate", run, *QUICK, f"--data={empty}")
    (empty / "notes.txt").write_text("hello")
    assert "notes.txt" in _refused(capsys, "evaluate", run, *QUICK, f"--data={empty}")
    Image.new("L", (30, 20), 7).save(tmp_path / "empty" / "a.png")
    (empty / "notes.txt").unlink()
    # ordinary images have 256 levels, which digits have not
    assert "256 levels; the model is of (1, 8, 8) with 17" in _refused(
        capsys, "evaluate", run, *QUICK, f"--data={empty}"
    )
    assert "2 images or more, got 1" in _refused(
        capsys, "data", "statistics", empty, f"--out={tmp_path / 'x.npz'}", "--features", _weights(tmp_path)
    )
    assert "--features: give the weights" in _refused(
        capsys, "data", "statistics", empty, f"--out={tmp_path / 'x.npz'}"
    )
    assert "ending in .npz" in _refused(capsys, "data", "statistics", "digits", f"--out={tmp_path / 'x.png'}")


def _weights(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.save(Inception().state_dict(), folder / "inception.pth")
    return folder / "inception.pth"


def test_statistics_of_another_feature_network_are_refused(run, tmp_path, capsys):
    measure_images(Digits().load().select(torch.arange(9)), DigitFeatures()).save(tmp_path / "s.npz")
    weights = _weights(tmp_path)
    said = _refused(
        capsys, "evaluate", run, *QUICK, "--metric=fid", f"--features={weights}", f"--reference={tmp_path}/s.npz"
    )
    assert "made with network digit-class" in said
    assert "the feature network here is network inception-20" in said
    said = _refused(capsys, "evaluate", run, *QUICK, "--metric=kid", f"--reference={tmp_path}/s.npz")
    assert "the reference has no features; make it with them kept" in said
    bare = Statistics.load(tmp_path / "s.npz")
    np.savez(tmp_path / "bare.npz", mu=np.zeros(7), sigma=np.eye(7))
    assert bare.provenance
    said = _refused(capsys, "evaluate", run, *QUICK, "--metric=fid", f"--reference={tmp_path}/bare.npz")
    assert "the reference has 7 features, the feature network gives 32" in said


def test_a_model_that_gives_nan_is_blamed(run, small_data, capsys, monkeypatch):
    from sdekit_generative import run as module

    load = module.load

    def broken(*arguments, **options):
        model = load(*arguments, **options)
        next(model.network.parameters()).fill_(torch.nan)
        return model

    monkeypatch.setattr(module, "load", broken)
    said = _refused(capsys, "evaluate", run, *QUICK, "--metric=is")
    assert "gives no finite result for 8 images; was its training unstable?" in said
    said = _refused(capsys, "evaluate", run, *QUICK, "--metric=bpd", f"--data={small_data}")
    assert "no finite result" in said


def test_a_run_that_is_not_there_or_not_one_is_said_in_one_line(tmp_path, capsys):
    assert "there is no such run folder" in _refused(capsys, "evaluate", tmp_path / "nowhere", *QUICK)
    assert "not a run folder" in _refused(capsys, "evaluate", tmp_path, *QUICK)


def test_a_world_that_does_not_fit_is_said_in_one_line(run, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert "WORLD_SIZE is 2 but RANK is not set; start by torchrun" in _refused(capsys, "evaluate", run, *QUICK)


def _environment() -> dict[str, str]:
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_torchrun_measures_what_one_process_measures(run, small_data, capsys, tmp_path):
    ask = ["evaluate", str(run), *QUICK, f"--data={small_data}", "--metric=fid,bpd"]
    assert main(ask) == 0
    alone = json.loads(capsys.readouterr().out)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "sdekit_generative", *ask, f"--out={tmp_path / 'two'}"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=True)
    two = json.loads(done.stdout)
    for found in (alone, two):
        del found["folder"], found["bits_per_dim"]["seconds"]
    assert two == alone


@pytest.mark.slow
def test_sigterm_ends_an_evaluation_quietly_and_it_is_gone_on_with(run, small_data):
    ask = ["evaluate", str(run), "--sampler=pc", "--steps=60", "--n=64", "--batch=4", "--metric=is"]
    process = subprocess.Popen([sys.executable, "-m", "sdekit_generative", *ask], env=_environment(), text=True)
    kept = run / "evaluations"
    while not list(kept.glob("*/images/0*.npz")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    before = {f: f.read_bytes() for f in kept.glob("*/images/0*.npz")}
    assert 1 <= len(before) < 16
    subprocess.run([sys.executable, "-m", "sdekit_generative", *ask], env=_environment(), check=True)
    assert len(list(kept.glob("*/images/0*.npz"))) == 16
    assert all(f.read_bytes() == content for f, content in before.items())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the workers of torchrun are found in /proc")
def test_a_process_killed_among_two_loses_nothing_and_one_goes_on_alone(run, tmp_path, capsys):
    ask = ["evaluate", str(run), "--sampler=pc", "--steps=60", "--images=64", "--batch=4", "--metric=is"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    folder = tmp_path / "two"
    command = [*launch, "-m", "sdekit_generative", *ask, f"--out={folder}"]
    process = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(folder.glob("images/0*.npz"))) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait() != 0
    before = {f: f.read_bytes() for f in folder.glob("images/0*.npz")}
    assert 3 <= len(before) < 16
    capsys.readouterr()
    found = []
    for out in (folder, tmp_path / "one"):
        assert main([*ask, f"--out={out}"]) == 0
        found.append(json.loads(capsys.readouterr().out)["inception_score"])
    assert found[0] == found[1]
    assert all(f.read_bytes() == content for f, content in before.items())
