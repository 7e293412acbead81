"""Analytic laws: densities against torch.distributions, scores against automatic differentiation, samples in law."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.sdes.diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from sdekit.sdes.linear import LinearSDE
from sdekit.sdes.ornstein_uhlenbeck import OrnsteinUhlenbeck

F64 = torch.float64


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def _positive_definite(count, size, seed=1):
    root = _random(count, size, size, seed=seed)
    return root @ root.mT / size + 0.1 * torch.eye(size, dtype=F64)


MATRIX_OU = OrnsteinUhlenbeck(
    torch.tensor([[1.0, -0.4, 0.0], [0.5, 0.8, 0.2], [0.0, 0.1, 2.0]], dtype=F64),
    torch.tensor([0.5, 0.0, -1.0], dtype=F64),
    torch.tensor([[0.5, 0.1], [0.0, 0.7], [0.3, 0.0]], dtype=F64),
)
PROCESSES = {
    "VE": VE(),
    "VP": VP(),
    "sub-VP": SubVP(),
    "EDM": EDM(),
    "cosine": Cosine(),
    "rectified flow": RectifiedFlow(),
    "OU": OrnsteinUhlenbeck(0.7, 0.3, 0.9),
    "element-wise OU": OrnsteinUhlenbeck(torch.tensor([0.5, 1.0, 2.0], dtype=F64), 0.3, 0.9),
    "matrix OU": MATRIX_OU,
}
LAWS = {
    "isotropic": GaussianMixture(_random(4, 3), 0.3, weights=torch.tensor([1.0, 2.0, 3.0, 4.0])),
    "one std a component": GaussianMixture(_random(3, 3), torch.tensor([0.2, 0.5, 1.0])),
    "diagonal": GaussianMixture(_random(2, 3), _random(2, 3, seed=5).abs() + 0.1),
    "full": GaussianMixture(_random(3, 3), covs=_positive_definite(3, 3), weights=torch.tensor([0.2, 0.5, 0.3])),
    "gaussian": GaussianData(_random(3), cov=_positive_definite(1, 3)[0]),
}


def _reference(law, process, t):
    """The law of x(t) as a torch distribution, from the definition of the transition."""
    components = law._components
    shift = process.marginal(t)
    if hasattr(shift, "covariance"):
        m, noise, offset = shift.multiplier, shift.covariance, shift.offset
    else:
        m = torch.diag_embed(shift.multiplier.expand(3))
        noise = torch.diag_embed(shift.variance.expand(3))
        offset = torch.as_tensor(shift.offset, dtype=F64).expand(3)
    mean = components.mean @ m.mT + offset
    covariance = m @ components.covariance() @ m.mT + noise
    return MixtureSameFamily(Categorical(logits=components.log_weight), MultivariateNormal(mean, covariance))


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("process", PROCESSES)
def test_densities_and_scores_at_a_time_are_those_of_the_carried_mixture(name, process):
    law, process = LAWS[name], PROCESSES[process]
    t = torch.tensor(0.4, dtype=F64)
    x = (0.7 * _random(6, 3, seed=3)).requires_grad_(True)
    reference = _reference(law, process, t)
    expected = reference.log_prob(x)
    torch.testing.assert_close(law.log_prob(x, process, t), expected, rtol=1e-8, atol=1e-8)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(law.score(process)(t, x).detach(), gradient, rtol=1e-7, atol=1e-7)
    at = law.at(process, t)
    torch.testing.assert_close(at.log_prob(x), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(at.mean, reference.mean, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("process", PROCESSES)
def test_each_sample_may_stand_at_its_own_time(name, process):
    law, process = LAWS[name], PROCESSES[process]
    t = torch.tensor([0.1, 0.4, 0.9], dtype=F64)[:, None]
    x = _random(3, 3, seed=4)
    for of in (law.score(process), law.denoiser(process)):
        together = of(t, x)
        alone = torch.cat([of(t[i, 0], x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    alone = torch.cat([law.log_prob(x[i : i + 1], process, t[i, 0]) for i in range(3)])
    torch.testing.assert_close(law.log_prob(x, process, t), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("process", ["VE", "VP", "sub-VP", "EDM", "cosine", "rectified flow"])
def test_the_denoiser_obeys_tweedies_formula(name, process):
    law, process = LAWS[name], PROCESSES[process]
    t = torch.tensor(0.4, dtype=F64)
    x = 0.5 * _random(5, 3, seed=6)
    expected = (x + process.std(t).square() * law.score(process)(t, x)) / process.scale(t)
    torch.testing.assert_close(law.denoiser(process)(t, x), expected, rtol=1e-9, atol=1e-9)


def test_the_denoiser_under_a_matrix_process_is_the_posterior_mean():
    law = LAWS["gaussian"]
    shift, prior = MATRIX_OU.marginal(0.4), law._components
    cross = prior.covariance()[0] @ shift.multiplier.T
    gain = cross @ torch.linalg.inv(shift.multiplier @ cross + shift.covariance)
    x = _random(4, 3, seed=2)
    expected = prior.mean + (x - shift.mean(prior.mean)) @ gain.T
    torch.testing.assert_close(law.denoiser(MATRIX_OU)(torch.tensor(0.4, dtype=F64), x), expected)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_of_any_rank_and_dtype(shape, dtype):
    law = GaussianMixture(_random(3, *shape).to(dtype), _random(3, *shape, seed=1).abs() + 0.2)
    process = VP()
    x = law.sample(6, seed=1)
    assert x.shape == (6, *shape)
    assert x.dtype == dtype
    reference = MixtureSameFamily(
        Categorical(torch.ones(3, dtype=F64)), Independent(Normal(law.means.double(), law.stds), len(shape))
    )
    tolerance = 1e-5 if dtype is torch.float32 else 1e-10
    torch.testing.assert_close(
        law.log_prob(x), reference.log_prob(x.double()).to(dtype), rtol=tolerance, atol=tolerance
    )
    for t in (torch.tensor(0.3, dtype=F64), torch.full((6, *(1,) * len(shape)), 0.3, dtype=F64)):
        for of in (law.score(process), law.denoiser(process)):
            assert of(t, x).shape == x.shape
            assert of(t, x).dtype == dtype
    flat = GaussianMixture(law.means.flatten(1), law.stds.flatten(1))
    torch.testing.assert_close(law.score(process)(t, x).flatten(1), flat.score(process)(t.reshape(6, 1), x.flatten(1)))


def test_far_from_every_component_the_score_is_finite_and_right():
    law = GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.01)
    score = law.score(VP())(torch.tensor(1e-3, dtype=F64), torch.tensor([[300.0], [-0.5], [1e4]]))
    variance = float(VP().std(1e-3)) ** 2 + (0.01 * float(VP().scale(1e-3))) ** 2
    scale = float(VP().scale(1e-3))
    expected = torch.tensor([[scale - 300.0], [0.5 - scale], [scale - 1e4]]) / variance
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=0)


def test_points_of_data_have_a_score_once_there_is_noise():
    points = GaussianMixture(_random(5, 2), 0.0)
    process = EDM()
    t, x = torch.tensor(0.3, dtype=F64), _random(4, 2, seed=8)
    away = (x[:, None] - points.means).square().sum(-1)
    weights = torch.softmax(-away / (2 * 0.09), dim=1)
    torch.testing.assert_close(points.denoiser(process)(t, x), weights @ points.means)
    torch.testing.assert_close(points.responsibilities(x, process, t), weights)


def test_samples_have_the_law_they_are_drawn_from():
    n = 40000
    for name in ("isotropic", "full"):
        law = LAWS[name]
        x = law.sample(n, seed=2)
        mean, covariance = law.mean, law.covariance
        std = covariance.diagonal().sqrt()
        assert bool(((x.mean(0) - mean).abs() < 4 * std / math.sqrt(n)).all())
        fourth = torch.einsum("bi,bj->bij", x - mean, x - mean)
        assert bool(((fourth.mean(0) - covariance).abs() < 4 * fourth.std(0) / math.sqrt(n)).all())
    counts = torch.bincount(LAWS["isotropic"].responsibilities(x).argmax(1), minlength=4)
    assert counts.sum() == n
    separated = GaussianMixture(torch.tensor([[-5.0], [5.0]]), 0.1, weights=torch.tensor([0.25, 0.75]))
    share = float((separated.sample(n, seed=3) > 0).double().mean())
    assert abs(share - 0.75) < 4 * math.sqrt(0.25 * 0.75 / n)


def test_sample_i_depends_on_seed_and_i_only():
    for name in ("isotropic", "full", "gaussian"):
        whole = LAWS[name].sample(64, seed=9)
        torch.testing.assert_close(LAWS[name].sample(1, seed=9, first=7), whole[7:8], rtol=0, atol=1e-15)
        torch.testing.assert_close(LAWS[name].sample(10, seed=9, first=20), whole[20:30], rtol=0, atol=1e-15)
        assert not torch.equal(LAWS[name].sample(64, seed=10), whole)


def test_the_law_at_the_noisy_end_is_close_to_the_prior():
    law = LAWS["isotropic"]
    x = VP().prior_sample((1000, 3), seed=0, dtype=F64)
    gap = law.log_prob(x, VP(), 1.0) - VP().prior.log_prob(x)
    assert float(gap.abs().mean()) < 0.02
    assert float(law.at(VP(), 1.0).covariance.diagonal().sub(1.0).abs().max()) < 1e-4


def test_clean_data_means_no_noise_also_where_sigma_of_zero_is_not_zero():
    law = GaussianData(torch.zeros(2, dtype=F64), std=1.0)
    at_zero = law.at(VE(), 0.0)
    torch.testing.assert_close(at_zero.covariance, (1.0 + 1e-4) * torch.eye(2, dtype=F64))


def test_the_score_can_be_differentiated_and_mapped():
    law, process, t = LAWS["full"], VP(), torch.tensor(0.4, dtype=F64)
    score = law.score(process)
    x = _random(4, 3, seed=3)
    assert torch.autograd.gradcheck(lambda x: score(t, x), (x.requires_grad_(True),))
    x = x.detach()
    one = torch.func.vmap(lambda p: score(t, p[None])[0])(x)
    torch.testing.assert_close(one, score(t, x))


def test_a_matrix_on_dimension_one_carries_images_too():
    two = torch.tensor([[0.0, 1.0], [-1.0, -2.0]], dtype=F64)
    process = LinearSDE(two, 0.0, torch.tensor([0.0, 0.7], dtype=F64))
    law = GaussianMixture(_random(2, 2, 3), 0.4)
    x, t = _random(5, 2, 3, seed=7), torch.tensor(0.6, dtype=F64)
    shift = process.marginal(t)
    carried = shift.multiplier @ law.means
    covariance = 0.16 * shift.multiplier @ shift.multiplier.T + shift.covariance
    each = MultivariateNormal(carried.mT.reshape(2, 3, 2), covariance)
    expected = torch.logsumexp(each.log_prob(x.mT[:, None]).sum(-1) - math.log(2), dim=1)
    torch.testing.assert_close(law.log_prob(x, process, t), expected)
    times = torch.full((5, 1, 1), 0.6, dtype=F64)
    torch.testing.assert_close(law.score(process)(times, x), law.score(process)(t, x))


def test_misuse_is_explained():
    means = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="exactly one of stds and covs"):
        GaussianMixture(means)
    with pytest.raises(ValueError, match="exactly one of cov and std"):
        GaussianData(torch.zeros(3), cov=torch.eye(3), std=1.0)
    with pytest.raises(ValueError, match="weights must be 2 positive"):
        GaussianMixture(means, 0.1, weights=torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="one for each of 2 components"):
        GaussianMixture(means, torch.ones(3))
    with pytest.raises(ValueError, match="must not be negative"):
        GaussianMixture(means, -0.1)
    with pytest.raises(ValueError, match="must be symmetric"):
        GaussianMixture(means, covs=torch.triu(torch.ones(2, 3, 3)))
    with pytest.raises(ValueError, match=r"covariances \(cov, covs\) must be \(3, 3\)"):
        GaussianData(torch.zeros(3), cov=torch.eye(2))
    with pytest.raises(ValueError, match=r"means must be \(K, \*shape\)"):
        GaussianMixture(torch.zeros(3), 0.1)
    law = GaussianMixture(means, 0.1)
    with pytest.raises(ValueError, match=r"expected states of shape \(B, 3\)"):
        law.log_prob(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="a time t was given without a process"):
        law.log_prob(torch.zeros(4, 3), t=0.5)
    with pytest.raises(ValueError, match="a process was given without a time"):
        law.log_prob(torch.zeros(4, 3), VP())
    with pytest.raises(ValueError, match="takes one time"):
        law.at(VP(), torch.full((4, 1), 0.5, dtype=F64))
