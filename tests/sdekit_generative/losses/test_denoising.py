import dataclasses
import math

import pytest
import torch

from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.sdes.process import AffineProcess
from sdekit_generative.forward import MeanReverting
from sdekit_generative.losses import (
    DenoisingLoss,
    DiscreteTime,
    FocusedNoiseLevel,
    LikelihoodWeighting,
    LogNormalNoiseLevel,
    MinSNRWeighting,
    NoiseWeighting,
    PerceptualWeighting,
    UniformNoiseLevel,
    UniformTime,
    edm,
    ends,
    stratified,
)

PROCESSES = [VP(t_min=1e-3), SubVP(t_min=1e-2), VE(0.01, 20.0), MeanReverting(t_min=1e-3)]
WEIGHTINGS = [LikelihoodWeighting(), NoiseWeighting(), PerceptualWeighting(), MinSNRWeighting()]
TIMES = [UniformTime(), UniformNoiseLevel(), FocusedNoiseLevel(), FocusedNoiseLevel(centre=0.5, width=0.3, floor=0.6)]


def _name(value):
    return type(value).__name__


def _objective(process, weighting, data_std):
    """J = ∫ w(c) e(c) dc by quadrature; e = d²/(d² + σ²) is the least error for Gaussian data."""
    low, high = ends(process)
    c = torch.linspace(low, high, 20001, dtype=torch.float64)
    error = data_std**2 / (data_std**2 + torch.exp(2 * c))
    return float(torch.trapezoid(weighting(process, process.time(c)) * error, c))


@pytest.mark.parametrize("process", PROCESSES, ids=_name)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=_name)
@pytest.mark.parametrize("times", TIMES, ids=_name)
def test_the_objective_does_not_depend_on_the_density_of_times(gaussian, process, weighting, times):
    """With the exact score of Gaussian data the expected loss has a closed form."""
    model = dataclasses.replace(gaussian, process=process)
    n, generator = 4096, torch.Generator().manual_seed(0)
    x0 = 0.75 * torch.randn(n, 1, 4, 4, generator=generator)
    z = torch.randn(n, 1, 4, 4, generator=generator)
    u = stratified(n, torch.tensor([0.5]))[torch.randperm(n, generator=generator)]
    losses = DenoisingLoss(weighting, times)(model, x0, u, z).double()
    expected = _objective(process, weighting, 0.75)
    standard_error = float(losses.std()) / math.sqrt(n)  # generous: stratification makes it smaller
    assert abs(float(losses.mean()) - expected) < 3 * standard_error
    assert standard_error < 0.2 * expected


@pytest.mark.parametrize("process", PROCESSES, ids=_name)
@pytest.mark.parametrize("times", TIMES, ids=_name)
def test_sampled_noise_levels_have_the_density_that_is_claimed(process, times):
    n = 200_000
    t, q = times.sample(process, stratified(n, torch.tensor([0.5])))
    c = process.log_sigma(t)
    low, high = ends(process)
    assert float(c.min()) >= low - 1e-9
    assert float(c.max()) <= high + 1e-9
    # E[1/q] over q is the length of the interval, and E[c/q] its first moment
    assert float((1 / q).mean()) == pytest.approx(high - low, rel=2e-3)
    assert float((c / q).mean()) == pytest.approx((high**2 - low**2) / 2, rel=5e-3, abs=0.05)


def test_stratified_uniforms_fill_every_stratum_once_and_split_over_processes():
    u = torch.tensor([0.25])
    whole = stratified(8, u)
    assert torch.equal((whole * 8).floor(), torch.arange(8.0, dtype=torch.float64))
    parts = torch.cat([stratified(4, u, first=0, total=8), stratified(4, u, first=4, total=8)])
    assert torch.equal(parts, whole)


def test_likelihood_weighting_bounds_the_negative_log_likelihood(gaussian):
    """For Gaussian data the bound is tight: h(x) = h(prior) − ∫ (1 − e(c)) dc, the entropy of N(0, d²) up to t_min."""
    process, d = gaussian.process, 0.75
    low, high = ends(process)
    entropy_before = 0.5 * math.log(2 * math.pi * math.e * (d**2 + math.exp(2 * high)))
    objective = _objective(process, LikelihoodWeighting(), d)
    entropy = entropy_before - (high - low) + objective
    assert entropy == pytest.approx(0.5 * math.log(2 * math.pi * math.e * (d**2 + math.exp(2 * low))), abs=1e-6)


def test_focus_without_a_floor_is_refused():
    with pytest.raises(ValueError, match="floor"):
        FocusedNoiseLevel(floor=0.0)


@pytest.mark.parametrize("process", PROCESSES, ids=_name)
def test_discrete_times_give_the_objective_of_continuous_ones_up_to_the_grid(gaussian, process):
    model = dataclasses.replace(gaussian, process=process)
    n, generator = 4096, torch.Generator().manual_seed(0)
    x0 = 0.75 * torch.randn(n, 1, 4, 4, generator=generator)
    z = torch.randn(n, 1, 4, 4, generator=generator)
    u = stratified(n, torch.tensor([0.5]))
    discrete = DenoisingLoss(NoiseWeighting(), DiscreteTime(512))(model, x0, u, z)
    continuous = DenoisingLoss(NoiseWeighting(), UniformTime())(model, x0, u, z)
    assert float(discrete.mean()) == pytest.approx(float(continuous.mean()), rel=0.02)
    t, _ = DiscreteTime(512).sample(process, u)
    assert len(t.unique()) == 512
    assert float(t.min()) == process.t_min
    assert float(t.max()) == process.t_max


def test_the_log_normal_density_is_that_of_karras(gaussian):
    process = VE(0.002, 80.0)
    n = 100_000
    t, q = LogNormalNoiseLevel(-1.2, 1.2).sample(process, stratified(n, torch.tensor([0.5])))
    c = process.log_sigma(t)
    # cut at ln 0.002 and ln 80, some 4 standard deviations away
    assert float(c.mean()) == pytest.approx(-1.2, abs=2e-3)
    assert float(c.std()) == pytest.approx(1.2, abs=2e-3)
    expected = torch.exp(-0.5 * ((c + 1.2) / 1.2) ** 2) / (1.2 * math.sqrt(2 * math.pi))
    assert torch.allclose(q, expected, rtol=1e-3)
    # w/q is then (σ² + d²)/d² of ε̂, which is λ(σ) of the denoiser's error
    weight = edm(data_std=0.5).weighting(process, t) / q
    assert torch.allclose(weight, 1 + process.sigma(t) ** 2 / 0.25, rtol=1e-3)


def test_min_snr_counts_clean_levels_less():
    process = VP(t_min=1e-4)
    t = torch.tensor([1e-3, 0.2, 0.9], dtype=torch.float64)
    ratio = MinSNRWeighting(5.0)(process, t) / NoiseWeighting()(process, t)
    snr = process.sigma(t) ** -2
    assert torch.allclose(ratio, (5.0 / snr).clamp_max(1.0), rtol=1e-12)
    with pytest.raises(ValueError, match="gamma"):
        MinSNRWeighting(0.0)


class Plain:
    """No more than the protocol asks of a forward process: the VP by another name, without drift or diffusion."""

    def __init__(self, vp):
        for name in ("scale", "sigma", "log_sigma", "std", "time", "prior_std", "t_min", "t_max"):
            setattr(self, name, getattr(vp, name))


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=_name)
@pytest.mark.parametrize("times", [*TIMES, LogNormalNoiseLevel(), DiscreteTime(64)], ids=_name)
def test_any_affine_process_will_do_for_the_forward_one(gaussian, weighting, times):
    vp = VP(t_min=1e-3)
    by_functions = AffineProcess(
        lambda t: torch.exp(-0.5 * vp.beta_integral(t)), lambda t: torch.expm1(vp.beta_integral(t)).sqrt(), t_min=1e-3
    )
    generator = torch.Generator().manual_seed(0)
    x0, z = (torch.randn(64, 1, 4, 4, generator=generator) for _ in range(2))
    u = stratified(64, torch.tensor([0.5]))
    values = [
        DenoisingLoss(weighting, times)(dataclasses.replace(gaussian, process=process), x0, u, z)
        for process in (vp, by_functions, Plain(vp))
    ]
    assert torch.allclose(values[0], values[1], rtol=1e-4)
    assert torch.allclose(values[0], values[2], rtol=1e-4)
