"""Grids and samplers chosen on pilots, judged on other starts, other laws, dimensions and processes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sdekit as sk
from sdekit.scores.budget import calls_per_step, steps_within
from sdekit.scores.tune import energy_distance


def mixture(shape: tuple[int, ...], components: int, std: float, seed: int) -> sk.GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    return sk.GaussianMixture(torch.randn(components, *shape, dtype=torch.float64, generator=generator), std)


class Judge:
    """The converged flow from 64 starts that no pilot has."""

    def __init__(self, process: Any, law: sk.GaussianMixture, shape: tuple[int, ...]) -> None:
        self.process, self.score = process, law.score(process)
        self.flow = sk.probability_flow(process, self.score)
        self.x = process.prior_sample((64, *shape), seed=1234, dtype=torch.float64)
        self.exact = self.ends(sk.AngularAdams(3), sk.angle_grid(process, 400)).x

    def ends(self, solver: Any, grid: Any) -> sk.Solution:
        return sk.solve(self.flow, self.x, grid.times[0], grid.times[-1], solver=solver, steps=grid)

    def error(self, solver: Any, grid: Any) -> float:
        """Median RMSE: a start near the border of two basins would rule a mean."""
        return float((self.ends(solver, grid).x - self.exact).square().flatten(1).mean(1).sqrt().median())


CASES = [
    pytest.param(sk.VE(), (2,), 3, 0.2, sk.DPMSolverPP(3), 20, id="plane, VE, DPM++ 3M"),
    pytest.param(sk.VP(), (2,), 4, 0.5, sk.UniPC(2), 8, id="plane, VP, UniPC"),
    pytest.param(sk.SubVP(), (8,), 5, 0.3, sk.DPMSolverPP(2), 12, id="8 dimensions, sub-VP, DPM++ 2M"),
    pytest.param(sk.EDM(), (1, 4, 4), 3, 0.4, sk.AngularAdams(2), 10, id="images, EDM, angular Adams"),
    pytest.param(sk.RectifiedFlow(), (3,), 2, 0.3, sk.DPMSolver(2), 12, id="space, rectified flow, DPM-Solver"),
]


@pytest.mark.parametrize(("process", "shape", "components", "std", "solver", "n"), CASES)
def test_the_optimal_grid_beats_the_usual_ones_on_other_starts(process, shape, components, std, solver, n) -> None:
    judge = Judge(process, mixture(shape, components, std, seed=components), shape)
    grid = sk.optimal_grid(process, judge.score, n, solver, shape=shape, seed=5)
    assert len(grid.times) == n + 1
    assert (grid.times[0], grid.times[-1]) == (process.t_max, process.t_min)
    usual = {
        make.__name__: judge.error(solver, make(process, n))
        for make in (sk.log_snr_grid, sk.karras_grid, sk.uniform_grid)
    }
    assert judge.error(solver, grid) < min(usual.values()) / 1.5, usual


@pytest.mark.parametrize(
    ("process", "shape", "components", "std", "budget"),
    [
        pytest.param(sk.VE(), (2,), 3, 0.2, 12, id="plane, VE"),
        pytest.param(sk.SubVP(), (2, 2, 2), 4, 0.3, 9, id="images, sub-VP"),
    ],
)
def test_what_tune_finds_beats_fixed_choices_within_its_budget(process, shape, components, std, budget) -> None:
    judge = Judge(process, mixture(shape, components, std, seed=components), shape)
    tuned = sk.tune(process, judge.score, budget, shape=shape, seed=5)
    solution = judge.ends(tuned.solver, tuned.steps)
    assert solution.stats.model_calls <= budget
    assert not tuned.stochastic
    found = judge.error(tuned.solver, tuned.steps)
    for solver in (sk.DPMSolverPP(2), sk.DPMSolverPP(3), sk.UniPC(3), sk.DEIS(3)):
        assert found < judge.error(solver, sk.log_snr_grid(process, budget)) / 2.0
    # the pilots' error speaks for other starts too, and trials are sorted by it
    assert tuned.error / 4 < found < 4 * tuned.error
    errors = [trial.error for trial in tuned.trials]
    assert errors == sorted(errors)


def test_tuning_depends_on_its_seed_only() -> None:
    process, law = sk.VP(), mixture((2,), 3, 0.3, seed=1)
    runs = [sk.tune(process, law.score(process), 6, shape=(2,), seed=3, rounds=0) for _ in range(2)]
    assert runs[0].solver == runs[1].solver
    assert runs[0].steps.times == runs[1].steps.times
    starts = process.prior_sample((16, 2), seed=3, dtype=torch.float64)
    given = sk.tune(process, law.score(process), 6, pilots=starts, rounds=0)
    assert given.steps.times == runs[0].steps.times


def test_a_stochastic_choice_is_nearer_to_the_law_than_the_paper_s_sampler() -> None:
    process, law, budget = sk.VE(), mixture((2,), 3, 0.3, seed=2), 24
    tuned = sk.tune(process, law.score(process), budget, shape=(2,), stochastic=True, seed=1)
    assert tuned.stochastic
    assert any(isinstance(trial.solver, sk.PredictorCorrector) for trial in tuned.trials)
    n = 1500
    exact = law.at(process, process.t_min).sample(n, seed=8)
    sde, x = sk.reverse(process, law.score(process)), process.prior_sample((n, 2), seed=9, dtype=torch.float64)

    def distance(solver: Any, steps: Any) -> float:
        sol = sk.solve(sde, x, process.t_max, process.t_min, solver=solver, steps=steps, seed=4)
        assert sol.stats.model_calls <= budget
        return energy_distance(sol.x, exact)

    paper = distance(sk.PredictorCorrector(sk.ReverseDiffusion(), sk.Langevin(0.16)), sk.FixedSteps(budget // 2))
    assert distance(tuned.solver, tuned.steps) < 0.5 * paper


def test_energy_distance_is_zero_within_a_law_and_right_between_two_normals() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2000, 1, dtype=torch.float64, generator=generator) for _ in range(2))
    assert energy_distance(a, b) < 0.08
    # of N(0, 1) and N(μ, 1): 2 E|X − Y| with X − Y ~ N(μ, 2), less 4/√π
    mu = 1.5
    mean = math.sqrt(2.0) * math.sqrt(2 / math.pi) * math.exp(-(mu**2) / 4) + mu * math.erf(mu / 2.0)
    assert energy_distance(a, b + mu) ** 2 == pytest.approx(2 * mean - 4 / math.sqrt(math.pi), rel=0.1)


@pytest.mark.parametrize(
    ("solver", "calls"),
    [
        (sk.DPMSolverPP(3), 1),
        (sk.DPMSolver(3), 3),
        (sk.SEEDS(2), 2),
        (sk.EDMHeun(), 2),
        (sk.PredictorCorrector(sk.ReverseDiffusion(), sk.Langevin(steps=2)), 3),
        (sk.PredictorCorrector(None, sk.AnnealedLangevin(steps=2)), 2),
        (sk.AngularAdams(4), 1),
    ],
    ids=str,
)
def test_steps_within_a_budget_make_as_many_calls_as_are_said(solver, calls: int) -> None:
    process, law = sk.VE(), mixture((2,), 2, 0.3, seed=1)
    assert calls_per_step(solver) == calls
    stochastic = isinstance(solver, sk.PredictorCorrector)
    sde = (sk.reverse if stochastic else sk.probability_flow)(process, law.score(process))
    n = steps_within(solver, 13, stochastic)
    x = process.prior_sample((3, 2), seed=1, dtype=torch.float64)
    sol = sk.solve(sde, x, process.t_max, process.t_min, solver=solver, steps=sk.log_snr_grid(process, n))
    assert 13 - calls < sol.stats.model_calls <= 13


def test_bad_arguments_are_named() -> None:
    process, score = sk.VP(), mixture((2,), 2, 0.3, seed=1).score(sk.VP())
    with pytest.raises(TypeError, match="shape="):
        sk.optimal_grid(process, score, 5, sk.DDIM())
    with pytest.raises(ValueError, match="pilots"):
        sk.optimal_grid(process, score, 5, sk.DDIM(), shape=(2,), pilots=0)
    for budget in (0, 2.5, True):
        with pytest.raises(ValueError, match="budget"):
            sk.tune(process, score, budget, shape=(2,))  # type: ignore[arg-type]


def test_one_step_and_one_call_are_enough_to_be_tuned() -> None:
    process, law = sk.VP(), mixture((2,), 2, 0.3, seed=1)
    tuned = sk.tune(process, law.score(process), 1, shape=(2,))
    assert len(tuned.steps.times) == 2
    assert math.isfinite(tuned.error)
