"""`restore` on models: the range of images, every sampler, batches and seeds, and the words of errors."""

import math

import pytest
import torch

import sdekit as sk
import sdekit_generative as sg
from sdekit_generative.errors import UserError
from sdekit_generative.inverse import observe, restorations
from sdekit_generative.inverse.page import as_images, page

INVERSE = sg.inverse
MASK = torch.tensor([[1, 1, 0, 0]] * 4)
SAMPLERS = [
    sg.PC(steps=150),
    sg.ODE(),
    sg.Fast(steps=20),
    sg.Fast(sk.DPMSolverPP(2), steps=60, churn=1.0),
    sg.Fast(sk.SEEDS(2), steps=40, churn=1.0, grid=sk.log_snr_grid),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'solver', None)}")
def test_by_every_sampler_an_observation_with_noise_shrinks_towards_the_prior_as_bayes_rule_says(gaussian, sampler):
    # the model is N(0, 0.75²) in [−1, 1]: in [0, 1] N(½, 0.375²), independent pixels. Values near ½ are never cut off
    observed = torch.full((1, 1, 4, 4), 0.6)
    noise, width = 0.05, 0.375
    found = restorations(gaussian, INVERSE.Inpaint(torch.ones(4, 4)), observed, noise=noise, n=400, sampler=sampler)
    share = width**2 / (width**2 + noise**2)
    x = found.samples.flatten()
    std = math.sqrt(share) * noise
    assert float(x.mean()) == pytest.approx(0.5 + 0.1 * share, abs=5 * std / math.sqrt(len(x)) + 2e-3)
    assert float(x.std()) == pytest.approx(std, rel=0.08)


def test_pixels_that_are_not_seen_keep_the_spread_of_the_model(gaussian):
    observed = torch.full((1, 1, 4, 4), 0.5)
    found = sg.restore(gaussian, INVERSE.Inpaint(MASK), observed, noise=0.02, n=300, seed=1)
    assert found.shape == (1, 300, 1, 4, 4)
    assert float(found[..., :2].std()) < 0.025
    # N(½, 0.375²) cut off at 0 and 1
    assert float(found[..., 2:].std()) == pytest.approx(0.32, abs=0.02)


@pytest.mark.parametrize(
    "method", [INVERSE.MMPS(), INVERSE.PiGDM(), INVERSE.DPS(), INVERSE.DDNM(), INVERSE.Replacement()]
)
def test_an_image_is_the_same_alone_in_a_batch_and_in_chunks(tiny_run, method):
    model, sampler = sg.load(tiny_run), sg.Fast(sk.DPMSolverPP(2), steps=10, churn=1.0)
    observed = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    call = {"method": method, "noise": 0.05, "n": 4, "sampler": sampler, "seed": 3}
    whole = sg.restore(model, INVERSE.Downsample(2), observed, **call)
    chunks = sg.restore(model, INVERSE.Downsample(2), observed, **call, batch=5)
    alone = sg.restore(model, INVERSE.Downsample(2), observed[2:], **call, first=2)
    torch.testing.assert_close(chunks, whole, rtol=0.0, atol=2e-4)
    torch.testing.assert_close(alone[0], whole[2], rtol=0.0, atol=2e-4)
    assert float((whole[0, 0] - whole[0, 1]).abs().max()) > 1e-3


def test_one_sample_is_asked_for_by_leaving_n_out(gaussian):
    observed = torch.full((2, 1, 4, 4), 0.5)
    one = sg.restore(gaussian, INVERSE.Inpaint(MASK), observed, sampler=sg.Fast(steps=8))
    assert one.shape == (2, 1, 4, 4)
    assert float(one.min()) >= 0.0
    assert float(one.max()) <= 1.0


def test_an_operator_of_ones_own_does_what_the_built_in_one_does(gaussian):
    observed = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    own = INVERSE.FromFunction(lambda x: torch.nn.functional.avg_pool2d(x, 2), (1, 4, 4))
    call = {"noise": 0.1, "sampler": sg.Fast(steps=10), "method": INVERSE.PiGDM(0.75)}
    torch.testing.assert_close(
        sg.restore(gaussian, own, observed, **call),
        sg.restore(gaussian, INVERSE.Downsample(2), observed, **call),
        rtol=0.0,
        atol=1e-4,
    )


def test_progress_ends_at_one(gaussian):
    seen = []
    sg.restore(
        gaussian,
        INVERSE.Inpaint(MASK),
        torch.zeros(2, 1, 4, 4),
        n=3,
        batch=4,
        sampler=sg.Fast(steps=5),
        progress=seen.append,
    )
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("operator", "observed", "noise", "words"),
    [
        (INVERSE.Inpaint(torch.ones(8, 8)), torch.zeros(1, 1, 4, 4), 0.0, "does not fit images of shape"),
        (INVERSE.Downsample(2), torch.zeros(1, 1, 4, 4), 0.0, r"makes \(1, 2, 2\)"),
        (INVERSE.Inpaint(MASK), torch.full((1, 1, 4, 4), math.nan), 0.0, "NaN"),
        (INVERSE.Inpaint(MASK), torch.zeros(1, 1, 4, 4), -1.0, "noise"),
        (INVERSE.Inpaint(MASK), "image.png", 0.0, "floating tensor"),
    ],
)
def test_what_does_not_fit_the_model_is_an_error_of_use(gaussian, operator, observed, noise, words):
    with pytest.raises(UserError, match=words):
        sg.restore(gaussian, operator, observed, noise=noise)


@pytest.mark.parametrize(
    "operator",
    [
        INVERSE.Inpaint(MASK),
        INVERSE.Downsample(2),
        INVERSE.CompressedSensing((1, 4, 4)),
        INVERSE.CT(4, 3),
        INVERSE.MRI(INVERSE.mri_mask((4, 4), 2.0)),
        INVERSE.PhaseRetrieval(),
    ],
)
def test_observations_of_every_shape_can_be_shown(operator):
    truth = torch.rand(2, 1, 4, 4)
    shown = as_images(operator, observe(operator, truth, 0.01), (1, 4, 4))
    assert shown.shape == truth.shape
    sheet = page(truth, shown, truth[:, None].expand(-1, 3, -1, -1, -1))
    assert sheet.width > 7 * 64
