"""Editing, on a model whose law is known: N(0, 0.75²) in [−1, 1]."""

import math

import pytest
import torch

import sdekit as sk
from sdekit.random import KeyedDraws
from sdekit_generative import PC, Fast, load
from sdekit_generative.cli import main
from sdekit_generative.data import DataRange, Digits, dequantise
from sdekit_generative.editing import (
    decode,
    encode,
    interpolate,
    rework,
    temper,
    towards,
    train_classifier,
)
from sdekit_generative.errors import UserError

STD = 0.75
SAMPLER = Fast(sk.DPMSolverPP(2), steps=60, churn=1.0)


def _variance(process, t):
    return float(process.scale(t)) ** 2 * STD**2 + float(process.std(t)) ** 2


def test_latents_of_a_gaussian_are_its_images_stretched(gaussian):
    images = 0.5 + 0.1 * torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    process = gaussian.process
    stretch = math.sqrt(_variance(process, process.t_max) / _variance(process, process.t_min)) / process.prior_std()
    latents = encode(gaussian, images, tolerance=1e-6)
    torch.testing.assert_close(latents, gaussian.data_range.enter(images) * stretch, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decode(gaussian, latents, tolerance=1e-6), images, rtol=0.0, atol=1e-4)


def test_rework_forgets_as_much_as_the_noise_hides(gaussian):
    noise, n = 0.2, 600
    images = torch.full((n, 1, 4, 4), 0.6)
    again = rework(gaussian, images, noise, SAMPLER, seed=1)
    share = (STD / 2) ** 2 / ((STD / 2) ** 2 + noise**2)
    std = noise * math.sqrt(share + share**2)
    x = again.flatten()
    assert float(x.mean()) == pytest.approx(0.5 + 0.1 * share, abs=5 * std / math.sqrt(len(x)))
    assert float(x.std()) == pytest.approx(std, rel=0.03)
    alone = rework(gaussian, images[:1], noise, SAMPLER, seed=1, first=7)
    torch.testing.assert_close(alone[0], again[7], rtol=0.0, atol=1e-4)


def test_a_little_noise_changes_little(gaussian):
    images = 0.3 + 0.4 * torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for sampler in (None, Fast(steps=8), PC(steps=50, corrections=0)):
        again = rework(gaussian, images, 0.02, sampler)
        assert 0.0 < float((again - images).abs().max()) < 0.15


def test_a_passage_begins_and_ends_at_the_images_given(gaussian):
    images = 0.3 + 0.4 * torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    done: list[float] = []
    ways = interpolate(gaussian, images, count=5, tolerance=1e-6, progress=done.append)
    assert ways.shape == (2, 5, 1, 4, 4)
    torch.testing.assert_close(ways[:, 0], images[:-1], rtol=0.0, atol=1e-3)
    torch.testing.assert_close(ways[:, -1], images[1:], rtol=0.0, atol=1e-3)
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0)


def test_a_passage_needs_two_ends(gaussian):
    with pytest.raises(UserError, match="two or more are needed"):
        interpolate(gaussian, torch.rand(1, 1, 4, 4))


def test_temperature_scales_the_spread(gaussian):
    cool = temper(gaussian, 400, 0.3, tolerance=1e-4)
    assert float(cool.std()) == pytest.approx(0.3 * STD / 2, rel=0.03)
    torch.testing.assert_close(temper(gaussian, 1, 0.3, first=5, tolerance=1e-4)[0], cool[5], rtol=0.0, atol=1e-3)


class _Brightness(torch.nn.Module):
    """Two classes: the brighter the likelier the second."""

    def forward(self, x, c):
        light = x.mean((1, 2, 3))
        return torch.stack((torch.zeros_like(light), 4.0 * light), 1)


def test_images_move_towards_the_class_asked_for(gaussian):
    for label, sign in ((0, -1.0), (1, 1.0)):
        images = towards(gaussian, _Brightness(), label, n=200, sampler=Fast(steps=20))
        assert sign * (float(images.mean()) - 0.5) > 0.01


def test_a_classifier_depends_on_its_seed_only():
    training, _ = Digits().load().split()
    one, two, other = (train_classifier(training, sk.VP(), DataRange(), steps=2, batch=8, seed=s) for s in (0, 0, 1))
    x, c = torch.rand(4, 1, 8, 8), torch.zeros(4)
    assert torch.equal(one(x, c), two(x, c))
    assert not torch.allclose(one(x, c), other(x, c))


@pytest.mark.slow
def test_a_classifier_learns_from_noisy_images():
    training, held_out = Digits().load().split()
    classifier = train_classifier(training, sk.VP(), DataRange(), steps=300, batch=64)
    x = DataRange().enter(dequantise(held_out.images, held_out.levels, KeyedDraws(0)))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for sigma, least in ((0.1, 0.85), (0.5, 0.65), (10.0, 0.08)):
        found = classifier(x + sigma * noise, torch.full((len(x),), math.log(sigma)))
        right = found.argmax(1) == held_out.labels
        assert float(right.float().mean()) > least


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: rework(m, torch.zeros(1, 1, 5, 5), 0.1), UserError, "images: the model makes"),
        (lambda m: rework(m, torch.full((1, 1, 4, 4), math.nan), 0.1), UserError, "NaN"),
        (lambda m: rework(m, torch.zeros(1, 1, 4, 4), 1e6), ValueError, "the process goes from"),
        (lambda m: rework(m, torch.zeros(1, 1, 4, 4), 0.0), ValueError, "noise"),
        (lambda m: temper(m, 1, -1.0), ValueError, "temperature"),
        (lambda m: towards(m, _Brightness(), -1, 1), ValueError, "classes 0 to 1"),
        (lambda m: towards(m, _Brightness(), 1, 1, -1.0), ValueError, "guidance"),
    ],
)
def test_what_cannot_be_edited_is_said(call, error, words, gaussian):
    with pytest.raises(error, match=words):
        call(gaussian)


def test_the_commands_write_a_picture_and_the_images(tiny_run, tmp_path):
    import numpy as np

    for name, arguments, count in (
        ("rework", ["--steps=4", "--count=2"], 4),
        ("interpolate", ["--frames=3", "--count=3", "--tolerance=0.01"], 6),
        ("temper", ["--n=3", "--temperature=0.5"], 3),
        ("towards", ["--n=3", "--label=2", "--steps=4", "--training=2"], 3),
    ):
        out = tmp_path / f"{name}.png"
        assert main(["edit", name, str(tiny_run), *arguments, f"--out={out}"]) == 0
        with np.load(out.with_suffix(".npz")) as arrays:
            assert arrays["images"].shape == (count, 1, 8, 8)
        assert main(["edit", name, str(tiny_run), *arguments, f"--out={out}"]) == 2
    assert main(["edit", "towards", str(tiny_run), "--label=10", f"--out={tmp_path / 'x.png'}"]) == 2
    assert load(tiny_run).shape == (1, 8, 8)
