"""Every diffusion process against its two formulas, its published closed forms and automatic differentiation."""

import math

import pytest
import torch

from sdekit.protocols import SDE, Noise
from sdekit.sdes.diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from sdekit.sdes.prior import IsotropicGaussian
from sdekit.sdes.process import AffineProcess, DiffusionProcess

PROCESSES = [VE(), VP(), SubVP(), EDM(), Cosine(), RectifiedFlow(), VP(beta_min=3.0, beta_max=3.0)]
CUSTOM = AffineProcess(lambda t: torch.exp(-t), lambda t: t + t**2)


def _times(process, n=33):
    return torch.linspace(process.t_min, process.t_max, n, dtype=torch.float64)


def _each(test):
    return pytest.mark.parametrize("process", [*PROCESSES, CUSTOM], ids=lambda p: type(p).__name__)(test)


@_each
def test_the_noise_level_and_the_time_are_inverse_to_one_another(process):
    t = _times(process)
    torch.testing.assert_close(process.time(process.log_sigma(t)), t, rtol=1e-11, atol=1e-14)


@_each
def test_closed_forms_agree_with_the_two_formulas_differentiated(process):
    t = _times(process)
    torch.testing.assert_close(process.std(t), process.scale(t) * process.sigma(t), rtol=1e-12, atol=0)
    x = torch.ones(33, 1, dtype=torch.float64)
    column = t[:, None]
    rate = DiffusionProcess.drift_formula(process, column)
    torch.testing.assert_close(process.drift(column, x), rate * x, rtol=1e-11, atol=1e-14)

    moving = t.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(process.sigma(moving).square().sum(), moving)
    g = process.diffusion(column, x)[:, 0]
    torch.testing.assert_close(g.square(), process.scale(t).square() * slope, rtol=1e-10, atol=0)


@_each
def test_transitions_compose(process):
    t0, t1, t2 = (process.t_min + f * (process.t_max - process.t_min) for f in (0.1, 0.35, 0.8))
    first, second, whole = process.transition(t0, t1), process.transition(t1, t2), process.transition(t0, t2)
    torch.testing.assert_close(second.multiplier * first.multiplier, whole.multiplier, rtol=1e-12, atol=0)
    composed = second.multiplier.square() * first.variance + second.variance
    torch.testing.assert_close(composed, whole.variance, rtol=1e-11, atol=0)


@_each
def test_the_marginal_at_t0_followed_by_a_transition_is_the_marginal_at_t1(process):
    t0, t1 = process.t_min, 0.5 * (process.t_min + process.t_max)
    start, step, end = process.marginal(t0), process.transition(t0, t1), process.marginal(t1)
    torch.testing.assert_close(step.multiplier * start.multiplier, end.multiplier, rtol=1e-12, atol=0)
    composed = step.multiplier.square() * start.variance + step.variance
    torch.testing.assert_close(composed, end.variance, rtol=1e-10, atol=0)


@_each
def test_the_variance_follows_the_differential_equation_of_the_moments(process):
    # dP/dt = 2 (s'/s) P + g², the variance given clean data
    t = _times(process)[1:-1].requires_grad_(True)
    variance = process.std(t).square()
    (slope,) = torch.autograd.grad(variance.sum(), t)
    x = torch.ones_like(t)
    expected = 2.0 * process.drift(t, x) * variance + process.diffusion(t, x).square()
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)


@_each
@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drift_and_diffusion_have_the_dtype_and_shape_of_the_state(process, shape, dtype):
    assert isinstance(process, SDE)
    assert process.noise is Noise.ADDITIVE
    x = torch.ones(shape, dtype=dtype)
    middle = 0.5 * (process.t_min + process.t_max)
    zero_d = torch.tensor(middle, dtype=torch.float64)
    each = torch.full((3, *(1,) * (len(shape) - 1)), middle, dtype=torch.float64)
    for t in (zero_d, each):
        drift, noise = process.drift(t, x), process.diffusion(t, x) * torch.ones_like(x)
        assert drift.shape == noise.shape == x.shape
        assert drift.dtype == noise.dtype == dtype
    assert torch.equal(process.drift(zero_d, x), process.drift(each, x))


def test_times_keep_their_dtype_and_are_computed_in_float64():
    process = VP()
    assert process.std(0.5).dtype == torch.float64
    assert process.std(torch.tensor(0.5)).dtype == torch.float64
    t32 = torch.full((4, 1), 1e-5)
    std = process.std(t32)
    assert std.dtype == torch.float32
    # the float32 formula √(1 − exp(2 lmc)) is 0.6 % off here
    torch.testing.assert_close(std, torch.full((4, 1), 1.000498e-3), rtol=1e-6, atol=0)


def test_coefficients_keep_their_digits_near_zero():
    t = torch.tensor(1e-5, dtype=torch.float64)
    integral = 1e-5 * 0.1 + 0.5 * 19.9 * 1e-10
    expm1 = integral * (1 + integral / 2 + integral**2 / 6)
    assert float(VP().sigma(t)) == pytest.approx(math.sqrt(expm1), rel=1e-13)
    assert float(VP().std(t)) == pytest.approx(math.sqrt(integral * (1 - integral / 2 + integral**2 / 6)), rel=1e-13)
    assert float(SubVP().std(t)) == pytest.approx(integral * (1 - integral / 2 + integral**2 / 6), rel=1e-13)
    assert float(SubVP().sigma(t)) == pytest.approx(integral * (1 + integral**2 / 24), rel=1e-12)
    assert float(SubVP().time(SubVP().log_sigma(t))) == pytest.approx(1e-5, rel=1e-12)
    assert float(VP().time(VP().log_sigma(t))) == pytest.approx(1e-5, rel=1e-12)


def test_published_values_of_the_three_processes_of_song_et_al():
    t = torch.tensor(0.3, dtype=torch.float64)
    x = torch.tensor([[2.0]], dtype=torch.float64)
    beta, integral = 0.1 + 19.9 * 0.3, 0.1 * 0.3 + 0.5 * 19.9 * 0.09
    assert float(VP().drift(t, x)) == pytest.approx(-beta, rel=1e-14)
    assert float(VP().diffusion(t, x)) == pytest.approx(math.sqrt(beta), rel=1e-14)
    assert float(VP().std(t)) == pytest.approx(math.sqrt(1 - math.exp(-integral)), rel=1e-14)
    assert float(SubVP().diffusion(t, x)) == pytest.approx(math.sqrt(beta * (1 - math.exp(-2 * integral))), rel=1e-14)
    assert float(SubVP().std(t)) == pytest.approx(1 - math.exp(-integral), rel=1e-14)
    sigma = 0.01 * 5000**0.3
    assert float(VE().std(t)) == pytest.approx(sigma, rel=1e-14)
    assert float(VE().diffusion(t, x)) == pytest.approx(sigma * math.sqrt(2 * math.log(5000)), rel=1e-14)
    assert float(VE().transition(0.0, 0.3).variance) == pytest.approx(sigma**2 - 1e-4, rel=1e-12)


def test_coefficients_are_finite_at_both_ends_of_time():
    x = torch.ones(1, 1)
    for process in [*PROCESSES, CUSTOM]:
        for end in (process.t_min, process.t_max):
            t = torch.tensor(end, dtype=torch.float64)
            values = [
                process.drift(t, x),
                process.diffusion(t, x),
                process.std(t),
                process.scale(t),
                process.log_sigma(t),
            ]
            assert all(bool(torch.isfinite(v).all()) for v in values)
    zero = torch.zeros((), dtype=torch.float64)
    for process in PROCESSES:
        values = [process.drift(zero, x), process.diffusion(zero, x), process.std(zero), process.scale(zero)]
        assert all(bool(torch.isfinite(v).all()) for v in values)


def test_where_the_scale_reaches_zero_the_marginal_and_the_transition_are_still_right():
    law = RectifiedFlow().transition(0.25, 1.0)
    assert float(law.multiplier) == 0.0
    assert float(law.variance) == 1.0
    assert float(RectifiedFlow().marginal(1.0).std) == 1.0
    law = VP().transition(0.0, 0.5)
    torch.testing.assert_close(law.variance, VP().std(0.5).square())


def test_discrete_steps_are_those_of_smld_and_ddpm():
    high, low = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.399, dtype=torch.float64)
    keep, noise = VE().discretize(high, low)
    assert float(keep) == 1.0
    assert float(noise) == pytest.approx(
        math.sqrt(float(VE().sigma(high)) ** 2 - float(VE().sigma(low)) ** 2), rel=1e-9
    )
    keep, noise = VP().discretize(high, low)
    beta_k = (0.1 + 19.9 * 0.4) * 0.001
    assert float(noise) == pytest.approx(math.sqrt(beta_k), rel=1e-9)
    assert float(keep) == pytest.approx(math.sqrt(1 - beta_k), rel=1e-9)
    keep, noise = SubVP().discretize(high, low)
    integral = 0.1 * 0.4 + 0.5 * 19.9 * 0.16
    assert float(keep) == pytest.approx(1 - 0.5 * beta_k, rel=1e-9)
    assert float(noise) == pytest.approx(math.sqrt(beta_k * (1 - math.exp(-2 * integral))), rel=1e-9)


@_each
def test_discrete_steps_agree_with_the_transition_to_first_order(process):
    upper = 0.5 * (process.t_min + process.t_max)
    errors = []
    for h in (1e-3, 5e-4):
        lower = upper - h * (process.t_max - process.t_min)
        exact = process.transition(lower, upper)
        keep, noise = process.discretize(upper, lower)
        errors.append((float((keep - exact.multiplier).abs()), float((noise.square() / exact.variance - 1).abs())))
    for coarse, fine in zip(*errors, strict=True):
        assert coarse < 2e-2
        assert fine <= 0.6 * coarse + 1e-12


def test_too_long_a_discrete_step_is_refused():
    with pytest.raises(ValueError, match="Take more steps than 20"):
        VP().discretize(1.0, 0.9)


def test_the_transition_samples_have_its_moments():
    x = torch.full((20000, 2), 1.5, dtype=torch.float64)
    law = VP().transition(0.1, 0.4)
    drawn = law.sample(x, seed=3)
    mean, variance = 1.5 * float(law.multiplier), float(law.variance)
    n = drawn.numel()
    assert abs(float(drawn.mean()) - mean) < 4 * math.sqrt(variance / n)
    assert abs(float(drawn.var()) / variance - 1) < 4 * math.sqrt(2 / n)
    expected = torch.distributions.Normal(law.multiplier * 1.5, law.std).log_prob(drawn).sum(1)
    torch.testing.assert_close(law.log_prob(drawn, x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(law.sample(x[:3], seed=3, first=7), drawn[7:10])


def test_prior_samples_depend_on_seed_and_index_only():
    process = VE()
    whole = process.prior_sample((64, 1, 4, 4), seed=5)
    assert whole.dtype == torch.float32
    assert torch.equal(process.prior_sample((1, 1, 4, 4), seed=5, first=7), whole[7:8])
    assert abs(float(whole.std()) / 50.0 - 1) < 4 / math.sqrt(2 * whole.numel())
    assert process.prior_sample((2, 3), seed=0, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("process", "std"), [(VE(), 50.0), (VP(), 1.0), (SubVP(), 1.0), (EDM(), 80.0), (RectifiedFlow(), 0.999)]
)
def test_the_prior_is_the_stated_gaussian(process, std):
    assert process.prior_std() == pytest.approx(std, rel=1e-12)
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Normal(0.0, std).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(process.prior.log_prob(x), expected)
    assert process.prior == IsotropicGaussian(process.prior_std())


def test_a_pair_of_functions_makes_a_known_process():
    vp = VP(beta_min=2.0, beta_max=2.0)
    pair = AffineProcess(lambda t: torch.exp(-t), lambda t: torch.sqrt(torch.expm1(2 * t)))
    t = torch.linspace(1e-3, 1.0, 9, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(pair.drift(t, x), vp.drift(t, x))
    torch.testing.assert_close(pair.diffusion(t, x), vp.diffusion(t, x).expand(9, 1))
    torch.testing.assert_close(pair.time(pair.log_sigma(t)), t)
    given = AffineProcess(pair.scale_of, pair.sigma_of, inverse=vp.time_formula)
    torch.testing.assert_close(given.time(0.3), pair.time(0.3))


def test_bad_parameters_are_refused_with_what_is_accepted():
    for make in (
        lambda: VE(sigma_min=0.0),
        lambda: VE(sigma_min=2.0, sigma_max=1.0),
        lambda: VP(beta_min=-1.0),
        lambda: SubVP(beta_min=5.0, beta_max=1.0),
        lambda: EDM(sigma_min=-1.0),
        lambda: VP(t_min=1.0),
        lambda: RectifiedFlow(t_max=1.0),
        lambda: Cosine(t_max=1.0),
        lambda: AffineProcess(lambda t: torch.ones_like(t), lambda t: 1.0 - t),
    ):
        with pytest.raises(ValueError, match=r"expected|must increase"):
            make()
    with pytest.raises(TypeError, match="scale_of must be a function"):
        AffineProcess(1.0, lambda t: t)
    with pytest.raises(ValueError, match=r"reverse\(process, score\)"):
        VP().transition(0.5, 0.1)
