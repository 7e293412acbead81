import dataclasses
import math

import pytest
import torch

from sdekit.random import KeyedDraws
from sdekit.scores.divergence import Exact, Hutchinson
from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.solvers import Dopri5
from sdekit.steps import Adaptive
from sdekit_generative import bits_per_dim, load
from sdekit_generative.data import DataRange, Digits, dequantise

LEVELS = torch.randint(0, 17, (4, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def _closed_form(model, y: torch.Tensor) -> torch.Tensor:
    """Bits/dim of N(0, s² d² + std²) at t_min, of images in [0, 1]."""
    t, d = model.process.t_min, model.parametrisation.data_std
    variance = float((model.process.scale(t) * d) ** 2 + model.process.std(t) ** 2)
    x = model.data_range.enter(y.double())
    nats = 0.5 * (x**2 / variance + math.log(2 * math.pi * variance))
    return nats.flatten(1).mean(1) / math.log(2.0) - math.log2(model.data_range.width / model.levels)


@pytest.mark.parametrize("process", [VP(t_min=1e-5), SubVP(t_min=1e-3), VE(0.01, 50.0)], ids=lambda p: type(p).__name__)
def test_bits_of_the_gaussian_model_have_the_closed_form(gaussian, process):
    model = dataclasses.replace(gaussian, process=process)
    images = LEVELS[:4]
    found = bits_per_dim(
        model, images, divergence=Exact(), solver=Dopri5(), steps=Adaptive(rtol=1e-5, atol=1e-5), seed=2
    )
    expected = _closed_form(model, dequantise(images, 17, KeyedDraws(2)))
    # the Gaussian prior that stands for the law at t_max costs VE up to 3e-4
    torch.testing.assert_close(found.per_image, expected, rtol=0, atol=1e-3 if isinstance(process, VE) else 1e-4)
    assert found.mean == pytest.approx(float(found.per_image.mean()))
    assert found.standard_error == pytest.approx(float(found.per_image.std()) / 2)


def test_the_range_of_the_model_does_not_change_the_bits(gaussian):
    """A model of a range half as wide, with the same density, needs the same bits."""
    images = LEVELS[:3]
    narrow = dataclasses.replace(
        gaussian,
        data_range=DataRange(-0.5, 0.5),
        parametrisation=dataclasses.replace(gaussian.parametrisation, data_std=0.375),
        process=VP(t_min=1e-7),
    )
    wide = dataclasses.replace(gaussian, process=VP(t_min=1e-7))
    exact = {"divergence": Exact(), "solver": Dopri5(), "steps": Adaptive(rtol=1e-5, atol=1e-5)}
    torch.testing.assert_close(
        bits_per_dim(narrow, images, **exact).per_image,
        bits_per_dim(wide, images, **exact).per_image,
        rtol=0,
        atol=2e-4,
    )


def test_an_image_has_the_same_bits_alone_in_a_batch_and_in_chunks(tiny_run):
    model, images, steps = load(tiny_run), Digits().load().images[:8], Adaptive(1e-3, 1e-3)
    whole = bits_per_dim(model, images, seed=1, steps=steps)
    alone = bits_per_dim(model, images[7:8], seed=1, first=7, steps=steps)
    chunks = bits_per_dim(model, images, seed=1, batch=5, steps=steps)
    torch.testing.assert_close(alone.per_image, whole.per_image[7:8], rtol=0, atol=1e-4)
    torch.testing.assert_close(chunks.per_image, whole.per_image, rtol=0, atol=1e-4)
    assert math.isnan(alone.standard_error)


def test_random_probes_agree_with_the_exact_divergence_on_average(tiny):
    process = VP(t_min=1e-2)  # a short way, for the sake of speed
    model = dataclasses.replace(tiny, process=process).build((1, 4, 4), 17)
    for i, parameter in enumerate(model.network.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(i))
    model.network.eval().requires_grad_(False)
    images = LEVELS[:1]
    exact = bits_per_dim(model, images, divergence=Exact(), steps=Adaptive(1e-2, 1e-2))
    copies = bits_per_dim(model, images.expand(60, -1, -1, -1), steps=Adaptive(1e-2, 1e-2))
    # the copies differ by their probes and their dequantisation; the first has that of `exact`
    alike = bits_per_dim(model, images, divergence=Hutchinson(probes=30), steps=Adaptive(1e-2, 1e-2))
    assert abs(alike.mean - exact.mean) < 4 * copies.standard_error * (60 / 30) ** 0.5 + 1e-3


def test_floats_are_taken_as_they_are(gaussian):
    y = dequantise(LEVELS[:3], 17, KeyedDraws(0))
    a = bits_per_dim(gaussian, y, divergence=Exact()).per_image
    b = bits_per_dim(gaussian, LEVELS[:3], divergence=Exact(), seed=0).per_image
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, 4, 5),
        torch.zeros(2, 3, 4, 4),
        torch.zeros(4, 4),
        torch.zeros(0, 1, 4, 4),
        torch.zeros(2, 1, 4, 4).long(),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(gaussian, images):
    with pytest.raises(ValueError, match="images: expected"):
        bits_per_dim(gaussian, images)


def test_images_that_have_no_likelihood_are_named(gaussian):
    images = torch.rand(3, 1, 4, 4)
    images[1, 0, 2, 2] = math.nan
    with pytest.raises(ValueError, match="1 of 3 hold NaN or infinities, the first of them image 1"):
        bits_per_dim(gaussian, images)
    with pytest.raises(ValueError, match="levels 0 to 16, got 17"):
        bits_per_dim(gaussian, LEVELS + (17 - LEVELS.max()))
    with pytest.raises(ValueError, match="batch must be an integer of 1"):
        bits_per_dim(gaussian, LEVELS, batch=0)
