"""Log-densities against closed forms of log p at t_min, with the exact law at t_max as prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.errors import SolveFailed, Status
from sdekit.protocols import expand
from sdekit.scores.coordinates import Angle, Clock
from sdekit.scores.divergence import Exact, Hutchinson, HutchPlusPlus
from sdekit.scores.likelihood import LogLikelihood, log_likelihood
from sdekit.scores.reverse import probability_flow
from sdekit.sdes.classics import CIR, GeometricBrownianMotion
from sdekit.sdes.critically_damped import CriticallyDamped
from sdekit.sdes.diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from sdekit.solvers import Adams, Dopri5, Dopri8
from sdekit.steps import Adaptive, FixedSteps, TimeGrid

TIGHT = Adaptive(rtol=1e-5, atol=1e-5)
PROCESSES = [VE(), VP(t_min=1e-5), SubVP(t_min=1e-5)]
NAMED = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


@dataclass(frozen=True)
class At:
    """The exact law at t."""

    data: Any
    process: Any
    t: float

    def log_prob(self, x: Tensor) -> Tensor:
        return self.data.log_prob(x, self.process, self.t)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def correlated(size: int, spread: float = 0.6) -> GaussianData:
    a = torch.eye(size, dtype=torch.float64) + spread * random(size, size, seed=1) / math.sqrt(size)
    return GaussianData(0.3 * random(size), cov=a @ a.T)


def bits_error(ll: LogLikelihood, exact: Tensor) -> float:
    return float(((ll.log_prob - exact).abs() / (ll.dimensions * math.log(2.0))).max())


def solved(process: Any, data: Any, x: Tensor, **options: Any) -> LogLikelihood:
    options = {"solver": Dopri5(), "steps": TIGHT, "prior": At(data, process, process.t_max)} | options
    return log_likelihood(process, data.score(process), x, **options)


DATA = {
    "Gaussian": lambda: GaussianData(0.3 * random(12), std=0.5 + torch.rand(12, dtype=torch.float64)),
    "mixture": lambda: GaussianMixture(random(4, 16, seed=2), 0.25),
    "Gaussian images": lambda: GaussianData(0.3 * random(2, 3, 2), std=0.4),
    "mixture of images": lambda: GaussianMixture(0.7 * random(3, 2, 3, 2), 0.3),
}


@NAMED
@pytest.mark.parametrize("solver", [Dopri5(), Adams()], ids=["Dopri5", "Adams"])
@pytest.mark.parametrize("name", DATA)
def test_densities_are_right_to_a_ten_thousandth_of_a_bit(process, solver, name: str) -> None:
    data = DATA[name]()
    x = data.at(process, process.t_min).sample(12, seed=3)
    ll = solved(process, data, x, solver=solver)
    assert bits_error(ll, data.log_prob(x, process, process.t_min)) < 1e-4
    assert ll.latent.shape == x.shape
    assert (ll.standard_error == 0).all()


@pytest.mark.parametrize("process", [EDM(), Cosine(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_every_affine_process_has_densities(process) -> None:
    data = DATA["mixture"]()
    x = data.at(process, process.t_min).sample(8, seed=3)
    assert bits_error(solved(process, data, x), data.log_prob(x, process, process.t_min)) < 1e-4


@NAMED
def test_the_angle_takes_fewer_evaluations_than_time_and_agrees(process) -> None:
    data = DATA["mixture"]()
    x = data.at(process, process.t_min).sample(8, seed=4)
    angle, clock = solved(process, data, x), solved(process, data, x, coordinates=Clock())
    assert bits_error(clock, data.log_prob(x, process, process.t_min)) < 1e-4
    assert bits_error(clock, angle.log_prob) < 1e-4
    assert torch.allclose(angle.latent, clock.latent, rtol=1e-3, atol=1e-3 * process.prior_std())
    assert angle.stats.evaluations.double().mean() < 0.9 * clock.stats.evaluations.double().mean()


def test_data_of_the_stated_spread_do_not_move_in_the_angle() -> None:
    data = GaussianData(torch.zeros(6, dtype=torch.float64), std=0.7)
    x = data.at(VE(), VE().t_min).sample(5, seed=1)
    ll = solved(VE(), data, x, solver=Dopri5(), steps=FixedSteps(1), coordinates=Angle(0.7))
    assert bits_error(ll, data.log_prob(x, VE(), VE().t_min)) < 1e-9


def test_a_grid_of_times_is_a_grid_of_times_in_either_coordinates() -> None:
    process, data = VP(t_min=1e-4), DATA["Gaussian"]()
    x = data.at(process, process.t_min).sample(4, seed=1)
    grid = TimeGrid(torch.linspace(math.log(1e-4), 0.0, 61, dtype=torch.float64).exp())
    for coordinates in (Angle(), Clock()):
        ll = solved(process, data, x, solver=Dopri8(), steps=grid, coordinates=coordinates)
        assert ll.stats.accepted.tolist() == [60] * 4
        assert bits_error(ll, data.log_prob(x, process, process.t_min)) < 1e-7


# --- laws that are not affine diffusions ------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [*PROCESSES, EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_the_grid_of_the_angle_takes_equal_steps_of_it_but_for_the_first(process) -> None:
    angle = Angle(0.7)
    clocks = [
        float(angle.clock(process, torch.tensor(t, dtype=torch.float64))) for t in angle.grid(process, 9, 3.0).times
    ]
    steps = torch.tensor(clocks).diff()
    assert torch.allclose(steps[1:], steps[1].expand(8), rtol=1e-4)
    assert float(steps[0] / steps[1]) == pytest.approx(3.0, rel=1e-4)
    for bad, message in (((0, 1.0), "n must be"), ((3, 0.0), "first must be positive")):
        with pytest.raises(ValueError, match=message):
            angle.grid(process, *bad)


@pytest.mark.parametrize(
    ("process", "gain"), list(zip(PROCESSES, (4.0, 1.7, 2.0), strict=True)), ids=["VE", "VP", "SubVP"]
)
def test_a_fraction_of_scipy_s_evaluations_is_enough_for_a_smaller_error(process, gain: float) -> None:
    """RK45 as in the published code: one vector for the batch in time t, rtol = atol = 1e-5."""
    integrate = pytest.importorskip("scipy.integrate")
    covariance = 0.3 * correlated(16).covariance
    data = GaussianData(0.5 * random(16), cov=covariance)
    x = data.at(process, process.t_min).sample(16, seed=3)
    exact, flow = data.log_prob(x, process, process.t_min), probability_flow(process, data.score(process))

    def rate(t: float, y: Any) -> Any:
        time, state = torch.tensor(t, dtype=torch.float64), torch.from_numpy(y[: x.numel()]).reshape(x.shape)
        with torch.no_grad():
            value, divergence = Exact()(lambda z: flow.drift(time, z), state)
        return torch.cat((value.reshape(-1), divergence[0])).numpy()

    start = torch.cat((x.reshape(-1), x.new_zeros(len(x)))).numpy()
    ends = (process.t_min, process.t_max)
    theirs = integrate.solve_ivp(rate, ends, start, method="RK45", rtol=1e-5, atol=1e-5)
    end = torch.from_numpy(theirs.y[:, -1].copy())
    log_prob = data.log_prob(end[: x.numel()].reshape(x.shape), process, process.t_max) + end[x.numel() :]

    angle = Angle(0.75 * float(covariance.diagonal().mean()) ** 0.5)
    calls = int(theirs.nfev / gain)
    grid = angle.grid(process, calls - 8, first=3.0)  # Adams(6) takes eight more calls than steps
    ours = solved(process, data, x, solver=Adams(6), steps=grid, coordinates=angle)
    assert ours.stats.model_calls == calls
    assert float((ours.log_prob - exact).abs().mean()) < float((log_prob - exact).abs().mean())


def test_a_matrix_process_has_densities_too() -> None:
    process = CriticallyDamped(t_min=1e-3)
    cov = torch.diag(torch.tensor([0.25, 0.5, process.velocity_std**2, process.velocity_std**2], dtype=torch.float64))
    data = GaussianData(torch.tensor([[1.0, -0.5], [0.0, 0.0]], dtype=torch.float64), cov=cov)
    x = data.at(process, process.t_min).sample(6, seed=5)
    assert bits_error(solved(process, data, x), data.log_prob(x, process, process.t_min)) < 1e-4


@pytest.mark.parametrize("sde", [GeometricBrownianMotion(0.3, 0.5), CIR(1.5, 1.0, 0.6)], ids=lambda s: type(s).__name__)
def test_noise_that_depends_on_the_state_has_densities_too(sde) -> None:
    x0 = torch.tensor([[1.0, 0.8]], dtype=torch.float64)
    x = 0.7 + 0.6 * torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    @dataclass(frozen=True)
    class Late:
        def log_prob(self, x: Tensor) -> Tensor:
            return sde.log_prob(x, x0, 1.0)

    ll = log_likelihood(sde, sde.score_from(x0), x, solver=Dopri5(), steps=TIGHT, t_min=0.3, t_max=1.0, prior=Late())
    assert bits_error(ll, sde.log_prob(x, x0, 0.3)) < 1e-4


# --- probes -----------------------------------------------------------------------------------------------------------

VP_ = VP(t_min=1e-3)


@pytest.mark.parametrize(
    "estimator", [*(Hutchinson(8, k) for k in ("rademacher", "gaussian", "spherical")), HutchPlusPlus(8, 2)], ids=str
)
def test_the_interval_covers_the_exact_divergence_as_often_as_it_says(estimator) -> None:
    data, n = correlated(8), 400
    coverage = _coverage(data, estimator, n, 0.9)
    assert abs(coverage - 0.9) < 4.0 * math.sqrt(0.09 / n)


@pytest.mark.parametrize(
    "estimator", [Hutchinson(4), Hutchinson(16, "gaussian"), Hutchinson(8, "spherical"), HutchPlusPlus(16, 4)], ids=str
)
def test_the_95_percent_interval_covers_in_93_to_97_percent_of_1000_trials(estimator) -> None:
    assert 0.93 <= _coverage(correlated(32), estimator, 1000, 0.95) <= 0.97


def _coverage(data: GaussianData, estimator: Any, trials: int, level: float) -> float:
    """Share of intervals that hold the exact result, for one point under many probes: a sample each."""
    x = data.at(VP_, VP_.t_min).sample(1, seed=2)
    steps = FixedSteps(24)
    exact = solved(VP_, data, x, solver=Adams(), steps=steps)
    many = solved(
        VP_, data, x.expand(trials, -1).contiguous(), solver=Adams(), steps=steps, divergence=estimator, seed=7
    )
    low, high = many.interval(level)
    assert (many.standard_error > 0.01).all()
    return float(((low <= exact.log_prob) & (exact.log_prob <= high)).double().mean())


def test_only_the_score_is_probed() -> None:
    data = GaussianData(torch.zeros(10, dtype=torch.float64), std=0.7)
    x = data.at(VP_, VP_.t_min).sample(3, seed=1)
    exact = solved(VP_, data, x, solver=Adams(), steps=FixedSteps(20))
    # the score's Jacobian is a multiple of the identity, the drift's too: either control leaves nothing to chance
    variance = lambda t: 0.49 * VP_.scale(t) ** 2 + VP_.std(t) ** 2  # noqa: E731
    control = lambda t, x: (-1.0 / variance(t)).expand_as(x)  # noqa: E731
    for estimator in (Hutchinson(3, "gaussian", control), Hutchinson(3, "spherical"), Hutchinson(3)):
        ll = solved(VP_, data, x, solver=Adams(), steps=FixedSteps(20), divergence=estimator)
        assert torch.allclose(ll.log_prob, exact.log_prob, rtol=1e-8)
        assert (ll.standard_error < 1e-7).all()
    loose = solved(VP_, data, x, solver=Adams(), steps=FixedSteps(20), divergence=Hutchinson(3, "gaussian"))
    assert (loose.standard_error > 0.1).all()


def test_a_control_near_the_truth_takes_most_of_the_spread_away() -> None:
    data = correlated(8, spread=0.2)
    x = data.at(VP_, VP_.t_min).sample(200, seed=1)
    control = lambda t, x: torch.full_like(x, -1.0)  # noqa: E731
    runs = [
        solved(VP_, data, x, solver=Adams(), steps=FixedSteps(20), divergence=Hutchinson(8, "gaussian", c))
        for c in (control, None)
    ]
    exact = solved(VP_, data, x, solver=Adams(), steps=FixedSteps(20))
    assert runs[0].standard_error.mean() < 0.6 * runs[1].standard_error.mean()
    for run in runs:
        gap = run.log_prob - exact.log_prob
        assert abs(gap.mean()) < 4.0 * gap.std() / math.sqrt(200)


@pytest.mark.parametrize("estimator", [Hutchinson(4), HutchPlusPlus(4, 2)], ids=str)
def test_probes_are_added_until_the_standard_error_is_small_enough(estimator) -> None:
    data = correlated(8)
    x = data.at(VP_, VP_.t_min).sample(6, seed=1)
    rough = solved(VP_, data, x, solver=Adams(), steps=FixedSteps(20), divergence=estimator, seed=3)
    target = float(rough.standard_error.median()) * 0.6
    fine = solved(
        VP_, data, x, solver=Adams(), steps=FixedSteps(20), divergence=estimator, seed=3, standard_error=target
    )
    assert (fine.standard_error <= target).all()
    assert (fine.probes >= rough.probes).all()
    assert int(fine.probes.max()) > 4
    enough = rough.standard_error <= target
    assert (fine.probes[enough] == 4).all()
    assert torch.allclose(fine.per_probe[:4], rough.per_probe, rtol=1e-12)
    exact = solved(VP_, data, x, solver=Adams(), steps=FixedSteps(20))
    low, high = fine.interval(0.9999)
    assert ((low < exact.log_prob) & (exact.log_prob < high)).all()
    assert fine.stats.model_calls > rough.stats.model_calls


def test_added_probes_are_those_that_more_probes_at_once_would_have_had() -> None:
    data = correlated(8)
    x = data.at(VP_, VP_.t_min).sample(5, seed=1)
    options = {"solver": Adams(), "steps": FixedSteps(20), "seed": 3}
    added = solved(VP_, data, x, divergence=Hutchinson(4), standard_error=1e-9, max_probes=16, **options)
    at_once = solved(VP_, data, x, divergence=Hutchinson(16), **options)
    assert added.probes.tolist() == [16] * 5
    assert torch.allclose(added.per_probe, at_once.per_probe, rtol=1e-12)
    assert torch.allclose(added.standard_error, at_once.standard_error, rtol=1e-9)


def test_one_network_call_gives_value_and_divergence() -> None:
    data = DATA["mixture"]()
    x = data.at(VP_, VP_.t_min).sample(4, seed=1)
    calls = 0
    exact_score = data.score(VP_)

    def score(t: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return exact_score(t, x)

    ll = log_likelihood(VP_, score, x, solver=Dopri5(), steps=FixedSteps(10), divergence=Hutchinson(4))
    assert calls == ll.stats.model_calls == 61


# --- samples on their own ---------------------------------------------------------------------------------------------


@NAMED
@pytest.mark.parametrize("estimator", [Exact(), Hutchinson(3, "spherical"), HutchPlusPlus(2)], ids=str)
def test_a_density_does_not_depend_on_its_batch(process, estimator) -> None:
    data = DATA["mixture of images"]()
    x = data.at(process, process.t_min).sample(64, seed=6)

    def part(low: int, high: int) -> LogLikelihood:
        steps = Adaptive(rtol=1e-3, atol=1e-3)
        return solved(process, data, x[low:high], divergence=estimator, seed=5, first=low, steps=steps)

    whole = part(0, 64)
    for low, high in ((0, 8), (40, 48), (17, 18)):
        found = part(low, high)
        assert torch.allclose(found.log_prob, whole.log_prob[low:high], rtol=1e-11, atol=1e-9)
        assert torch.allclose(found.latent, whole.latent[low:high], rtol=1e-10, atol=1e-10)
        assert torch.equal(found.stats.accepted, whole.stats.accepted[low:high])


def test_a_score_that_fails_for_some_samples_spoils_those_only() -> None:
    data = DATA["mixture"]()
    x = data.at(VP_, VP_.t_min).sample(5, seed=6)
    x[1, 0] = 1e3  # where the score below is not a number
    exact_score = data.score(VP_)

    def score(t: Tensor, x: Tensor) -> Tensor:
        return torch.where(expand(x.abs().flatten(1).amax(1) > 100, x), math.nan, exact_score(t, x))

    options = {"solver": Dopri5(), "steps": TIGHT, "divergence": Hutchinson(2)}
    ll = log_likelihood(VP_, score, x, on_failure="return", **options)
    assert [s == Status.OK for s in ll.status.tolist()] == [True, False, True, True, True]
    assert ll.log_prob.isnan().tolist() == [False, True, False, False, False]
    clean = log_likelihood(VP_, score, x[2:3], first=2, **options)
    assert torch.allclose(ll.log_prob[2:3], clean.log_prob, rtol=1e-11)
    low, _ = ll.interval()
    assert low.isnan().tolist() == [False, True, False, False, False]
    with pytest.raises(SolveFailed):
        log_likelihood(VP_, score, x, **options)


def test_float32_stays_float32_and_keeps_its_digits() -> None:
    data = DATA["mixture of images"]()
    for process in PROCESSES:
        x = data.at(process, process.t_min).sample(6, seed=6)
        ll = solved(process, data, x.float(), steps=Adaptive(rtol=1e-4, atol=1e-4))
        assert ll.log_prob.dtype == ll.latent.dtype == torch.float32
        assert bits_error(ll, data.log_prob(x, process, process.t_min)) < 1e-3


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (lambda t, x: -x.detach(), ValueError, "the score has no gradient with respect to x"),
        (lambda t, x: torch.no_grad()(lambda: -x)(), ValueError, "is it computed under no_grad"),
        (lambda t, x: -x[:, :1], ValueError, r"score\(t, x\) returned shape \(3, 1\) for x of shape \(3, 2\)"),
        (lambda t, x: -x.double(), TypeError, "returned torch.float64 for x of torch.float32"),
    ],
)
def test_scores_that_cannot_do_are_errors_that_say_why(score, error, message: str) -> None:
    with pytest.raises(error, match=message):
        log_likelihood(VP(), score, torch.ones(3, 2), solver=Dopri5(), steps=TIGHT)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": torch.ones(3)}, ValueError, r"x: expected .*\(B, \*shape\)"),
        ({"x": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "use x.float"),
        ({"t_min": 0.5, "t_max": 0.4}, ValueError, "expected t_min < t_max"),
        ({"prior": 3.0}, TypeError, "expected a law with log_prob"),
        ({"process": GeometricBrownianMotion()}, TypeError, "t_min"),
        ({"process": CriticallyDamped(), "coordinates": Angle()}, TypeError, "is not an affine process"),
        ({"standard_error": 0.0, "divergence": Hutchinson(4)}, ValueError, "standard_error: expected a positive"),
        ({"standard_error": 0.1, "divergence": Hutchinson(1)}, ValueError, "needs two probes to begin with"),
        ({"standard_error": 0.1, "divergence": Hutchinson(8), "max_probes": 4}, ValueError, "max_probes: expected"),
    ],
)
def test_bad_arguments_are_named(options, error, message: str) -> None:
    options = {"process": VP(), "x": torch.ones(3, 2), "solver": Dopri5(), "steps": TIGHT} | options
    with pytest.raises(error, match=message):
        log_likelihood(options.pop("process"), lambda t, x: -x, options.pop("x"), **options)


def test_an_interval_needs_two_probes() -> None:
    ll = log_likelihood(VP(), lambda t, x: -x, torch.ones(3, 2), solver=Dopri5(), steps=TIGHT, divergence=Hutchinson(1))
    assert ll.standard_error.isnan().all()
    with pytest.raises(ValueError, match="needs two probes"):
        ll.interval()
    with pytest.raises(ValueError, match="Angle: sigma_data must be positive"):
        Angle(0.0)
