"""The measuring instruments themselves: recorded paths, problems, fits."""

import math
from itertools import pairwise

import pytest
import torch

from sdekit.convergence import (
    Experiment,
    RecordedPath,
    fit_order,
    posed,
    problems,
    reflected,
    strong_errors,
    weak_errors,
    work_precision,
)
from sdekit.convergence.problems import STRONG, UNLISTED, WEAK, crossing_waves, double_well, levy_area
from sdekit.convergence.reference import fine_solution
from sdekit.convergence.special import harmonic_langevin, problems_for
from sdekit.convergence.study import Errors, record
from sdekit.protocols import Calculus, Dense, Levy, Noise, Span
from sdekit.sdes import ItoSDE, Semilinear
from sdekit.solvers import SEEDS, Dopri8, EulerMaruyama, ExponentialEuler, Heun

ALL_PROBLEMS = {p.name: p for table in (STRONG, WEAK) for row in table.values() for ps in row.values() for p in ps}
ALL_PROBLEMS |= {p.name: p for p in UNLISTED}


def _span(a: float, b: float) -> Span:
    return Span(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), b - a)


def _path(batch: int = 20000, m: int = 2, cells: int = 8) -> RecordedPath:
    return RecordedPath(0.0, torch.linspace(0, 1, cells + 1), (batch, m), seed=3)


def test_increments_joined_from_cells_have_the_variances_of_w_h_and_k():
    path = _path()
    like = torch.empty(20000, 2, dtype=torch.float64)
    joined = path.increment(_span(0.25, 1.0), like, Levy.K)
    for value, variance in ((joined.W, 0.75), (joined.H, 0.75 / 12), (joined.K, 0.75 / 720)):
        assert value is not None
        sample = value.square().mean()
        assert abs(sample / variance - 1) < 5 * math.sqrt(2 / value.numel())


def test_lévy_area_of_the_whole_span_has_variance_a_quarter_of_its_square():
    path = _path(cells=32)
    area = path.area(1.0)[:, 0, 1]
    # the cells' own areas are replaced by their conditional means, which takes h/12 of the variance
    assert abs(area.square().mean() - (0.25 - 1 / 32 / 12)) < 5 * area.square().std() / math.sqrt(len(area))


def test_integral_of_a_weight_agrees_with_integration_by_parts():
    fine = _path(batch=50, cells=4096)
    exact = fine.integral(lambda r: r, 1.0)
    time = 0.5 * (fine.nodes[1:] + fine.nodes[:-1])
    riemann = torch.einsum("n,nbm->bm", time, torch.stack([fine.grid(a, b).W for a, b in pairwise(fine.nodes)]))
    assert (exact - riemann).abs().max() < 5e-4
    coarse = _path(batch=50000, cells=2)
    value = coarse.integral(lambda r: torch.exp(r), 1.0)
    assert abs(value.square().mean() / ((math.exp(2) - 1) / 2) - 1) < 5 * math.sqrt(2 / value.numel())


def test_path_says_which_time_it_has_not_recorded():
    with pytest.raises(ValueError, match="not on this Brownian grid"):
        _path().w(0.3)
    with pytest.raises(ValueError, match="increasing order"):
        RecordedPath(0.0, [0.0, 1.0, 0.5], (1, 1), seed=0)


def _readable(p) -> bool:
    """Whether a fine solution can be made; an Itô problem without one shares its solution with its twin."""
    return p.calculus is Calculus.STRATONOVICH or p.noise is Noise.ADDITIVE or p.reads_alike


STOCHASTIC = [n for n, p in ALL_PROBLEMS.items() if p.exact and p.noise is not Noise.NONE and _readable(p)]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_exact_solution_is_the_limit_of_fine_solutions(name: str):
    """Along the same path an independent fine solution converges to the stated one: problem and solution agree."""
    problem = ALL_PROBLEMS[name]
    distances = []
    for cells in (64 // min(problem.refine, 8), 256 // min(problem.refine, 8)):
        path = record(problem, (cells,), 64, seed=1)
        x0 = problem.x0(64)
        assert problem.exact is not None
        exact = problem.exact(path, x0, problem.length)
        fine = fine_solution(problem, path, x0, [problem.length])[0]
        distances.append(float((fine - exact).flatten(1).norm(dim=1).mean() / exact.flatten(1).norm(dim=1).mean()))
    assert distances[1] < 2e-3
    # a quarter, up to what the mean over 64 paths is sure of
    assert distances[1] < distances[0] / 2.2 or distances[1] < 1e-9


@pytest.mark.parametrize("name", sorted(n for n, p in ALL_PROBLEMS.items() if f"{n} (Stratonovich)" in ALL_PROBLEMS))
def test_drifts_of_both_readings_differ_by_the_correction(name: str):
    """Stratonovich drift = Itô drift − ½ Σ_k (∂g_k) g_k, by central differences."""
    ito, other = ALL_PROBLEMS[name], ALL_PROBLEMS[f"{name} (Stratonovich)"]
    generator = torch.Generator().manual_seed(5)
    x = ito.x0(7) + 0.3 * torch.randn(ito.x0(7).shape, generator=generator, dtype=torch.float64)
    t = torch.tensor(0.37, dtype=torch.float64)
    g = ito.sde.diffusion(t, x)
    count = g.matrix.shape[-1] if isinstance(g, Dense) else 1 if ito.noise is Noise.SCALAR else x.shape[-1]
    correction = torch.zeros_like(x)
    for k in range(count):

        def column(y: torch.Tensor, k: int = k) -> torch.Tensor:
            value = ito.sde.diffusion(t, y)
            if isinstance(value, Dense):
                return value.matrix[..., k]
            only = torch.ones(count) if ito.noise is Noise.SCALAR else torch.eye(count)[k]
            return value * only.to(y.dtype)

        move = 1e-5 * column(x)
        correction += 0.5 * (column(x + move) - column(x - move)) / 2e-5
    torch.testing.assert_close(ito.sde.drift(t, x) - other.sde.drift(t, x), correction, rtol=1e-7, atol=1e-8)


def test_every_class_of_noise_has_exact_problems_and_one_that_depends_on_time():
    for table in (STRONG, WEAK):
        for row in table.values():
            for found in row.values():
                assert sum(bool(p.exact or (p.moment and p.moment.control)) for p in found) >= 2
                assert any(not p.autonomous for p in found)


@pytest.mark.parametrize(
    "problem", [levy_area()[0], crossing_waves()[1], double_well(), problems(Noise.DIAGONAL, Calculus.ITO)[3]]
)
def test_reflected_problem_has_the_same_errors(problem):
    kind = EulerMaruyama() if problem.calculus is Calculus.ITO else Heun()
    there = Experiment.of(problem, (8, 16), 20)
    back = strong_errors(reflected(problem), kind, (8, 16), 20)
    torch.testing.assert_close(there.strong_errors(kind).paths, back.paths, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(there.reflected().strong_errors(kind).paths, back.paths, rtol=1e-9, atol=1e-12)


def test_fit_finds_a_known_order_and_its_interval_covers_it():
    generator = torch.Generator().manual_seed(2)
    h = 2.0 ** -torch.arange(3, 8, dtype=torch.float64)
    noise = torch.randn(5, 400, generator=generator, dtype=torch.float64).exp()
    errors = Errors((8, 16, 32, 64, 128), h, 0.3 * h[:, None] ** 1.5 * noise, None, (), (), 1.0)
    fit = fit_order(errors)
    assert abs(fit.order - 1.5) < 0.1
    assert fit.low < 1.5 < fit.high
    assert fit.high - fit.low < 0.4


def test_fit_leaves_rounding_out():
    h = 2.0 ** -torch.arange(3, 8, dtype=torch.float64)
    paths = torch.maximum(h**4 * 1e-4, torch.tensor(1e-15, dtype=torch.float64))[:, None].expand(5, 3)
    paths = torch.where(h[:, None] < 2e-2, torch.full_like(paths, 1e-15), paths)
    assert abs(fit_order(Errors((8,), h, paths, None, (), (), 1.0)).order - 4.0) < 1e-6
    assert fit_order(Errors((8,), h, paths * 0, None, (), (), 1.0)).order == math.inf


def test_weak_error_of_euler_on_growth_is_that_of_its_recurrence():
    """E X_n = x0 (1 + 1.505 h)^n for Euler–Maruyama, so the weak error is known to rounding."""
    problem = problems(Noise.DIAGONAL, Calculus.ITO, weak=True)[1]
    errors = weak_errors(problem, EulerMaruyama(), (8, 16), 2000, chunk=700)
    for n, value, error in zip((8, 16), errors.paths.mean(-1).tolist(), errors.standard_error.tolist(), strict=True):
        assert abs(value - 0.1 * ((1 + 1.505 / n) ** n - math.exp(1.505))) < 4 * error


def test_saved_errors_are_those_at_the_save_times():
    problem = problems(Noise.ADDITIVE, Calculus.ITO)[1]
    errors = strong_errors(problem, EulerMaruyama(), (8, 16), 50, save_times=[0.3, 0.7])
    assert errors.saved is not None
    assert errors.saved.shape == (2, 2, 50)
    assert fit_order(errors.between()).order > 0.5
    with pytest.raises(ValueError, match="save_times"):
        strong_errors(problem, EulerMaruyama(), (8, 16), 50).between()


def test_special_problems_agree_with_fine_solutions():
    """Langevin dynamics and the reverse SDEs of Gaussian data: stated solution and fine solution coincide."""
    for problem in (harmonic_langevin(), *problems_for(SEEDS(1), Noise.ADDITIVE)):
        path = record(problem, (64,), 20, seed=1)
        x0 = problem.x0(20)
        assert problem.exact is not None
        exact = problem.exact(path, x0, problem.length)
        fine = fine_solution(problem, path, x0, [problem.length])[0]
        torch.testing.assert_close(fine, exact, rtol=2e-3, atol=2e-3)


def test_mean_of_the_reverse_sdes_moment_is_that_of_its_exact_solution():
    for problem in problems_for(SEEDS(1), Noise.ADDITIVE, weak=True):
        path, x0 = record(problem, (32,), 20000, seed=2), problem.x0(20000)
        assert problem.exact is not None
        assert problem.moment is not None
        assert problem.moment.mean is not None
        value = problem.moment.of(problem.exact(path, x0, problem.length))
        assert abs(value.mean() - problem.moment.mean(problem.length)) < 4 * value.std() / math.sqrt(len(value))


def test_work_counts_evaluations_of_drift_and_diffusion_together():
    """Euler–Maruyama asks each once a step, and the diffusion once before."""
    problem = problems(Noise.DIAGONAL, Calculus.ITO)[0]
    errors = strong_errors(problem, EulerMaruyama(), (8, 16, 32), 50)
    work = work_precision(errors)
    assert [entry.evaluations for entry in work] == [16, 32, 64]
    torch.testing.assert_close(torch.tensor([entry.error for entry in work]), errors.mean.float())


def test_a_posed_sde_is_the_same_sde_with_a_linear_part_of_its_own():
    sde = ItoSDE(lambda t, x: torch.sin(x) + t, lambda t, x: 0.3 * x, Noise.DIAGONAL)
    assert posed(sde, EulerMaruyama()) is sde
    split = posed(sde, ExponentialEuler())
    assert isinstance(split, Semilinear)
    t, x = torch.tensor(0.4, dtype=torch.float64), torch.linspace(-2, 2, 10, dtype=torch.float64).reshape(5, 2)
    torch.testing.assert_close(split.linear_drift(x), -0.7 * x)
    torch.testing.assert_close(split.drift(t, x), torch.sin(x) + 0.4)
    torch.testing.assert_close(split.diffusion(t, x), 0.3 * x)


def test_a_path_that_starts_elsewhere_has_the_same_increments():
    path = _path(batch=5)
    moved = path.starting_at(3.0)
    here, there = (
        path.increment(_span(0.25, 0.5), path.w(0.0), Levy.K),
        moved.increment(_span(3.25, 3.5), path.w(0.0), Levy.K),
    )
    assert torch.equal(here.W, there.W)
    torch.testing.assert_close(here.W, path.w(0.5) - path.w(0.25))


def test_solution_of_the_quadrature_over_time_is_what_a_solve_of_high_order_finds():
    problem = next(p for p in UNLISTED if p.noise is Noise.NONE)
    errors = strong_errors(problem, Dopri8(), (32,), 3)
    assert errors.mean[0] < 1e-11
    assert errors.scale > 1.0
