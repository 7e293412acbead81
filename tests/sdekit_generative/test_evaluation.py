import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch

import sdekit as sk
from sdekit.processes import Processes
from sdekit_generative import bits_per_dim, draw, load
from sdekit_generative.data import Digits, quantise
from sdekit_generative.errors import UserError
from sdekit_generative.evaluation import Bits, Images, evaluate
from sdekit_generative.metrics import (
    DigitFeatures,
    Statistics,
    digit_features,
    frechet_distance,
    kernel_distance,
    measure_images,
    precision_recall,
)
from sdekit_generative.samplers import Fast

DIGITS = Digits().load().select(torch.arange(60))
FEW = Images(n=50, sampler=Fast(steps=4), seed=3, batch=16)
ALL = ("fid", "kid", "is", "pr", "bpd")
QUICK = Bits(repeats=2, tolerance=1e-1, batch=25)


def test_the_figures_are_those_of_the_images_and_the_data(tiny_run, tmp_path):
    model = load(tiny_run)
    found = evaluate(
        model, DIGITS, metrics=ALL, images=FEW, bits=QUICK, features=DigitFeatures(), folder=tmp_path / "e"
    )
    levels = quantise(draw(model, 50, FEW.sampler, seed=3, batch=16).images, 17)
    fake, real = digit_features(levels), digit_features(DIGITS.images)
    metrics = found["metrics"]
    assert metrics["fid"] == pytest.approx(frechet_distance(fake, real), rel=1e-6)
    assert metrics["kid"]["mean"] == pytest.approx(kernel_distance(real, fake, seed=3).mean, rel=1e-6)
    both = precision_recall(real[:50], fake)
    assert (metrics["precision"], metrics["recall"]) == (both.precision, both.recall)
    assert 1.0 <= metrics["inception_score"]["mean"] <= 10.0
    assert found["images"]["network_evaluations"] == 5
    assert found["images"]["sampler"] == {
        "kind": "Fast",
        "solver": {"kind": "AngularAdams", "order": 3, "sigma_data": 0.5, "eta": None},
        "steps": 4,
        "grid": None,
        "churn": 0.0,
        "t_end": 1e-3,
    }
    bits = metrics["bits_per_dim"]
    twice = [
        bits_per_dim(model, DIGITS.images, steps=sk.Adaptive(1e-1, 1e-1), seed=0, first=60 * r, batch=60)
        for r in (0, 1)
    ]
    assert bits["repeats"] == pytest.approx([b.mean for b in twice], abs=1e-4)
    assert bits["mean"] == pytest.approx(sum(b.mean for b in twice) / 2, abs=1e-4)
    each = (twice[0].per_image + twice[1].per_image) / 2
    assert bits["standard_error"] == pytest.approx(float(each.std()) / math.sqrt(60), rel=1e-3)
    assert found["notes"] == [
        "precision and recall: of the first 50 images of both sets, since they depend on the number"
    ]
    json.dumps(found, allow_nan=False)


def test_a_folder_is_gone_on_with_and_nothing_is_made_twice(tiny_run, tmp_path, monkeypatch):
    model, folder = load(tiny_run), tmp_path / "e"
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    small = evaluate(model, DIGITS, images=dataclasses.replace(FEW, n=32), features=DigitFeatures(), folder=folder)
    assert len(calls) == 2 * 5
    again = evaluate(model, DIGITS, images=dataclasses.replace(FEW, n=32), features=DigitFeatures(), folder=folder)
    assert len(calls) == 2 * 5
    assert again == small
    more = evaluate(model, DIGITS, metrics=("fid", "is"), images=FEW, features=DigitFeatures(), folder=folder)
    assert len(calls) == 4 * 5
    fresh = evaluate(model, DIGITS, metrics=("fid", "is"), images=FEW, features=DigitFeatures())
    assert more["metrics"] == fresh["metrics"]


def test_a_folder_of_another_evaluation_is_left_alone(tiny_run, gaussian, tmp_path):
    model, folder = load(tiny_run), tmp_path / "e"
    how = {"features": DigitFeatures(), "folder": folder}
    evaluate(model, DIGITS, images=dataclasses.replace(FEW, n=16), **how)
    with pytest.raises(UserError, match=r"holds an evaluation with images\.seed 3, not 4; choose another folder"):
        evaluate(model, DIGITS, images=dataclasses.replace(FEW, seed=4), **how)
    with pytest.raises(UserError, match=r"images\.sampler\.steps 4, not 5"):
        evaluate(model, DIGITS, images=dataclasses.replace(FEW, sampler=Fast(steps=5)), **how)
    with torch.no_grad():
        next(model.network.parameters()).add_(1e-3)
    with pytest.raises(UserError, match=r"model\.weights_sha256"):
        evaluate(model, DIGITS, images=FEW, **how)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds something else than an evaluation"):
        evaluate(model, DIGITS, images=FEW, features=DigitFeatures(), folder=tmp_path / "mine")
    (folder / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json: cannot be read"):
        evaluate(model, DIGITS, images=FEW, **how)


def test_a_folder_at_work_is_left_alone(tiny_run, tmp_path):
    model, asked = load(tiny_run), dataclasses.replace(FEW, n=16)
    seen = []

    class Nosy(DigitFeatures):
        def __call__(self, images, levels):
            if len(images) > 1 and not seen:
                with pytest.raises(UserError, match="another evaluation is at work there"):
                    evaluate(model, DIGITS, images=asked, features=DigitFeatures(), folder=tmp_path / "e")
                seen.append(True)
            return super().__call__(images, levels)

    evaluate(model, DIGITS, images=asked, features=Nosy(), folder=tmp_path / "e")
    assert seen


def test_statistics_in_a_file_stand_for_the_images(tiny_run, tmp_path):
    model = load(tiny_run)
    measure_images(DIGITS, DigitFeatures(), keep=True).save(tmp_path / "s.npz")
    reference = Statistics.load(tmp_path / "s.npz")
    how = {"metrics": ("fid", "kid", "pr"), "images": FEW, "features": DigitFeatures()}
    ours = evaluate(model, reference=reference, **how)["metrics"]
    theirs = evaluate(model, DIGITS, **how)["metrics"]
    assert ours["fid"] == pytest.approx(theirs["fid"], rel=1e-6)
    assert ours["kid"]["mean"] == pytest.approx(theirs["kid"]["mean"], rel=1e-6)
    assert ours["precision"] == theirs["precision"]
    bare = dataclasses.replace(reference, features=None, provenance={})
    found = evaluate(model, reference=bare, images=FEW, features=DigitFeatures())
    assert found["metrics"]["fid"] == pytest.approx(ours["fid"], rel=1e-6)
    assert "no provenance" in found["notes"][0]


def test_classes_go_round_whatever_the_chunks():
    images = Images(classes=3)
    assert images.labels(range(4, 9)).tolist() == [1, 2, 0, 1, 2]
    assert Images(label=2).labels(range(4, 9)) == 2
    with pytest.raises(ValueError, match="not both"):
        Images(classes=3, label=1)


CODE = """
import hashlib, json, numpy, torch
from pathlib import Path
from sdekit_generative import load
from sdekit_generative.data import Digits
from sdekit_generative.evaluation import Bits, Images, evaluate
from sdekit_generative.metrics import DigitFeatures
from sdekit_generative.samplers import PC
folder = Path(place) / "e"
found = evaluate(load({run!r}), Digits().load().select(torch.arange(20)), metrics=("fid", "kid", "is", "pr", "bpd"),
                 images=Images(n=40, sampler=PC(steps=22), seed=1, batch=8), bits=Bits(tolerance=0.1, batch=5),
                 features=DigitFeatures(), folder=folder)
for part in (found["images"], found["metrics"]["bits_per_dim"]):
    del part["seconds"]
del found["processes"]
print(json.dumps(found, sort_keys=True))
images = [numpy.load(f)["images"].tobytes() for f in sorted((folder / "images").iterdir())]
print([hashlib.sha256(part).hexdigest() for part in images])
"""


def test_two_processes_make_the_same_images_and_figures_as_one(tiny_run, launch):
    code = CODE.replace("{run!r}", repr(str(tiny_run)))
    (alone,) = launch(code, 1)
    assert launch(code, 2) == [alone, alone]


def test_several_processes_need_a_folder(tiny_run, monkeypatch):
    monkeypatch.setattr(sys.modules[evaluate.__module__], "processes", lambda: nullcontext(Processes(0, 2)))
    with pytest.raises(UserError, match="several processes need a folder="):
        evaluate(load(tiny_run), metrics=("is",), features=DigitFeatures())


@pytest.mark.slow
def test_an_evaluation_killed_at_any_time_ends_with_the_same_figures(tiny_run, tmp_path):
    """SIGKILL, six times at moments of its own, over the whole length of the work."""
    script = f"""
import json, sys, torch
torch.set_num_threads(1)
from sdekit_generative import load
from sdekit_generative.data import Digits
from sdekit_generative.evaluation import Bits, Images, evaluate
from sdekit_generative.metrics import DigitFeatures
from sdekit_generative.samplers import PC
print("ready", flush=True)
found = evaluate(load({str(tiny_run)!r}), Digits().load().select(torch.arange(20)), metrics=("fid", "is", "bpd"),
                 images=Images(n=96, sampler=PC(steps=60), batch=8), bits=Bits(tolerance=0.1, batch=4),
                 features=DigitFeatures(), folder=sys.argv[1])
for part in (found["images"], found["metrics"]["bits_per_dim"]):
    del part["seconds"]
print(json.dumps(found, sort_keys=True))
"""

    def start(folder) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        command = [sys.executable, "-c", script, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    begun = time.monotonic()
    whole = start(tmp_path / "whole")
    expected, _ = whole.communicate()
    length = time.monotonic() - begun
    killed = 0
    for share in (0.05, 0.15, 0.25, 0.2, 0.1, 0.3):
        process = start(tmp_path / "killed")
        time.sleep(share * length)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = start(tmp_path / "killed")
    assert last.communicate()[0] == expected
    assert killed >= 3
