"""Every order that a listed solver claims, measured: generated from `sdekit.solvers.ALL` and the solvers' `orders`.

For each class of noise, each problem with a known solution and both directions of time, the strong order is fitted at
the end and at times between the steps. The claim may exceed the fit by 0.15 at most. Weak orders likewise, by moments.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from sdekit.convergence import (
    Errors,
    Experiment,
    OrderFit,
    Problem,
    fit_order,
    problems_for,
    reflected,
    step_numbers,
    weak_errors,
)
from sdekit.protocols import Noise, Solver
from sdekit.sdes.potentials import UnderdampedLangevin
from sdekit.solvers import ALL, STRUCTURED

MARGIN = 0.15


def _cases(weak: bool) -> list[Any]:
    """(problem, solver), the solvers of one problem together to share its paths; two problems a class, others slow."""
    rows: dict[str, list[Any]] = {}
    for kind in (*ALL, *STRUCTURED):
        solver = kind()
        for noise in solver.orders:
            if weak and noise is Noise.NONE:
                continue
            order = solver.orders[noise]
            for i, problem in enumerate(problems_for(solver, noise, weak)):
                # a weak order no higher than the strong one follows from it
                implied = weak and order.weak <= order.strong
                quick = noise is Noise.NONE or (i < 2 and not implied and not (weak and problem.refine > 1))
                marks = () if quick else pytest.mark.slow
                case = pytest.param(problem, solver, marks=marks, id=f"{problem.name}-{kind.__name__}")
                rows.setdefault(problem.name, []).append(case)
    return [case for row in rows.values() for case in row]


@lru_cache(maxsize=4)
def experiment(problem: Problem, steps: tuple[int, ...]) -> Experiment:
    """The problem's paths and solutions; saved at sevenths of the span: once at each seventh of a step."""
    times = [problem.t0 + (problem.t1 - problem.t0) * k / 7 for k in range(1, 7)]
    return Experiment.of(problem, steps, 1 if problem.noise is Noise.NONE else 500, seed=11, save_times=times)


def describe(errors: Errors, fit: OrderFit) -> str:
    table = ", ".join(f"{h:.3g}: {e:.2e}" for h, e in zip(errors.h.tolist(), errors.mean.tolist(), strict=True))
    return f"order {fit.order:.2f} [{fit.low:.2f}, {fit.high:.2f}], errors {table}"


@pytest.mark.parametrize(("problem", "solver"), _cases(weak=False))
def test_strong_order_holds_both_ways_and_between_steps(problem: Problem, solver: Solver):
    claim = solver.orders[problem.noise].strong
    trial = experiment(problem, step_numbers(problem, claim))
    for run in (trial,) if problem.one_way else (trial, trial.reflected()):
        at_end = run.strong_errors(solver)
        for place, errors in (("at the end", at_end), ("between steps", at_end.between())):
            fit = fit_order(errors)
            where = f"{run.problem.name}, {place}: {describe(errors, fit)}"
            assert fit.order >= claim - MARGIN, where
            assert errors.mean[-1] < 0.3 * errors.scale, where


@pytest.mark.parametrize(("problem", "solver"), _cases(weak=True))
def test_weak_order_holds_both_ways(problem: Problem, solver: Solver):
    """No claim beyond what the sampling error of the fit allows, and that error is small beside the moment."""
    claim = solver.orders[problem.noise].weak
    steps = (32, 64, 128) if claim <= 1.0 else (8, 16, 32)
    for way in (problem,) if problem.one_way else (problem, reflected(problem)):
        errors = weak_errors(way, solver, steps, 4000, seed=5)
        # some hundred fits are judged together: at 95 % a few would fail by chance
        fit = fit_order(errors, level=0.998, resamples=2000)
        assert fit.high >= claim - MARGIN, f"{way.name}: {describe(errors, fit)}"
        assert errors.standard_error.max() < 0.05 * errors.scale


def test_every_solver_is_measured_on_two_problems_of_each_class_it_claims():
    for kind in (*ALL, *STRUCTURED):
        solver = kind()
        for noise in solver.orders:
            found = problems_for(solver, noise)
            assert len(found) >= 2
            # a potential does not depend on time
            assert any(not p.autonomous for p in found) or isinstance(found[0].sde, UnderdampedLangevin)
