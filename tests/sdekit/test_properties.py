"""What must hold for every SDE, every solver and every grid: laws, reversals and symmetries, on random problems."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from sdekit.brownian import BrownianTree
from sdekit.protocols import Dense, Direction, Levy, Noise, error_order
from sdekit.save import SaveAt
from sdekit.scores.likelihood import log_likelihood
from sdekit.scores.reverse import probability_flow, reverse
from sdekit.sdes.diffusion import EDM, VE, VP
from sdekit.sdes.functions import ItoSDE, StratonovichSDE
from sdekit.sdes.linear import LinearSDE
from sdekit.solve import solve
from sdekit.solvers import SRA1, Dopri5, EulerMaruyama, Heun, TamedEuler
from sdekit.steps import Adaptive, FixedSteps
from sdekit.testing import (
    linear_sdes,
    matrix_ou_processes,
    mixtures,
    moment_gap,
    ou_processes,
    solvers_for,
    states,
    time_grids,
)

few = settings(max_examples=8)
OU = StratonovichSDE(lambda t, x: -x, lambda t, x: 0.6 * torch.ones_like(x), Noise.ADDITIVE)
ITO = ItoSDE(lambda t, x: torch.sin(x) - 0.5 * x, lambda t, x: 0.4 + 0.2 * torch.cos(x), Noise.DIAGONAL)
STRATONOVICH = StratonovichSDE(ITO.drift, ITO.diffusion, Noise.DIAGONAL)
DIAGONAL = st.sampled_from([ITO, STRATONOVICH])


def _with_solver(sdes):
    return sdes.flatmap(lambda sde: st.tuples(st.just(sde), solvers_for(sde)))


# --- laws -------------------------------------------------------------------------------------------


@few
@given(_with_solver(st.one_of(matrix_ou_processes(), linear_sdes())), st.data())
def test_every_solver_gives_linear_sdes_their_mean_and_covariance(pair, data):
    (sde, solver), count = pair, 4000
    x0 = data.draw(states(1, (sde.size,)))
    x = solve(sde, x0.expand(count, sde.size), 0.0, 1.0, solver=solver, steps=FixedSteps(128), seed=1).x
    law = sde.transition(0.0, 1.0)
    bias = 0.05 if solver.orders[Noise.ADDITIVE].weak < 2 else 0.01  # of first order: ‖A‖ h/2 of mean and covariance
    scale = 1.0 + float((law.mean(x0) - x0).abs().max()) / float(law.covariance.diagonal().min().sqrt().clamp(min=0.02))
    assert moment_gap(x, law.mean(x0), law.covariance, slack=bias * scale) < 5.5


@few
@given(_with_solver(ou_processes()), states(1), time_grids(most=64))
def test_every_solver_gives_the_right_law_on_every_grid_and_shape(pair, x0, grid):
    (sde, solver), count = pair, 3000
    longest = float(torch.tensor(grid.times).diff().abs().max())
    assume(sde.theta * longest < 0.5)
    x = solve(sde, x0.expand(count, *x0.shape[1:]), 0.0, 1.0, solver=solver, steps=grid, seed=2).x
    law = sde.transition(0.0, 1.0)
    reach = float((law.mean(x0) - x0).abs().max() / law.std)
    slack = (
        sde.theta * longest * (1.0 + reach) if solver.orders[Noise.ADDITIVE].weak < 2 else 0.1 * (1.0 + reach) * longest
    )
    assert moment_gap(x, law.mean(x0), law.variance, slack=slack) < 5.5


@few
@given(mixtures(), st.sampled_from([VP(), VE(sigma_max=10.0), EDM(sigma_max=10.0)]), st.sampled_from([0.5, 1.0]))
def test_the_reversed_law_keeps_every_marginal(data, process, churn):
    count, t = 2000, process.t_max * 0.3
    start = data.at(process, process.t_max).sample(count, seed=3)
    back = reverse(process, data.score(process), churn=churn)
    middle = data.at(process, t)
    x = solve(back, start, process.t_max, t, solver=EulerMaruyama(), steps=FixedSteps(200), seed=4).x
    assert moment_gap(x, middle.mean, middle.covariance, slack=0.06) < 5.5
    exact = middle.sample(20_000, seed=5)
    for direction in (torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])):
        projected = (x @ direction.to(x.dtype)).numpy(), (exact @ direction.to(exact.dtype)).numpy()
        assert stats.ks_2samp(*projected).pvalue > 1e-4


@few
@given(mixtures(), states(16, (2,)), st.sampled_from([VP(), VE(sigma_max=10.0)]))
def test_the_probability_flow_comes_back_to_where_it_started(data, x, process):
    flow = probability_flow(process, data.score(process))
    control = Adaptive(rtol=1e-8, atol=1e-8)
    there = solve(flow, x, process.t_min, process.t_max, solver=Dopri5(), steps=control).x
    back = solve(flow, there, process.t_max, process.t_min, solver=Dopri5(), steps=control).x
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-4)


@few
@given(mixtures(), states(16, (2,)), st.sampled_from([VP(), VE(sigma_max=10.0)]))
def test_the_flow_carries_the_density_of_the_data(data, x, process):
    found = log_likelihood(
        process,
        data.score(process),
        x,
        solver=Dopri5(),
        steps=Adaptive(rtol=1e-7, atol=1e-7),
        prior=data.at(process, process.t_max),
    )
    exact = data.at(process, process.t_min).log_prob(x)
    torch.testing.assert_close(found.log_prob, exact, rtol=1e-4, atol=1e-3)


# --- symmetries -------------------------------------------------------------------------------------


@given(_with_solver(DIAGONAL), states(6, (12,)), time_grids(most=8))
def test_a_state_may_be_reshaped(pair, x, grid):
    sde, solver = pair
    flat = solve(sde, x, 0.0, 1.0, solver=solver, steps=grid, seed=5).x
    image = solve(sde, x.reshape(6, 3, 2, 2), 0.0, 1.0, solver=solver, steps=grid, seed=5).x
    torch.testing.assert_close(image.reshape(6, 12), flat, rtol=1e-12, atol=1e-13)


@given(_with_solver(DIAGONAL), states(12), time_grids(most=8), st.integers(0, 11))
def test_a_sample_does_not_know_its_batch(pair, x, grid, i):
    sde, solver = pair
    times = SaveAt(times=[0.3, 0.9])
    whole = solve(sde, x, 0.0, 1.0, solver=solver, steps=grid, seed=5, save=times).x
    alone = solve(sde, x[i : i + 1], 0.0, 1.0, solver=solver, steps=grid, seed=5, first=i, save=times).x
    torch.testing.assert_close(alone, whole[:, i : i + 1], rtol=1e-11, atol=1e-12)


@few
@given(
    DIAGONAL.flatmap(lambda s: st.tuples(st.just(s), solvers_for(s, adaptive=True))), states(6, (2,)), st.integers(0, 5)
)
def test_a_sample_does_not_know_its_batch_when_steps_adapt(pair, x, i):
    sde, solver = pair
    control = Adaptive(rtol=3e-2, atol=3e-2)
    whole = solve(sde, x, 0.0, 0.5, solver=solver, steps=control, seed=5)
    alone = solve(sde, x[i : i + 1], 0.0, 0.5, solver=solver, steps=control, seed=5, first=i)
    torch.testing.assert_close(alone.x, whole.x[i : i + 1], rtol=1e-9, atol=1e-10)
    assert int(alone.stats.evaluations) == int(whole.stats.evaluations[i])


@given(_with_solver(DIAGONAL), states(4), st.integers(-40, 40))
def test_an_autonomous_sde_does_not_know_the_hour(pair, x, shift):
    sde, solver = pair
    here = solve(sde, x, 0.0, 1.0, solver=solver, steps=FixedSteps(8), seed=6).x
    later = solve(sde, x, 0.25 * shift, 0.25 * shift + 1.0, solver=solver, steps=FixedSteps(8), seed=6).x
    torch.testing.assert_close(later, here, rtol=1e-9, atol=1e-10)


@given(_with_solver(DIAGONAL), states(4), st.sampled_from([0.125, 0.5, 2.0, 16.0]))
def test_time_may_be_measured_in_other_units(pair, x, unit):
    # s = unit · t: drift f/unit, diffusion g/√unit
    sde, solver = pair
    other = type(sde)(
        lambda t, y: sde.drift(t / unit, y) / unit,
        lambda t, y: sde.diffusion(t / unit, y) / math.sqrt(unit),
        sde.noise,
    )
    here = solve(sde, x, 0.0, 1.0, solver=solver, steps=FixedSteps(8), seed=6).x
    there = solve(other, x, 0.0, unit, solver=solver, steps=FixedSteps(8), seed=6).x
    torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-9)


@given(
    _with_solver(
        st.sampled_from([ItoSDE, StratonovichSDE]).map(
            lambda kind: kind(lambda t, x: -0.7 * x, lambda t, x: 0.5 * x, Noise.DIAGONAL)
        )
    ),
    states(4),
    st.sampled_from([-8.0, 0.25, 1024.0]),
)
def test_a_homogeneous_sde_scales_with_its_state(pair, x, factor):
    sde, solver = pair
    assume(not isinstance(solver, TamedEuler))  # which tames large states, and so knows their scale
    one = solve(sde, x, 0.0, 1.0, solver=solver, steps=FixedSteps(8), seed=6).x
    scaled = solve(sde, factor * x, 0.0, 1.0, solver=solver, steps=FixedSteps(8), seed=6).x
    torch.testing.assert_close(scaled, factor * one, rtol=1e-8, atol=1e-9 * abs(factor))


@given(_with_solver(DIAGONAL), states(4, (3,)), time_grids(most=6))
def test_a_diagonal_matrix_is_as_good_as_its_diagonal(pair, x, grid):
    sde, solver = pair
    dense = type(sde)(sde.drift, lambda t, y: Dense(torch.diag_embed(sde.diffusion(t, y))), Noise.DIAGONAL)
    one = solve(sde, x, 0.0, 1.0, solver=solver, steps=grid, seed=6).x
    other = solve(dense, x, 0.0, 1.0, solver=solver, steps=grid, seed=6).x
    torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


@given(_with_solver(DIAGONAL), states(4), time_grids(most=6), time_grids(1.0, 2.0, most=6))
def test_two_solves_in_a_row_are_one_solve(pair, x, before, after):
    sde, solver = pair
    assume(solver.init(sde, torch.tensor(0.0, dtype=torch.float64), x) is None)  # no memory of earlier steps
    tree = BrownianTree(0.0, 2.0, tuple(x.shape), seed=7, levy=solver.levy, dtype=torch.float64)
    whole = type(before)([*before.times, *after.times[1:]])
    first = solve(sde, x, 0.0, 1.0, solver=solver, steps=before, path=tree).x
    second = solve(sde, first, 1.0, 2.0, solver=solver, steps=after, path=tree).x
    torch.testing.assert_close(
        second, solve(sde, x, 0.0, 2.0, solver=solver, steps=whole, path=tree).x, rtol=1e-9, atol=1e-10
    )


@few
@given(_with_solver(ou_processes()), states(3, (2,)))
def test_a_law_run_backward_is_the_law_run_forward_in_a_mirror(pair, x):
    # dx = −f(x) dt + σ dW̄ with t falling from 0 to −1 is dx = f(x) dt + σ dW with t rising from 0 to 1
    sde, solver = pair
    mirrored = ItoSDE(
        lambda t, y: -sde.drift(-t, y), lambda t, y: sde.diffusion(-t, y), Noise.ADDITIVE, direction=Direction.BACKWARD
    )
    there = solve(sde, x, 0.0, 1.0, solver=solver, steps=FixedSteps(16), seed=8).x
    back = solve(mirrored, x, 0.0, -1.0, solver=solver, steps=FixedSteps(16), seed=8).x
    torch.testing.assert_close(back, there, rtol=1e-9, atol=1e-10)


@few
@given(ou_processes(), states(2))
def test_adaptive_solves_have_the_right_law_too(sde, x0):
    x0 = x0[:1].expand(2000, *x0.shape[1:])
    law = sde.transition(0.0, 1.0)
    size = float(law.std)
    x = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=Adaptive(rtol=1e-2, atol=3e-2 * size), seed=9).x
    assert moment_gap(x, law.mean(x0[:1]), law.variance, slack=0.05) < 5.5


@given(
    st.sampled_from([OU, ITO, STRATONOVICH, VP(), LinearSDE(-torch.eye(3))]).flatmap(
        lambda s: st.tuples(st.just(s), solvers_for(s))
    ),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_every_solver_keeps_the_dtype_of_the_state(pair, dtype):
    sde, solver = pair
    for x in (torch.ones(4, 3, dtype=dtype), torch.ones(4, 3, 2, dtype=dtype)):
        sol = solve(sde, x, 0.1, 0.9, solver=solver, steps=FixedSteps(3), save=SaveAt(times=[0.33, 0.9]))
        assert sol.x.dtype == dtype
        assert sol.x.shape == (2, *x.shape)


@pytest.mark.slow
@settings(max_examples=12)
@given(_with_solver(linear_sdes()), st.data())
def test_every_solver_gives_linear_sdes_their_law_to_more_digits(pair, data):
    (sde, solver), count = pair, 20_000
    x0 = data.draw(states(1, (sde.size,)))
    n = 512 if solver.orders[Noise.ADDITIVE].weak < 2 else 128
    x = solve(sde, x0.expand(count, sde.size), 0.0, 1.0, solver=solver, steps=FixedSteps(n), seed=1).x
    law = sde.transition(0.0, 1.0)
    scale = 1.0 + float((law.mean(x0) - x0).abs().max()) / float(law.covariance.diagonal().min().sqrt().clamp(min=0.02))
    assert moment_gap(x, law.mean(x0), law.covariance, slack=0.01 * scale) < 5.5


def test_the_additive_recommendation_is_better_than_euler():
    sde = ItoSDE(lambda t, x: torch.cos(x), lambda t, x: 0.7 * torch.ones_like(x), Noise.ADDITIVE)
    tree = BrownianTree(0.0, 1.0, (500, 1), seed=1, levy=Levy.H, dtype=torch.float64)
    x0 = torch.zeros(500, 1, dtype=torch.float64)
    fine = solve(sde, x0, 0.0, 1.0, solver=SRA1(), steps=FixedSteps(256), path=tree).x
    errors = [
        float((solve(sde, x0, 0.0, 1.0, solver=s, steps=FixedSteps(16), path=tree).x - fine).abs().mean())
        for s in (EulerMaruyama(), SRA1())
    ]
    assert errors[1] < 0.1 * errors[0]
    assert error_order(SRA1(), Noise.ADDITIVE) is None or errors[1] > 0
