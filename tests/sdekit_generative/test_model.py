import dataclasses

import pytest
import torch

from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit_generative.data import DataRange
from sdekit_generative.model import PredictNoise, PredictVelocity, ScoreModel

PROCESSES = [VP(t_min=1e-5), SubVP(t_min=1e-3), VE(0.01, 20.0)]


def _gaussian_score(process, t, x, data_std):
    """∇ log of N(0, s² data_std² + std²), in float64."""
    variance = (process.scale(t) * data_std) ** 2 + process.std(t) ** 2
    return -x.double() / variance


def test_an_untrained_network_is_silent(tiny, gaussian):
    x = torch.randn(5, 1, 8, 8)
    untrained = tiny.build((1, 8, 8), 17)
    untrained.network.eval()
    assert torch.equal(untrained(0.3, x).detach(), gaussian(0.3, x))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("fraction", [0.0, 1e-4, 0.3, 1.0])
def test_a_silent_velocity_network_is_the_exact_score_of_gaussian_data(gaussian, process, fraction):
    model = dataclasses.replace(gaussian, process=process)
    t = torch.tensor(process.t_min + fraction * (process.t_max - process.t_min), dtype=torch.float64)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = _gaussian_score(process, t, x, model.parametrisation.data_std)
    # float32 rounding, and no digit more, is lost: also where std is 1e-3 and a detour over the denoiser loses three
    torch.testing.assert_close(model(t, x).double(), expected, rtol=3e-7, atol=0.0)


def test_times_may_differ_from_sample_to_sample(gaussian):
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    x = torch.randn(5, 1, 8, 8)
    together = gaussian(t, x)
    for i in range(5):
        torch.testing.assert_close(together[i : i + 1], gaussian(t[i, 0, 0, 0], x[i : i + 1]))


def test_noise_and_score_are_one_estimate_for_either_parametrisation(tiny):
    x, t = torch.randn(3, 1, 8, 8), torch.tensor(0.4, dtype=torch.float64)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)

    class Unconditional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x, c):
            assert c.shape == (len(x),)
            return self.inner(x)

    process = VP(t_min=1e-5)
    s, std, d = float(process.scale(t)), float(process.std(t)), 0.6
    radius = (s**2 * d**2 + std**2) ** 0.5
    by_hand = {
        PredictNoise(d): network(x / radius),
        PredictVelocity(d): std / radius * (x / radius) - s * d / radius * network(x / radius),
    }
    for parametrisation, noise in by_hand.items():
        model = ScoreModel(Unconditional(), process, parametrisation, DataRange(), (1, 8, 8), 17)
        torch.testing.assert_close(model.noise(t, x), noise)
        torch.testing.assert_close(model(t, x), -noise / std)


def test_a_float64_state_stays_float64_around_a_float32_network(gaussian):
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    score = gaussian(0.5, x)
    assert score.dtype is torch.float64
    expected = _gaussian_score(gaussian.process, torch.tensor(0.5, dtype=torch.float64), x, 0.75)
    torch.testing.assert_close(score, expected, rtol=1e-12, atol=0.0)
