"""Objectives by name: for a model that predicts no noise at all, the loss is its weight times ‖z‖²/D."""

import math
from dataclasses import dataclass, field

import pytest
import torch

from sdekit.sdes.diffusion import VE, VP
from sdekit_generative.losses import DenoisingLoss, ddpm, diffused, edm, min_snr, smld, stratified

N = 64


@dataclass
class Silent:
    """A model whose noise is 0, and that remembers at which times it was asked."""

    process: object
    times: list = field(default_factory=list)

    def noise(self, t, x):
        self.times.append(t.flatten())
        return torch.zeros_like(x)


def _weights(objective: DenoisingLoss, process) -> tuple[torch.Tensor, torch.Tensor]:
    """(times, weights w/q) of the objective at N even uniforms."""
    x0, z = torch.zeros(N, 1, 2, 2, dtype=torch.float64), torch.full((N, 1, 2, 2), 2.0, dtype=torch.float64)
    model = Silent(process)
    losses = objective(model, x0, stratified(N, torch.tensor([0.5])), z)
    return model.times[0], losses / 4.0


@pytest.mark.parametrize(("objective", "process"), [(smld(10), VE(0.01, 50.0)), (ddpm(10), VP())], ids=["SMLD", "DDPM"])
def test_discrete_objectives_weigh_all_levels_alike(objective, process):
    times, weights = _weights(objective, process)
    step = (process.t_max - process.t_min) / 9
    levels = (times - process.t_min) / step
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
    assert sorted({int(k) for k in levels.round()}) == list(range(10))
    torch.testing.assert_close(weights, torch.full_like(weights, process.t_max - process.t_min))


def test_min_snr_counts_no_level_for_more_than_gamma_of_the_clean_image():
    process = VP()
    times, weights = _weights(min_snr(3.0), process)
    expected = (3.0 * process.sigma(times) ** 2).clamp_max(1.0) * (process.t_max - process.t_min)
    torch.testing.assert_close(weights, expected)
    assert weights.min() < 0.5 * weights.max()


def test_edm_weighs_the_denoisers_error_as_karras_do():
    process = VE(0.002, 80.0, t_min=0.0)
    times, weights = _weights(edm(-1.2, 1.2, 0.5), process)
    sigma = process.sigma(times)
    # of the density ln σ ~ N(−1.2, 1.2²) what lies between the process's ends; (σ² + d²)/(σ d)² · σ² of the noise's error
    ends = [0.5 * math.erfc(-(math.log(s) + 1.2) / 1.2 / math.sqrt(2)) for s in (0.002, 80.0)]
    torch.testing.assert_close(weights, (1 + sigma**2 / 0.25) * (ends[1] - ends[0]), rtol=1e-6, atol=0)


def test_diffused_images_are_the_scaled_image_and_the_noise_of_their_level():
    process, t = VP(), torch.tensor([0.1, 0.9], dtype=torch.float64)
    x0, z = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), -2.0)
    integral = 0.1 * t + 0.5 * 19.9 * t**2
    expected = 0.5 * torch.exp(-0.5 * integral) - 2.0 * torch.sqrt(-torch.expm1(-integral))
    torch.testing.assert_close(diffused(process, x0, t, z)[:, 2, 1, 3].double(), expected, rtol=1e-6, atol=1e-6)
