"""The published losses, against a plain transcription of their formulas."""

import dataclasses
import math

import pytest
import torch

from sdekit.sdes.diffusion import EDM, VE, VP, SubVP
from sdekit_generative.losses import ScoreMatching, label_uniform

PROCESSES = [VE(0.01, 50.0, t_min=1e-5), VP(t_min=1e-5), SubVP(t_min=1e-5)]


class StandIn:
    """A score with a closed form, −x/(1 + t), as the model it would be."""

    def __init__(self, process):
        self.process = process

    def noise(self, t, x):
        return (self.process.std(t) / (1.0 + t)).to(x.dtype) * x


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(9)
    return tuple(torch.randn(6, 3, 4, 4, generator=generator) for _ in range(2)), torch.rand(6, generator=generator)


def _reference(process, x0, u, z, likelihood_weighting, reduce_mean):
    """score·std + z, or (score + z/std) g, in float32, with 1 − exp for the variance."""
    t = u * (1.0 - 1e-5) + 1e-5
    if isinstance(process, VE):
        mean, std = torch.ones_like(t), 0.01 * 5000.0**t
        g = std * math.sqrt(2 * (math.log(50.0) - math.log(0.01)))
    else:
        coefficient = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
        variance = 1.0 - torch.exp(2.0 * coefficient)
        mean, beta = torch.exp(coefficient), 0.1 + t * 19.9
        std = variance.sqrt() if isinstance(process, VP) else variance
        g = (beta * (1 if isinstance(process, VP) else 1 - torch.exp(-0.2 * t - 19.9 * t**2))).sqrt()
    mean, std, g, t = (v.reshape(-1, 1, 1, 1) for v in (mean, std, g, t))
    x = mean * x0 + std * z
    score = -x / (1 + t)
    losses = (score + z / std).square() * g.square() if likelihood_weighting else (score * std + z).square()
    losses = losses.flatten(1)
    return losses.mean(1) if reduce_mean else 0.5 * losses.sum(1)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("likelihood_weighting", [False, True])
@pytest.mark.parametrize("reduce_mean", [False, True])
def test_the_continuous_losses_are_those_published(batch, process, likelihood_weighting, reduce_mean):
    (x0, z), u = batch
    expected = _reference(process, x0, u, z, likelihood_weighting, reduce_mean)
    loss = ScoreMatching(likelihood_weighting, reduce_mean, compat="song2021")
    found = loss(StandIn(process), x0, u, z)
    assert torch.allclose(found, expected, rtol=1e-5)
    exact = ScoreMatching(likelihood_weighting, reduce_mean)(StandIn(process), x0, u, z)
    assert torch.allclose(exact, expected, rtol=2e-2)


@pytest.mark.parametrize("reduce_mean", [False, True])
def test_the_discrete_losses_are_those_published(batch, reduce_mean):
    (x0, z), _ = batch
    labels, n = torch.tensor([0, 3, 250, 500, 998, 999]), 1000
    u = label_uniform(labels, n)

    def reduced(square):
        return square.flatten(1).mean(1) if reduce_mean else 0.5 * square.flatten(1).sum(1)

    sigmas = torch.exp(torch.linspace(math.log(50.0), math.log(0.01), n, dtype=torch.float64))
    sigma = sigmas[labels].float().reshape(-1, 1, 1, 1)
    t = ((n - 1 - labels) / (n - 1)).reshape(-1, 1, 1, 1)
    score = -(x0 + sigma * z) / (1 + t)
    expected = reduced((score + z / sigma).square()) * sigma.flatten() ** 2
    found = ScoreMatching(reduce_mean=reduce_mean, levels=n, compat="song2021")(StandIn(VE(0.01, 50.0)), x0, u, z)
    assert torch.allclose(found, expected, rtol=1e-4)

    betas = torch.linspace(0.1 / n, 20.0 / n, n)
    kept = (1 - betas).cumprod(0)[labels].reshape(-1, 1, 1, 1)
    std = (1 - kept).sqrt()
    x = kept.sqrt() * x0 + std * z
    t = (labels / (n - 1)).reshape(-1, 1, 1, 1)
    expected = reduced((std * x / (1 + t) - z).square())
    found = ScoreMatching(reduce_mean=reduce_mean, levels=n, compat="song2021")(StandIn(VP(t_min=1e-5)), x0, u, z)
    assert torch.allclose(found, expected, rtol=1e-5)


def test_discrete_levels_of_the_vp_are_those_of_the_continuous_process_but_for_the_step(batch, gaussian):
    (x0, z), u = batch
    model = dataclasses.replace(gaussian, process=VP(t_min=1e-5))
    table = ScoreMatching(levels=1000, compat="song2021")(model, x0[:, :1], u, z[:, :1])
    closed = ScoreMatching(levels=1000)(model, x0[:, :1], u, z[:, :1])
    assert torch.allclose(table, closed, rtol=0.08)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"compat": "song2019"}, "song2021"),
        ({"levels": 1}, "levels"),
        ({"levels": 9, "likelihood_weighting": True}, "levels"),
    ],
)
def test_what_the_paper_does_not_have_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        ScoreMatching(**wrong)


def test_processes_that_the_paper_does_not_have_are_refused(batch):
    (x0, z), u = batch
    with pytest.raises(ValueError, match="not for EDM"):
        ScoreMatching(compat="song2021")(StandIn(EDM()), x0, u, z)
    with pytest.raises(ValueError, match="VE and VP, not for SubVP"):
        ScoreMatching(levels=10)(StandIn(SubVP()), x0, u, z)
