"""Noise whose columns do not commute: strong order 1 with the path's Lévy area, ½ without."""

import pytest
import torch

from sdekit.convergence import Experiment, fit_order
from sdekit.convergence.problems import crossing_waves, exponential_area, levy_area
from sdekit.errors import Incompatible
from sdekit.protocols import Calculus, Dense, Increment, Noise, Span
from sdekit.sdes import ItoSDE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers import EulerHeun, ItoGeneralMilstein, ItoMilstein, StratonovichGeneralMilstein
from sdekit.steps import FixedSteps

BETWEEN = (0.437, 0.671, 0.893)


def _orders(problem, solver, batch=300):
    experiment = Experiment.of(problem, (8, 16, 32), batch=batch, save_times=[f * problem.length for f in BETWEEN])
    for e in (experiment, experiment.reflected()):
        errors = e.strong_errors(solver)
        yield fit_order(errors)
        yield fit_order(errors.between())


@pytest.mark.parametrize("twin", [0, 1])
@pytest.mark.parametrize("free", [False, True])
def test_the_strong_order_is_one_with_the_area_in_both_directions_and_off_the_grid(twin, free):
    kind = (ItoGeneralMilstein, StratonovichGeneralMilstein)[twin]
    for problem in (crossing_waves()[twin], exponential_area()[twin]):
        for fit in _orders(problem, kind(derivative_free=free)):
            assert fit.order > 0.85, problem.name


def test_the_strong_order_is_a_half_without_the_area():
    for fit in _orders(crossing_waves()[1], EulerHeun()):
        assert 0.35 < fit.order < 0.7


@pytest.mark.parametrize("twin", [0, 1])
def test_the_lévy_area_problem_is_solved_exactly(twin):
    kind = (ItoGeneralMilstein, StratonovichGeneralMilstein)[twin]
    experiment = Experiment.of(levy_area()[twin], (1, 4), batch=50)
    for e in (experiment, experiment.reflected()):
        assert float(e.strong_errors(kind()).paths.max()) < 1e-13


def test_fresh_areas_have_the_law_of_an_area():
    n = 40_000
    problem = levy_area()[0]
    x = solve(problem.sde, problem.x0(n), 0.0, 1.0, solver=ItoGeneralMilstein(), steps=FixedSteps(8), seed=4).x
    second = x[:, 1].square()
    # eight areas, each replaced by its mean given W and H, lack 1/12 of (1/8)² in variance
    expected = 0.5 - 8 * (1 / 8) ** 2 / 12
    assert abs(second.mean() - expected) < 4 * second.std() / n**0.5
    assert abs((x[:, 0].square() * x[:, 1]).mean()) < 4 * (x[:, 0].square() * x[:, 1]).std() / n**0.5


@pytest.mark.parametrize("kind", [ItoGeneralMilstein, StratonovichGeneralMilstein])
@pytest.mark.parametrize("free", [False, True])
def test_element_wise_general_noise_is_its_matrix(kind, free):
    def coupled(t, x):
        return torch.stack((1 + 0.3 * torch.sin(x[:, 1]), 0.5 * x[:, 0]), dim=1)

    sde = ItoSDE if kind.calculus is Calculus.ITO else StratonovichSDE
    plain = sde(lambda t, x: -x, coupled, Noise.GENERAL)
    matrix = sde(lambda t, x: -x, lambda t, x: Dense(torch.diag_embed(coupled(t, x))), Noise.GENERAL)
    x, w, a = (
        torch.randn(7, 2, dtype=torch.float64),
        torch.randn(7, 2, dtype=torch.float64),
        torch.randn(7, dtype=torch.float64),
    )
    dw = Increment(0.2 * w, A=0.03 * torch.stack((torch.stack((0 * a, a), 1), torch.stack((-a, 0 * a), 1)), 1))
    t0 = torch.tensor(0.0, dtype=torch.float64)
    span = Span(t0, t0 - 0.05, -0.05)
    one, other = (kind(derivative_free=free).step(s, span, x, dw, None).x for s in (plain, matrix))
    torch.testing.assert_close(one, other)
    # the area moves component 1 by ∂₂g₁ g₂ A₂₁
    calm = kind().step(plain, span, x, dw._replace(A=0 * dw.A), None).x
    expected = 0.3 * torch.cos(x[:, 1]) * 0.5 * x[:, 0] * -0.03 * a
    torch.testing.assert_close(kind().step(plain, span, x, dw, None).x[:, 0] - calm[:, 0], expected)


def test_what_fits_general_noise_is_said():
    problem = crossing_waves()[0]
    with pytest.raises(Incompatible, match=r"declares GENERAL\. Use ItoGeneralMilstein\(\)\."):
        solve(problem.sde, problem.x0(2), 0.0, 1.0, solver=ItoMilstein(), steps=FixedSteps(2))
    picture = ItoSDE(lambda t, x: -x, lambda t, x: x.flip(1), Noise.GENERAL)
    with pytest.raises(Incompatible, match=r"noise of shape \(B, m\)"):
        solve(picture, torch.ones(2, 3, 4, 4), 0.0, 1.0, solver=ItoGeneralMilstein(), steps=FixedSteps(2))
