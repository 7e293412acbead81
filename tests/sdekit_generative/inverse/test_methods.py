"""Methods against posteriors in closed form: where a formula is exact it must be exact, and elsewhere keep its word."""

import dataclasses
import math

import pytest
import torch

from sdekit.analytic import GaussianData
from sdekit.errors import Incompatible
from sdekit.protocols import expand
from sdekit.random import KeyedDraws, Purpose
from sdekit.scores.correctors import Langevin
from sdekit.scores.predictor_corrector import PredictorCorrector
from sdekit.scores.predictors import ReverseDiffusion
from sdekit.scores.reverse import probability_flow
from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.solvers import DDIM, AngularAdams, Bosh3
from sdekit.steps import Adaptive
from sdekit_generative.inverse import (
    CT,
    DDNM,
    DPS,
    MMPS,
    TMPD,
    Colorize,
    CompressedSensing,
    DiffPIR,
    Downsample,
    FromFunction,
    GaussianBlur,
    Inpaint,
    Matrix,
    Measurement,
    MeasurementError,
    PhaseRetrieval,
    PiGDM,
    Projection,
    RePaint,
    Replacement,
    Tally,
    TwistedSMC,
    as_matrix,
    exact_posterior,
    sample_posterior,
)
from sdekit_generative.inverse.particles import resample
from sdekit_generative.song2021_sampler import Song2021PC

from .problems import SHAPE, Problem, noise

LEFT = torch.tensor([[1, 1, 0, 0]] * 4)
OPERATORS = {
    "inpaint": Inpaint(LEFT),
    "average": Downsample(2),
    "blur": GaussianBlur(1.0),
    "sensing": CompressedSensing(SHAPE, 0.5),
    "ct": CT(4, angles=2),
}
METHODS = [
    Replacement(),
    Projection(0.5),
    RePaint(jumps=2),
    DPS(),
    PiGDM(),
    TMPD(),
    MMPS(steps=3, tolerance=1e-12),
    DDNM(),
    DiffPIR(),
    TwistedSMC(particles=100),
]


def _name(value):
    return type(value).__name__


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(0.01, 20.0)], ids=_name)
@pytest.mark.parametrize("name", OPERATORS)
def test_with_the_models_covariance_the_score_of_a_gaussian_posterior_is_exact(name, process):
    problem = Problem(OPERATORS[name], process=process)
    guided = MMPS(steps=16, tolerance=1e-12).score(process, problem.score, problem.measurement)
    exact = problem.posterior().score(process)
    for level in (0.02, 0.3, 1.0, 8.0):
        t = process.time(math.log(level))
        x = float(process.scale(t)) * (problem.images + level * noise(1, *SHAPE, seed=3))
        torch.testing.assert_close(guided(t, x), exact(t, x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OPERATORS)
def test_pseudo_inverse_guidance_is_exact_for_white_data_of_the_width_it_assumes(name):
    problem = Problem(OPERATORS[name])
    white = GaussianData(torch.zeros(SHAPE, dtype=torch.float64), std=torch.tensor(0.6, dtype=torch.float64))
    guided = PiGDM(data_std=0.6).score(problem.process, white.score(problem.process), problem.measurement)
    covs = 0.36 * torch.eye(16, dtype=torch.float64)[None]
    posterior = exact_posterior(
        torch.zeros(1, *SHAPE), covs, torch.ones(1), problem.operator, problem.y[0], problem.level
    )
    t, x = torch.tensor(0.4, dtype=torch.float64), noise(1, *SHAPE)
    torch.testing.assert_close(guided(t, x), posterior.score(problem.process)(t, x), rtol=1e-8, atol=1e-9)


def test_row_sums_are_exact_where_pixels_are_independent_and_some_are_seen():
    stds = torch.linspace(0.3, 1.2, 16, dtype=torch.float64)
    data = GaussianData(torch.zeros(SHAPE, dtype=torch.float64), std=stds.reshape(SHAPE))
    problem = Problem(OPERATORS["inpaint"])
    guided = TMPD().score(problem.process, data.score(problem.process), problem.measurement)
    posterior = exact_posterior(
        torch.zeros(1, *SHAPE), stds.square().diag()[None], torch.ones(1), problem.operator, problem.y[0], problem.level
    )
    t, x = torch.tensor(0.4, dtype=torch.float64), noise(1, *SHAPE)
    torch.testing.assert_close(guided(t, x), posterior.score(problem.process)(t, x), rtol=1e-8, atol=1e-9)


def test_dps_moves_down_the_gradient_of_the_misfit_at_the_papers_speed():
    problem = Problem(OPERATORS["blur"], components=3)
    process, t, x = problem.process, torch.tensor(0.5, dtype=torch.float64), noise(2, *SHAPE)
    measurement = dataclasses.replace(problem.measurement, y=problem.y.expand(2, -1, -1, -1))
    change = DPS(zeta=2.0).score(process, problem.score, measurement)(t, x) - problem.score(t, x)
    denoiser, direction, h = problem.data.denoiser(process), noise(2, *SHAPE, seed=4), 1e-5

    def misfit(x):
        return (problem.y - problem.operator(denoiser(t, x))).flatten(1).norm(dim=1)

    slope = (misfit(x + h * direction) - misfit(x - h * direction)) / (2 * h)
    speed = 2.0 * 1000 / float(process.beta(t)) * math.sqrt(16 / (3 * 256**2))
    torch.testing.assert_close((change * direction).flatten(1).sum(1), -speed * slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [PiGDM(), MMPS(), TMPD(), DPS(), DDNM(), DiffPIR()], ids=_name)
def test_samples_may_stand_at_times_of_their_own(method):
    problem = Problem(OPERATORS["average"], n=2, components=2)
    guided, x = method.score(problem.process, problem.score, problem.measurement), noise(2, *SHAPE)
    times = torch.tensor([0.2, 0.7], dtype=torch.float64)
    together = guided(expand(times, x), x)
    for i in range(2):
        part = dataclasses.replace(problem.measurement, y=problem.y[i : i + 1])
        alone = method.score(problem.process, problem.score, part)(times[i], x[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", ["inpaint", "average", "sensing"])
def test_samples_have_the_mean_and_covariance_of_the_gaussian_posterior(name):
    n = 4000
    problem = Problem(OPERATORS[name])
    found = sample_posterior(problem.route(60), problem.measurement, MMPS(16, 1e-6), n=n, batch=n)
    truth, x = problem.posterior(), found.samples[0].flatten(1)
    mean, covariance = truth.mean.flatten(), truth.covariance
    assert float((x.mean(0) - mean).norm()) < 3.5 * math.sqrt(float(covariance.trace()) / n)
    # the square of the expected error of a sample covariance is (‖C‖² + tr(C)²)/n
    expected = math.sqrt((float(covariance.square().sum()) + float(covariance.trace()) ** 2) / n)
    assert float((x.T.cov() - covariance).norm()) < 2.0 * expected


@pytest.mark.parametrize(
    "solver", [DDIM(), AngularAdams(3), Bosh3(), PredictorCorrector(ReverseDiffusion(), Langevin())]
)
def test_a_guided_score_goes_with_any_solver(solver):
    problem = Problem(OPERATORS["average"])
    ode = isinstance(solver, (AngularAdams, Bosh3))
    route = problem.route(150, solver, churn=0.0 if ode else 1.0)
    if isinstance(solver, Bosh3):
        route = dataclasses.replace(route, steps=Adaptive(rtol=1e-3, atol=1e-3))
    found = sample_posterior(route, problem.measurement, MMPS(16, 1e-6), n=500, batch=500)
    truth, x = problem.posterior(), found.samples[0].flatten(1)
    variance = float(truth.covariance.trace())
    assert float((x.mean(0) - truth.mean.flatten()).norm()) < 5.0 * math.sqrt(variance / 500)
    assert float(x.var(0).sum()) == pytest.approx(variance, rel=0.12)


@pytest.mark.parametrize("method", [DDNM(), DiffPIR(), Replacement(), RePaint(jumps=2)], ids=_name)
@pytest.mark.parametrize("name", ["inpaint", "average", "sensing"])
def test_without_noise_samples_agree_with_the_observation(name, method):
    problem = Problem(OPERATORS[name], level=0.0)
    found = sample_posterior(problem.route(30), problem.measurement, method, n=4)
    again = problem.operator(found.samples[0])
    torch.testing.assert_close(again, problem.y.expand_as(again), rtol=0.0, atol=2e-3 if method == DiffPIR() else 1e-6)
    assert float(found.samples[0].std(0).sum()) > 0.3  # what was not seen stays open


def test_without_noise_the_proximal_step_is_the_projection():
    problem = Problem(OPERATORS["blur"], level=0.0)
    t, x = torch.tensor(0.4, dtype=torch.float64), noise(1, *SHAPE)
    one, other = (m.score(problem.process, problem.score, problem.measurement)(t, x) for m in (DDNM(), DiffPIR()))
    torch.testing.assert_close(one, other)


def test_a_noisy_direction_is_trusted_as_far_as_the_state_is_noisier():
    problem = Problem(OPERATORS["inpaint"], level=0.5)
    process, x = problem.process, noise(1, *SHAPE)
    denoiser = problem.data.denoiser(process)
    for level, trust in ((1.0, 1.0), (0.5, 1.0), (0.1, 0.2)):
        t = process.time(math.log(level))
        scale, std = float(process.scale(t)), float(process.std(t))
        score = DDNM().score(process, problem.score, problem.measurement)(t, x)
        denoised = (x + std**2 * score) / scale
        expected = denoiser(t, x) + trust * LEFT * (problem.y - denoiser(t, x))
        torch.testing.assert_close(denoised, expected)


def test_replacement_puts_the_observation_in_at_the_noise_level_of_the_state():
    # where all is seen and y is noise-free, the state must be N(s y, std²) whatever the model says
    problem = Problem(Inpaint(torch.ones(4, 4)), level=0.0)
    measurement = dataclasses.replace(problem.measurement, y=problem.y.expand(20000, -1, -1, -1))
    constraint = Replacement().constraint(measurement)
    t = torch.tensor(0.3, dtype=torch.float64)
    x = constraint.noised(problem.process, t, torch.zeros(20000, *SHAPE, dtype=torch.float64), noise(20000, *SHAPE))
    scale, std = float(problem.process.scale(t)), float(problem.process.std(t))
    standard = ((x - scale * problem.y) / std).flatten()
    assert abs(float(standard.mean())) < 4 / math.sqrt(standard.numel())
    assert abs(float(standard.var()) - 1.0) < 4 * math.sqrt(2 / standard.numel())


def test_a_noisy_observation_brings_its_own_noise_and_so_gets_less():
    level, count = 0.4, 50000
    problem = Problem(Downsample(2), level=level)
    y = problem.operator(problem.images) + level * noise(count, 1, 2, 2, seed=9)
    constraint = Replacement().constraint(dataclasses.replace(problem.measurement, y=y))
    t = problem.process.time(math.log(1.5))
    start = noise(count, *SHAPE, seed=3)
    x = constraint.noised(problem.process, t, start, noise(count, *SHAPE))
    seen = problem.operator(x) - float(problem.process.scale(t)) * problem.operator(problem.images)
    # the average of four pixels of a state of noise level std has std/2, from y and from what is added together
    assert float(seen.std()) == pytest.approx(float(problem.process.std(t)) / 2, rel=0.02)
    quiet = problem.process.time(math.log(0.5))  # below level/s, s = ½: left to the model
    assert torch.equal(constraint.noised(problem.process, quiet, start, noise(count, *SHAPE)), start)


def test_repainting_comes_nearer_to_the_posterior_than_replacing():
    problem = Problem(OPERATORS["inpaint"], level=0.0)
    truth = problem.posterior()

    def error(method):
        found = sample_posterior(problem.route(60, DDIM()), problem.measurement, method, n=600, batch=600)
        return float((found.samples[0].mean(0) - truth.mean).norm())

    once, often = error(Replacement()), error(RePaint(jumps=8))
    assert often < 0.6 * once


def test_the_exact_posterior_of_a_mixture_is_bayes_rule():
    problem = Problem(OPERATORS["average"], components=3)
    truth, x = problem.posterior(), problem.data.sample(5, seed=8)
    residual = (problem.y - problem.operator(x)).flatten(1)
    joint = problem.data.log_prob(x) - 0.5 * residual.square().sum(1) / problem.level**2
    ratio = truth.log_prob(x) - joint
    torch.testing.assert_close(ratio, ratio[:1].expand(5), rtol=1e-9, atol=1e-8)


def test_more_particles_come_nearer_to_the_posterior_of_a_mixture():
    problem = Problem(OPERATORS["inpaint"], level=0.3, components=4, n=1)
    truth = problem.posterior()

    def error(particles, clouds):
        measurement = dataclasses.replace(problem.measurement, y=problem.y.expand(clouds, -1, -1, -1))
        method = TwistedSMC(particles=particles)
        found = sample_posterior(problem.route(40), measurement, method, n=particles, batch=4096)
        return float((found.samples.mean(1) - truth.mean).flatten(1).square().sum(1).mean().sqrt())

    few, many = error(8, 24), error(256, 12)
    assert many < 0.4 * few
    assert many < 0.35 * math.sqrt(float(truth.covariance.trace()))


def test_the_twist_does_not_change_what_the_particles_tend_to():
    problem = Problem(OPERATORS["average"], level=0.3, components=2)
    truth = problem.posterior()
    for width in (0.4, 2.0):
        method = TwistedSMC(particles=1000, data_std=width)
        measurement = dataclasses.replace(problem.measurement, y=problem.y.expand(4, -1, -1, -1))
        found = sample_posterior(problem.route(60), measurement, method, n=1000, batch=4000)
        mean = found.samples.mean((0, 1))
        assert float((mean - truth.mean).norm()) < 0.12 * math.sqrt(float(truth.covariance.trace()))


def test_resampling_takes_every_particle_as_often_as_its_weight_says():
    weights = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    ancestors = resample(weights.log(), torch.tensor([0.3, 0.9]))
    assert ancestors[1].tolist() == [1, 1, 1, 1]
    many = torch.stack([resample(weights[:1].log(), torch.tensor([(i + 0.5) / 1000]))[0] for i in range(1000)])
    share = torch.bincount(many.flatten(), minlength=4) / 4000.0
    torch.testing.assert_close(share.double(), weights[0], rtol=0.0, atol=2e-3)


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_a_sample_depends_on_seed_and_number_only(method):
    problem = Problem(OPERATORS["inpaint"], components=2, n=3)
    together = sample_posterior(problem.route(12), problem.measurement, method, n=4, seed=7)
    in_parts = sample_posterior(problem.route(12), problem.measurement, method, n=4, seed=7, batch=5)
    torch.testing.assert_close(together.samples, in_parts.samples, rtol=1e-9, atol=1e-9)
    last = dataclasses.replace(problem.measurement, y=problem.y[2:])
    alone = sample_posterior(problem.route(12), last, method, n=4, seed=7, first=2)
    torch.testing.assert_close(alone.samples[0], together.samples[2], rtol=1e-9, atol=1e-9)
    other = sample_posterior(problem.route(12), last, method, n=4, seed=8, first=2)
    assert not torch.allclose(other.samples, alone.samples)
    assert not torch.allclose(alone.samples[0, 0], alone.samples[0, 3])


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_evaluations_and_gradients_are_counted_as_they_happen(method):
    problem = Problem(OPERATORS["inpaint"])
    called = [0]

    def score(t, x):
        called[0] += 1
        return problem.score(t, x)

    route = problem.route(10)
    route = dataclasses.replace(route, equation=dataclasses.replace(route.equation, score=score))
    found = sample_posterior(route, problem.measurement, method, n=2)
    jumps = getattr(method, "jumps", 1)
    assert found.network_evaluations == called[0] == 10 * jumps + 1
    gradients = {DPS: 11, PiGDM: 11, TMPD: 22, MMPS: 33, TwistedSMC: 10}
    assert found.gradients == gradients.get(type(method), 0)


def test_conjugate_gradients_stop_when_all_samples_have_converged():
    problem = Problem(Inpaint(torch.tensor([[1, 0, 0, 0]] + [[0] * 4] * 3)))
    tally = Tally()
    MMPS(steps=10).score(problem.process, problem.score, problem.measurement, tally)(
        torch.tensor(0.5, dtype=torch.float64), noise(1, *SHAPE)
    )
    assert tally.gradients == 1  # one number was measured


@pytest.mark.parametrize("method", [DPS(zeta=3.0), TwistedSMC(particles=64)], ids=_name)
def test_an_operator_that_is_not_linear_can_be_used_too(method):
    problem = Problem(PhaseRetrieval(), level=0.05, components=2)
    found = sample_posterior(problem.route(40), problem.measurement, method, n=16)
    wide = problem.data.sample(16, seed=3)
    misfit = (problem.operator(found.samples[0]) - problem.y).square().mean()
    assert float(misfit) < 0.25 * float((problem.operator(wide) - problem.y).square().mean())


@pytest.mark.parametrize("method", [PiGDM(), MMPS(), TMPD(), DDNM(), DiffPIR(), Replacement()], ids=_name)
def test_methods_that_need_an_adjoint_say_so(method):
    problem = Problem(PhaseRetrieval(), level=0.05)
    with pytest.raises(MeasurementError, match="DPS or TwistedSMC"):
        sample_posterior(problem.route(4), problem.measurement, method)


def test_an_operator_without_cheap_singular_values_is_made_a_matrix():
    problem = Problem(OPERATORS["ct"], level=0.05)
    matrix = as_matrix(OPERATORS["ct"], SHAPE)
    other = Measurement.of(matrix, problem.y, 0.05, SHAPE)
    t, x = torch.tensor(0.3, dtype=torch.float64), noise(1, *SHAPE)
    for method in (DDNM(), PiGDM()):
        one, two = (method.score(problem.process, problem.score, m)(t, x) for m in (problem.measurement, other))
        torch.testing.assert_close(one, two)


def test_large_images_are_solved_by_conjugate_gradients():
    operator = Downsample(2) @ GaussianBlur(0.7)
    shape = (2, 64, 64)
    measurement = Measurement.of(operator, noise(1, 2, 32, 32), 0.1, shape)
    assert measurement.svd is None
    v = noise(1, 2, 32, 32, seed=2)
    u = measurement.solve(v, 0.5, 0.01)
    torch.testing.assert_close(0.5 * operator(operator.adjoint(u)) + 0.01 * u, v, rtol=1e-4, atol=1e-5)
    with pytest.raises(MeasurementError, match="no cheap ones"):
        measurement.require_svd("DDNM")


def test_replacement_has_no_error_to_adapt_to():
    problem = Problem(OPERATORS["inpaint"])
    route = dataclasses.replace(
        problem.route(),
        equation=probability_flow(problem.process, problem.score),
        solver=Bosh3(),
        steps=Adaptive(1e-3, 1e-3),
    )
    with pytest.raises(Incompatible, match="FixedSteps"):
        sample_posterior(route, problem.measurement, Replacement())
    with pytest.raises(MeasurementError, match="fixed steps"):
        sample_posterior(route, problem.measurement, TwistedSMC())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DPS(0.0), "zeta"),
        (lambda: PiGDM(data_std=-1.0), "data_std"),
        (lambda: MMPS(steps=0), "steps"),
        (lambda: Projection(0.0), "blend"),
        (lambda: RePaint(jumps=0), "jumps"),
        (lambda: Replacement(compat="other"), "compat"),
        (lambda: TwistedSMC(particles=0), "particles"),
        (lambda: DiffPIR(weight=0.0), "weight"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def _matrix_with_wrong_adjoint():
    class Wrong(Matrix):
        def adjoint(self, y):
            return 1.01 * super().adjoint(y)

    return Wrong(noise(4, 16), SHAPE)


class _Shifted(Inpaint):
    def forward(self, x):
        return super().forward(x) + 1.0


@pytest.mark.parametrize(
    ("operator", "y", "level", "words"),
    [
        (Inpaint(torch.ones(5, 5)), torch.zeros(1, *SHAPE), 0.1, "mask of shape"),
        (Inpaint(LEFT), torch.zeros(1, 1, 5, 5), 0.1, "Inpaint makes"),
        (Inpaint(LEFT), torch.full((1, *SHAPE), math.nan), 0.1, "NaN"),
        (Inpaint(LEFT), torch.zeros(1, *SHAPE), -0.1, "noise"),
        (Inpaint(LEFT), torch.zeros(1, *SHAPE), math.nan, "noise"),
        (Inpaint(LEFT), torch.zeros(1, *SHAPE, dtype=torch.int64), 0.1, "floating tensor"),
        (_matrix_with_wrong_adjoint(), torch.zeros(1, 4), 0.1, "adjoint is wrong"),
        (_Shifted(LEFT), torch.zeros(1, *SHAPE), 0.1, "not linear"),
        (lambda x: x, torch.zeros(1, *SHAPE), 0.1, "FromFunction"),
    ],
)
def test_what_does_not_fit_together_is_said(operator, y, level, words):
    with pytest.raises(MeasurementError, match=words):
        Measurement.of(operator, y, level, SHAPE)


@pytest.mark.parametrize("method", [m for m in METHODS if not isinstance(m, TwistedSMC)], ids=_name)
@pytest.mark.parametrize("name", ["inpaint", "average", "ct"])
def test_an_observation_without_noise_is_no_exception(name, method):
    problem = Problem(OPERATORS[name], level=0.0, components=2)
    found = sample_posterior(problem.route(30), problem.measurement, method, n=3)
    assert bool(torch.isfinite(found.samples).all())
    if not isinstance(method, TMPD):  # row sums near 0, with no noise to bound them from below, push far
        assert float(found.samples.abs().max()) < 10.0


def test_a_function_of_float32_alone_can_be_used_in_float32():
    weight = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    operator = FromFunction(lambda x: torch.nn.functional.conv2d(x, weight), SHAPE)
    measurement = Measurement.of(operator, torch.zeros(1, 2, 3, 3), 0.1, SHAPE)
    assert measurement.svd is not None
    assert measurement.solve(torch.ones(1, 2, 3, 3), 1.0, 0.1).dtype is torch.float32


def test_missing_pixels_may_hold_anything():
    y = torch.where(LEFT.bool(), 0.5, math.nan).expand(1, *SHAPE)
    assert bool(torch.isfinite(Measurement.of(Inpaint(LEFT), y, 0.0, SHAPE).y).all())


def test_particles_need_a_likelihood():
    problem = Problem(OPERATORS["inpaint"], level=0.0)
    with pytest.raises(MeasurementError, match="noise > 0"):
        sample_posterior(problem.route(4), problem.measurement, TwistedSMC())
    with pytest.raises(ValueError, match="8 particles"):
        sample_posterior(problem.route(4), problem.measurement, TwistedSMC(particles=8), n=9)


@pytest.mark.parametrize("corrector", ["langevin", "none"])
@pytest.mark.parametrize("operator", [Inpaint(torch.tensor([[1, 0], [1, 0]])), Colorize()], ids=["inpaint", "colorize"])
def test_the_published_codes_replacement_is_replayed_line_by_line(operator, corrector):
    process, x, draws = VE(0.01, 20.0), noise(2, 3, 2, 2), KeyedDraws(0)
    y = operator(noise(2, 3, 2, 2, seed=1))
    route = Song2021PC(corrector=corrector, steps=4).route(_Model(process))
    measurement = Measurement.of(operator, y, 0.0, (3, 2, 2))
    method = Replacement(compat="song2021")
    conditioned = method.condition(route, measurement, Tally())
    found = conditioned.solve(method.start(x, measurement), draws).mean

    rotation = torch.tensor(
        [
            [0.57735014, -0.81649649, 4.7008697e-8],
            [0.57735026, 0.40824834, 0.70710671],
            [0.57735026, 0.40824822, -0.70710683],
        ]
    )
    turn, back = rotation.double(), torch.linalg.inv(rotation).double()
    mask = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    if isinstance(operator, Inpaint):
        turn = back = torch.eye(3, dtype=torch.float64)
        mask[..., 0] = 1.0
    else:
        mask[:, :1] = 1.0
    known = torch.einsum("bihw,ij->bjhw", y.expand(2, 3, 2, 2), turn)

    def put(x, part):
        return torch.einsum("bihw,ij->bjhw", torch.einsum("bihw,ij->bjhw", x, turn) * (1 - mask) + part * mask, back)

    def random(purpose, step, part=0):
        return draws.normal(purpose, step, (2, 3, 2, 2), torch.float64, torch.device("cpu"), part=part)

    x = torch.einsum("bihw,ij->bjhw", known * mask + torch.einsum("bihw,ij->bjhw", x * (1 - mask), turn), back)
    sigmas = 0.01 * 2000.0 ** (torch.arange(4, dtype=torch.float64) / 3)
    for step, t in enumerate(torch.linspace(1.0, 1e-5, 4, dtype=torch.float64)):
        std = float(process.std(t))
        if corrector == "langevin":
            score, z = _Model(process)(t, x), random(Purpose.CORRECTOR, step)
            size = 2.0 * (0.16 * z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()) ** 2
            x = x + size * score + (2.0 * size) ** 0.5 * z
        x = put(x, known + std * random(Purpose.CHURN, step, 63))
        k = int(t * 3)
        variance = sigmas[k] ** 2 - (sigmas[k - 1] ** 2 if k > 0 else 0.0)
        mean = x + variance * _Model(process)(t, x)
        x = put(mean + variance**0.5 * random(Purpose.PATH, step), known + std * random(Purpose.CHURN, step, 66))
    torch.testing.assert_close(found, put(x, known), rtol=1e-7, atol=1e-8)


def test_the_published_code_leaves_what_is_known_as_small_as_it_is_at_its_last_time():
    process, mask = VP(0.1, 2.0), torch.tensor([[1, 0], [1, 0]])
    y = Inpaint(mask)(noise(2, 3, 2, 2))
    route = Song2021PC("reverse_diffusion", "none", steps=2, t_end=0.5).route(_Model(process))
    method, measurement = Replacement(compat="song2021"), Measurement.of(Inpaint(mask), y, 0.0, (3, 2, 2))
    start = method.start(noise(2, 3, 2, 2, seed=1), measurement)
    found = method.condition(route, measurement, Tally()).solve(start).mean
    torch.testing.assert_close(found[..., 0], float(process.scale(0.5)) * y[..., 0])


class _Model:
    """The score of N(0, 1), with what a sampler asks of a model."""

    def __init__(self, process):
        self.process = process

    def __call__(self, t, x):
        return -x / (1.0 + self.process.std(t) ** 2)
