"""Predictor–corrector and probability-flow sampling, against laws whose score is known exactly."""

from __future__ import annotations

import math

import pytest
import torch

import sdekit as sk
from sdekit.random import KeyedDraws, Purpose

SAMPLES = 4096
PROCESSES = [sk.VP(t_min=1e-3), sk.SubVP(t_min=1e-3), sk.VE()]
SHAPES = [(3,), (1, 2, 2)]


def mixture(shape: tuple[int, ...]) -> sk.GaussianMixture:
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    return sk.GaussianMixture(means=means, stds=0.3, weights=torch.tensor([0.5, 0.3, 0.2]))


def start(process, shape, n=SAMPLES, first=0, dtype=torch.float64):
    return process.prior_sample((n, *shape), seed=0, first=first, dtype=dtype)


def assert_moments(x: torch.Tensor, law, slack: float) -> None:
    """Mean within 3 standard errors, covariance within 3 standard errors plus `slack` of it."""
    flat, n = x.flatten(1), len(x)
    covariance = law.covariance
    spread = covariance.diagonal().sqrt()
    mean_error = (flat.mean(0) - law.mean.flatten()).abs()
    assert (mean_error <= (3 / math.sqrt(n) + slack) * spread).all(), mean_error / spread * math.sqrt(n)
    # the standard error of a covariance entry, from the samples themselves
    centred = flat - flat.mean(0)
    products = centred[:, :, None] * centred[:, None, :]
    error = (products.mean(0) - covariance).abs()
    bound = 3 * products.std(0) / math.sqrt(n) + slack * spread[:, None] * spread[None, :]
    assert (error <= bound).all(), error / bound


def nearest_mode(x: torch.Tensor, law: sk.GaussianMixture) -> torch.Tensor:
    return torch.cdist(x.flatten(1), law.means.flatten(1)).argmin(1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_probability_flow_carries_the_prior_to_the_mixture(process, shape):
    law = mixture(shape)
    sol = sk.solve(
        sk.probability_flow(process, law.score(process)),
        start(process, shape),
        process.t_max,
        process.t_min,
        solver=sk.Dopri5(),
        steps=sk.Adaptive(rtol=1e-5, atol=1e-5),
    )
    assert_moments(sol.x, law, slack=0.0)
    counts = torch.bincount(nearest_mode(sol.x, law), minlength=3) / SAMPLES
    exact = torch.bincount(nearest_mode(law.sample(100_000, seed=9), law), minlength=3) / 100_000
    deviation = (counts - exact).abs() / (exact * (1 - exact) / SAMPLES).sqrt()
    assert (deviation < 3.2).all(), deviation


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("order", ["cp", "pc"])
def test_predictor_corrector_samples_the_mixture_up_to_the_corrector_s_bias(process, shape, order):
    law = mixture(shape)
    sol = sk.solve(
        sk.reverse(process, law.score(process)),
        start(process, shape),
        process.t_max,
        process.t_min,
        solver=sk.PredictorCorrector(sk.ReverseDiffusion(), sk.Langevin(snr=0.16), order=order),
        steps=sk.FixedSteps(300),
        seed=1,
    )
    assert sol.stats.model_calls == 600
    assert_moments(sol.x, law, slack=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, 16])
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_corrected_corrector_keeps_the_standard_deviation_to_three_per_mille(process, dimension):
    """At n = 1000 steps; the plain step is off by up to half a per cent, the published one by more than one."""
    law, n = sk.GaussianData(mean=torch.zeros(dimension, dtype=torch.float64), std=0.5), 65536 // dimension
    exact = float(law.at(process, process.t_min).covariance.diagonal().mean().sqrt())
    ratios = {}
    for name, corrector in {
        "corrected": sk.Langevin(),
        "plain": sk.Langevin(corrected=False),
        "song2021": sk.Langevin(compat="song2021"),
    }.items():
        sol = sk.solve(
            sk.reverse(process, law.score(process)),
            start(process, (dimension,), n),
            process.t_max,
            process.t_min,
            solver=sk.PredictorCorrector(sk.ReverseDiffusion(), corrector),
            steps=sk.FixedSteps(1000),
            seed=1,
        )
        ratios[name] = float(sol.x.std()) / exact - 1
    noise = 3 / math.sqrt(2 * 65536)
    assert abs(ratios["corrected"]) < 0.003 + noise, ratios
    assert abs(ratios["corrected"]) < abs(ratios["song2021"]), ratios


def test_a_corrector_alone_moves_a_wrong_law_to_the_right_one():
    """From a standard normal to N(0, 0.5²), by Langevin steps at one time."""
    process, law = (
        sk.VE(sigma_min=0.01, sigma_max=1.0),
        sk.GaussianData(mean=torch.zeros(8, dtype=torch.float64), std=0.5),
    )
    t = float(process.time(math.log(0.5)))
    x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sde = sk.reverse(process, law.score(process))
    for k in range(200):
        span = sk.Span(torch.tensor(t), torch.tensor(t - 1e-3), -1e-3, k, KeyedDraws(5))
        x = sk.Langevin(snr=0.2).correct(sde, span, torch.tensor(t, dtype=torch.float64), x)
    target = math.sqrt(0.5**2 + 0.5**2)
    assert float(x.std()) == pytest.approx(target, rel=4 / math.sqrt(2 * x.numel()) + 0.002)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("corrector", [sk.Langevin(steps=2), sk.AnnealedLangevin()], ids=["langevin", "annealed"])
def test_sample_seven_alone_is_sample_seven_of_sixty_four(process, corrector):
    law = mixture((1, 2, 2))
    solver = sk.PredictorCorrector(sk.ReverseDiffusion(), corrector)

    def run(n, first):
        return sk.solve(
            sk.reverse(process, law.score(process)),
            start(process, (1, 2, 2), n, first),
            process.t_max,
            process.t_min,
            solver=solver,
            steps=sk.FixedSteps(30),
            seed=4,
            first=first,
        ).x

    whole = run(64, 0)
    torch.testing.assert_close(run(1, 7)[0], whole[7], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([run(10, k) for k in range(0, 60, 10)]), whole[:60], rtol=1e-12, atol=1e-12)


def test_the_published_step_couples_the_samples_of_a_batch_and_the_default_does_not():
    process, law = sk.VE(), mixture((3,))
    draws = KeyedDraws(0)
    x = start(process, (3,), 8)
    sde, t = sk.reverse(process, law.score(process)), torch.tensor(0.5, dtype=torch.float64)
    span = sk.Span(t, t - 0.01, -0.01, 0, draws)
    other = torch.cat((x[:1], 3 * x[1:]))
    for corrector, coupled in ((sk.Langevin(), False), (sk.Langevin(compat="song2021"), True)):
        same = torch.equal(corrector.correct(sde, span, t, x)[0], corrector.correct(sde, span, t, other)[0])
        assert same is not coupled


def test_the_published_corrector_step_is_the_formula_of_the_paper():
    process, law, snr = sk.VP(), mixture((1, 2, 2)), 0.16
    x = start(process, (1, 2, 2), 5)
    h = 1e-3
    t = torch.tensor(0.7, dtype=torch.float64)
    sde = sk.reverse(process, law.score(process))
    span = sk.Span(t, t - h, -h, 3, KeyedDraws(2))
    z = KeyedDraws(2).normal(Purpose.CORRECTOR, 3, tuple(x.shape), x.dtype, x.device)
    grad = law.score(process)(t, x)
    alpha = 1 - (0.1 + 0.7 * 19.9) * h
    size = 2 * alpha * (snr * z.flatten(1).norm(dim=1).mean() / grad.flatten(1).norm(dim=1).mean()) ** 2
    expected = x + size * grad + torch.sqrt(2 * size) * z
    torch.testing.assert_close(sk.Langevin(snr, compat="song2021").correct(sde, span, t, x), expected)


def test_a_score_of_zero_leaves_no_sample_infinite():
    process = sk.VE()
    sol = sk.solve(
        sk.reverse(process, lambda t, x: torch.zeros_like(x)),
        torch.ones(4, 2),
        0.5,
        0.4,
        solver=sk.PredictorCorrector(sk.ReverseDiffusion(), sk.Langevin()),
        steps=sk.FixedSteps(3),
    )
    assert torch.isfinite(sol.x).all()


def test_the_mean_of_the_last_step_is_the_denoised_sample():
    process, law = sk.VE(sigma_min=0.1), sk.GaussianData(mean=torch.zeros(4, dtype=torch.float64), std=0.5)
    sol = sk.solve(
        sk.reverse(process, law.score(process)),
        start(process, (4,), 2048),
        process.t_max,
        process.t_min,
        solver=sk.ReverseDiffusion(),
        steps=sk.FixedSteps(200),
        seed=1,
    )
    assert sol.mean is not None
    # the last step adds noise of variance σ²(t_{N−1}) − σ²(t_N) to its mean
    levels = process.sigma(torch.tensor([process.t_min + (process.t_max - process.t_min) / 200, process.t_min]))
    added = float((levels[0] ** 2 - levels[1] ** 2).sqrt())
    assert float((sol.x - sol.mean).std()) == pytest.approx(added, rel=4 / math.sqrt(2 * sol.x.numel()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sk.Langevin(snr=0.0), "snr must be positive"),
        (lambda: sk.Langevin(steps=0), "steps must be 1 or more"),
        (lambda: sk.Langevin(compat="2021"), "song2021"),
        (lambda: sk.PredictorCorrector(sk.ReverseDiffusion(), order="pp"), "'cp'"),
        (lambda: sk.PredictorCorrector(sk.ReverseDiffusion(), corrector=3), "Corrector such as Langevin"),
    ],
)
def test_a_bad_corrector_says_what_to_write(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    "process", [*PROCESSES, sk.SMLD(levels=300), sk.DDPM(levels=300)], ids=lambda p: type(p).__name__
)
def test_annealed_langevin_dynamics_alone_samples_the_mixture_on_every_process(process):
    """As SMLD was sampled: no predictor, some steps at every level."""
    law = mixture((3,))
    grid = sk.log_snr_grid(process, 40)
    x = sk.solve(
        sk.reverse(process, law.score(process)),
        start(process, (3,), 2000),
        grid.times[0],
        grid.times[-1],
        solver=sk.PredictorCorrector(None, sk.AnnealedLangevin(0.16, steps=40), order="pc"),
        steps=grid,
        seed=2,
    ).x
    counts = torch.bincount(nearest_mode(x, law), minlength=3) / 2000
    at_end = law.at(process, process.t_min)
    inner = (x - at_end.means[at_end.responsibilities(x).argmax(1)]).square().mean().sqrt()
    assert (counts - torch.tensor([0.5, 0.3, 0.2])).abs().max() < 0.06, counts
    # its steps shrink with σ², and below σ = 0.1 they are too short to take the last width away
    assert 0.3 < float(inner) < 0.3 * 1.07


def test_naive_langevin_dynamics_finds_the_law_of_one_mode_and_mixes_modes_slowly():
    process, t = sk.VE(), 0.3
    law = sk.GaussianData(torch.zeros(2, dtype=torch.float64), std=0.5)
    sde = sk.langevin_dynamics(law.score(process), t)
    x = sk.solve(sde, torch.full((4000, 2), 2.0).double(), 0.0, 3.0, solver=sk.SRA1(), steps=sk.FixedSteps(200)).x
    exact = float((0.25 + process.std(t) ** 2).sqrt())
    assert float(x.std()) == pytest.approx(exact, rel=4 / math.sqrt(2 * x.numel()) + 0.002)
    # two modes far apart: a start in one stays in one, whatever their weights are
    two = sk.GaussianMixture(torch.tensor([[-3.0], [3.0]], dtype=torch.float64), 0.3)
    stuck = sk.langevin_dynamics(two.score(process), process.t_min)
    y = sk.solve(stuck, torch.full((500, 1), -3.0).double(), 0.0, 1.0, solver=sk.SRA1(), steps=sk.FixedSteps(100)).x
    assert (y < 0).all()


@pytest.mark.parametrize("predictor", [sk.ReverseDiffusion(), sk.Ancestral(), sk.Euler()], ids=str)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_predictors_follow_the_probability_flow_at_first_order(process, predictor):
    law = mixture((3,))
    flow, x = sk.probability_flow(process, law.score(process)), start(process, (3,), 32)
    exact = sk.solve(
        flow, x, process.t_max, process.t_min, solver=sk.AngularAdams(3), steps=sk.angle_grid(process, 300)
    ).x
    errors = []
    for n in (400, 800):
        found = sk.solve(flow, x, process.t_max, process.t_min, solver=predictor, steps=sk.FixedSteps(n))
        assert found.stats.model_calls == n
        errors.append(float((found.x - exact).square().flatten(1).mean(1).sqrt().log().mean().exp()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.2)


def test_correctors_with_few_steps_keep_a_positive_step_size():
    """1 − β h would be negative here."""
    process, law = sk.VP(), mixture((3,))
    for corrector in (sk.Langevin(), sk.AnnealedLangevin()):
        sol = sk.solve(
            sk.reverse(process, law.score(process)),
            start(process, (3,), 16),
            process.t_max,
            process.t_min,
            solver=sk.PredictorCorrector(sk.DPMSolverPP(1), corrector),
            steps=sk.FixedSteps(3),
        )
        assert torch.isfinite(sol.x).all()


@pytest.mark.parametrize("sde", [sk.VP(), sk.DDPM(levels=100)], ids=lambda p: type(p).__name__)
def test_the_published_alpha_is_one_minus_the_step_s_beta(sde):
    law, h = mixture((3,)), 0.01
    x, t = start(sde, (3,), 4), torch.tensor(0.5, dtype=torch.float64)
    span = sk.Span(t, t - h, -h, 3, KeyedDraws(2))
    multiplier, _ = sde.discretize(t, t - h)
    reverse = sk.reverse(sde, law.score(sde))
    z = KeyedDraws(2).normal(Purpose.CORRECTOR, 3, tuple(x.shape), x.dtype, x.device)
    size = 2 * multiplier**2 * (0.1 * sde.std(t)) ** 2
    expected = x + size * law.score(sde)(t, x) + torch.sqrt(2 * size) * z
    torch.testing.assert_close(sk.AnnealedLangevin(0.1, compat="song2021").correct(reverse, span, t, x), expected)
