import dataclasses
import json

import pytest
import torch
from PIL import Image

from sdekit_generative import demo
from sdekit_generative.cli import main
from sdekit_generative.data import Digits
from sdekit_generative.demo import baselines, frechet_floor
from sdekit_generative.sampling import ODE, PC


def test_the_baselines_are_those_that_the_script_measured():
    from pathlib import Path

    result = json.loads((Path(__file__).parents[2] / "benchmarks/results/digits_baselines.json").read_text())
    assert baselines() == {"gaussian": result["gaussian"], "gaussian_mixture": result["gaussian_mixture"]}
    assert baselines()["gaussian"] == pytest.approx(2.95, abs=0.05)
    assert baselines()["gaussian_mixture"] == pytest.approx(2.61, abs=0.05)


def test_the_gaussian_baseline_is_what_a_gaussian_fit_gives():
    """The sample mean and covariance of the dequantised training images, by numpy alone."""
    import math

    import numpy as np

    from sdekit.random import KeyedDraws
    from sdekit_generative.data import dequantise

    training, held_out = Digits().load().split()
    train, test = (
        dequantise(d.images, 17, KeyedDraws(s)).flatten(1).double().numpy() for d, s in ((training, 1), (held_out, 0))
    )
    centred = test - train.mean(0)
    covariance = np.cov(train.T, bias=True)
    mahalanobis = (centred @ np.linalg.inv(covariance) * centred).sum(1)
    nats = 0.5 * (mahalanobis + np.linalg.slogdet(2 * math.pi * covariance)[1])
    assert nats.mean() / 64 / math.log(2) + math.log2(17) == pytest.approx(baselines()["gaussian"], abs=0.01)


def test_the_floor_is_smaller_the_more_real_digits_are_compared():
    training, held_out = Digits().load().split()
    assert 0 < frechet_floor(training, held_out, 300) < frechet_floor(training, held_out, 100)


def test_the_demo_writes_all_that_it_promises(tmp_path, monkeypatch, capsys):
    """Everything but the size: a tiny network, few steps, few images."""
    import sdekit_generative.recipes as recipes

    small = dataclasses.replace(
        recipes.DIGITS,
        network=dataclasses.replace(recipes.DIGITS.network, channels=8, multipliers=(1, 2), attention=(1,)),
        training=dataclasses.replace(recipes.DIGITS.training, steps=40, batch=32, warmup=4),
    )
    monkeypatch.setattr(recipes, "DIGITS", small)
    monkeypatch.setattr(demo, "SAMPLERS", {"pc": PC(steps=24), "ode": ODE(1e-2, 1e-2)})
    monkeypatch.setattr(demo, "FILM", PC(steps=24, corrections=0))
    monkeypatch.setattr(demo, "TOLERANCE", 5e-2)
    monkeypatch.setattr(demo, "IMAGES", 20)
    training, held_out = Digits().load().split()
    monkeypatch.setattr(demo, "load_images", lambda recipe: (training, held_out.select(torch.arange(40))))
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"bits_per_dim", "baselines", "frechet", "seconds", "network_evaluations"}
    assert set(metrics["bits_per_dim"]) == {"mean", "standard_error"}
    assert set(metrics["baselines"]) == {"gaussian", "gaussian_mixture"}
    assert set(metrics["frechet"]) == {"pc", "ode", "floor"}
    assert metrics["network_evaluations"]["sample_pc"] == 48
    assert 2.0 < metrics["bits_per_dim"]["mean"] < 5.0
    assert f"{metrics['bits_per_dim']['mean']:.3f}" in said
    for name in ("samples_pc", "samples_ode", "trajectory", "loss"):
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 200
    assert main(["demo", "--out", str(out)]) == 2
    assert main(["demo", "--out", str(out), "--resume"]) == 0
