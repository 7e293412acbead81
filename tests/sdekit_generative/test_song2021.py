import dataclasses

import numpy as np
import pytest
import torch

from sdekit.errors import Incompatible
from sdekit.random import Purpose, Replay
from sdekit.sdes.diffusion import EDM, VE, VP, SubVP
from sdekit_generative.data import DataRange
from sdekit_generative.model import ScoreModel, Song2021
from sdekit_generative.song2021_sampler import Song2021PC

N = 1000
TIMES = [1e-3, 0.25, 0.5, 1.0]


class Telling(torch.nn.Module):
    """Gives what it is told, in every pixel."""

    def forward(self, x, c):
        return c[:, None, None, None].expand_as(x)


def _told_and_factor(process, conventions, t):
    """What the network is told at t, and the score for an output of 1."""
    model = ScoreModel(Telling(), process, conventions, DataRange(), (1, 1, 1), 256)
    x, t = torch.zeros(len(t), 1, 1, 1), torch.tensor(t, dtype=torch.float64).reshape(-1, 1, 1, 1)
    score = model(t, x).flatten()
    one = dataclasses.replace(model, network=One())(t, x).flatten()
    return (score / one).double().numpy(), one.double().numpy()


class One(torch.nn.Module):
    def forward(self, x, c):
        return torch.ones_like(x)


def test_continuous_ve_networks_are_told_the_noise_level_and_give_the_score():
    told, factor = _told_and_factor(VE(0.01, 50.0), Song2021(), TIMES)
    np.testing.assert_allclose(told, np.log(0.01) + np.array(TIMES) * np.log(5000.0), rtol=1e-6)
    np.testing.assert_allclose(factor, 1.0, rtol=1e-6)


def test_discrete_ve_networks_are_told_the_number_of_the_level_from_above():
    told, factor = _told_and_factor(VE(0.01, 50.0), Song2021(continuous=False), TIMES)
    np.testing.assert_allclose(told, [998, 749, 500, 0], rtol=1e-6)  # round(0.999 · 999) = 998, …, round(499.5) = 500
    np.testing.assert_allclose(factor, 1.0, rtol=1e-6)


@pytest.mark.parametrize("process", [VP(t_min=1e-5), SubVP(t_min=1e-5)], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("steps", [1000, 500])
def test_continuous_vp_networks_are_told_999_t_whatever_the_steps_and_give_the_noise(process, steps):
    told, factor = _told_and_factor(process, Song2021(steps=steps), TIMES)
    np.testing.assert_allclose(told, 999 * np.array(TIMES), rtol=1e-6)
    integral = 0.1 * np.array(TIMES) + 0.5 * 19.9 * np.array(TIMES) ** 2
    kept = -np.expm1(-integral)
    np.testing.assert_allclose(factor, -1.0 / (np.sqrt(kept) if isinstance(process, VP) else kept), rtol=1e-6)


@pytest.mark.parametrize("compat", [None, "song2021"])
def test_discrete_vp_networks_are_told_steps_that_are_not_rounded(compat):
    told, factor = _told_and_factor(VP(), Song2021(continuous=False, compat=compat), TIMES)
    np.testing.assert_allclose(told, 999 * np.array(TIMES), rtol=1e-6)
    variance = 1.0 - np.cumprod(1.0 - np.linspace(0.1 / N, 20.0 / N, N))
    expected = -1.0 / np.sqrt(variance[[0, 249, 499, 999]])
    np.testing.assert_allclose(factor, expected, rtol=1e-6 if compat is None else 2e-4)


@pytest.mark.parametrize("compat", [None, "song2021"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("steps", [50, 1000])
def test_the_time_of_a_step_is_of_that_step_however_it_was_rounded(steps, dtype, compat):
    variance = 1.0 - np.cumprod(1.0 - np.linspace(0.1 / steps, 20.0 / steps, steps))
    t = (torch.arange(steps).to(dtype) / (steps - 1)).reshape(-1, 1, 1, 1)
    model = ScoreModel(One(), VP(), Song2021(False, steps, compat), DataRange(), (1, 1, 1), 256)
    score = model(t[1:], torch.zeros(steps - 1, 1, 1, 1)).flatten().double().numpy()
    np.testing.assert_allclose(score, -1.0 / np.sqrt(variance[1:]), rtol=1e-6 if compat is None else 2e-4)


def test_float32_schedules_err_where_the_published_code_does():
    t = [1e-5]
    _, exact = _told_and_factor(VP(t_min=1e-5), Song2021(), t)
    _, published = _told_and_factor(VP(t_min=1e-5), Song2021(compat="song2021"), t)
    assert -1.0 / exact[0] == pytest.approx(1.00050e-3, rel=1e-5)
    assert -1.0 / published[0] == pytest.approx(1.00662e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("process", "conventions"), [(EDM(), Song2021()), (SubVP(), Song2021(continuous=False))], ids=["EDM", "sub-VP"]
)
def test_processes_that_the_paper_does_not_have_are_refused(process, conventions):
    with pytest.raises(Incompatible, match="Song2021 knows no"):
        _told_and_factor(process, conventions, [0.5])


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"compat": "song2020"}])
def test_conventions_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Song2021(**wrong)


# --- the sampler ------------------------------------------------------------------------------------------------------


class Gaussian(torch.nn.Module):
    """ε̂ = −std · score of the score −x/(1 + t), for what the network of a VP, sub-VP or VE process is told."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, x, c):
        continuous_ve = isinstance(self.process, VE)
        t = self.process.time(c.double()) if continuous_ve else c.double() / 999
        t = t[:, None, None, None]
        score = -x / (1 + t).float()
        return score if continuous_ve else -score * self.process.std(t).float()


def _by_hand(process, sampler, prior, corrector, path):
    """The published loop in NumPy, float64."""
    n, low, high = sampler.steps, *((0.01, 50.0) if isinstance(process, VE) else (process.beta_min, process.beta_max))
    x = mean = prior.double().numpy()
    sigmas = 0.01 * 5000.0 ** (np.arange(n) / (n - 1))
    betas = np.linspace(low / n, high / n, n)

    def score(x, t):
        return -x / (1 + t)

    def norm(v):
        return np.sqrt((v**2).reshape(len(v), -1).sum(1)).mean()

    for i, t in enumerate(np.linspace(1.0, sampler.t_end, n)):
        k = int(t * (n - 1))
        alpha = 1.0 if isinstance(process, VE) else 1.0 - betas[k]
        if sampler.corrector != "none":
            z = corrector[i].double().numpy()
            g = score(x, t)
            length = norm(z) / norm(g) if sampler.corrector == "langevin" else float(process.std(t))
            size = 2 * alpha * (sampler.snr * length) ** 2
            x = x + size * g + np.sqrt(2 * size) * z
        z, g = path[i].double().numpy(), score(x, t)
        c = 0.5 if sampler.probability_flow else 1.0
        if sampler.predictor == "none":
            mean, spread = x, 0.0
        elif sampler.predictor == "euler_maruyama" or isinstance(process, SubVP):
            rate = float(process.drift_formula(torch.tensor(t)))
            variance = float(process.variance_formula(torch.tensor(t)))
            mean, spread = x - (rate * x - c * variance * g) / n, np.sqrt(variance / n)
        elif isinstance(process, VE):
            below = sigmas[k - 1] if k else 0.0
            variance = sigmas[k] ** 2 - below**2
            mean, spread = x + c * variance * g, np.sqrt(variance)
            spread = spread * below / sigmas[k] if sampler.predictor == "ancestral" else spread
        elif sampler.predictor == "ancestral":
            mean, spread = (x + betas[k] * g) / np.sqrt(1 - betas[k]), np.sqrt(betas[k])
        else:
            mean, spread = (2 - np.sqrt(1 - betas[k])) * x + c * betas[k] * g, np.sqrt(betas[k])
        x = mean if sampler.probability_flow else mean + spread * z
    return mean


CASES = [
    (VE(0.01, 50.0), {}),
    (VE(0.01, 50.0), {"predictor": "ancestral", "corrector": "ald"}),
    (VE(0.01, 50.0), {"predictor": "euler_maruyama", "corrector": "none"}),
    (VE(0.01, 50.0), {"predictor": "none"}),
    (VE(0.01, 50.0), {"corrector": "none", "probability_flow": True}),
    (VP(0.1, 5.0, t_min=1e-5), {"t_end": 1e-3}),
    (VP(0.1, 5.0, t_min=1e-5), {"predictor": "ancestral", "corrector": "ald"}),
    (VP(0.1, 5.0, t_min=1e-5), {"predictor": "euler_maruyama", "corrector": "none", "probability_flow": True}),
    (SubVP(0.1, 5.0, t_min=1e-5), {"corrector": "ald"}),
    (SubVP(0.1, 5.0, t_min=1e-5), {"predictor": "euler_maruyama", "corrector": "none"}),
]


@pytest.mark.parametrize(
    ("process", "options"), CASES, ids=lambda v: type(v).__name__ if isinstance(v, (VE, VP, SubVP)) else str(v)
)
def test_the_published_sampler_is_followed_number_by_number(process, options):
    draw = torch.Generator().manual_seed(0)
    sampler = Song2021PC(steps=10, **options)
    prior = torch.randn(3, 1, 4, 4, generator=draw) * process.prior_std()
    corrector, path = (list(torch.randn(10, 3, 1, 4, 4, generator=draw)) for _ in range(2))
    model = ScoreModel(Gaussian(process), process, Song2021(), DataRange(), (1, 4, 4), 256)
    solution = sampler.route(model).solve(prior, Replay({Purpose.CORRECTOR: corrector, Purpose.PATH: path}))
    expected = _by_hand(process, sampler, prior, corrector, path)
    np.testing.assert_allclose(solution.mean.numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_sub_vp_steps_near_the_data_err_as_the_published_code_does():
    # g² and std of float32 are 1.2 % too large at t = 1e-5: to mend one of them alone would make a difference
    process = SubVP(t_min=1e-5)
    sampler = Song2021PC("euler_maruyama", "none", steps=2, probability_flow=True)
    model = ScoreModel(One(), process, Song2021(compat="song2021"), DataRange(), (1, 1, 1), 256)
    with torch.no_grad():
        end = float(sampler.route(model).solve(torch.zeros(1, 1, 1, 1)).mean)
    first = -0.25 * 20.0 / float(process.std(1.0))  # from 0 at t = 1, where g² = β
    t = torch.tensor(1e-5)
    beta = 0.1 + 19.9 * t
    variance, std = beta * (1.0 - torch.exp(-0.2 * t - 19.9 * t**2)), 1.0 - torch.exp(-0.5 * 19.9 * t**2 - 0.1 * t)
    expected = first * (1.0 + 0.25 * beta) - 0.25 * variance / std
    assert end == pytest.approx(float(expected), abs=2e-5)
    mended = first * (1.0 + 0.25 * beta) - 0.25 * float(process.variance_formula(t.double())) / std
    assert abs(float(expected - mended)) > 2e-4


@pytest.mark.parametrize(
    ("process", "options"),
    [(SubVP(), {"predictor": "ancestral"}), (VP(), {"predictor": "ancestral", "probability_flow": True}), (EDM(), {})],
    ids=str,
)
def test_steps_that_the_paper_does_not_have_are_refused(process, options):
    model = ScoreModel(Gaussian(process), process, Song2021(), DataRange(), (1, 4, 4), 256)
    with pytest.raises(Incompatible):
        Song2021PC(steps=5, **options).route(model).solve(torch.randn(2, 1, 4, 4))


@pytest.mark.parametrize("wrong", [{"predictor": "heun"}, {"corrector": "hmc"}, {"steps": 1}, {"t_end": 0.0}])
def test_samplers_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Song2021PC(**wrong)
