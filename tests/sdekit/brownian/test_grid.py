"""The Brownian grid: exact coarsening of one path."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sdekit.brownian import BrownianGrid, FreshIncrements
from sdekit.brownian import levy as law
from sdekit.errors import Incompatible
from sdekit.protocols import Increment, Levy
from sdekit.random import KeyedDraws

from .paths import covariance, deviation, integrated, span

DOUBLE = torch.float64
TIMES = torch.tensor([0.0, 0.1, 0.15, 0.4, 0.75, 1.0], dtype=DOUBLE)


def test_coarse_increments_are_sums_of_fine_ones() -> None:
    grid = BrownianGrid(torch.linspace(0, 1, 129, dtype=DOUBLE), (4, 3), levy=Levy.W)
    fine = torch.stack([grid(k / 128, (k + 1) / 128).W for k in range(128)])
    for a, b in ((0, 128), (16, 48), (127, 128)):
        assert torch.allclose(grid(a / 128, b / 128).W, fine[a:b].sum(0), rtol=0, atol=1e-14)


def test_coarse_increments_are_the_integrals_of_the_path() -> None:
    n, h = 64, 0.5
    steps = torch.randn(n, 3, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros_like(steps)
    times = torch.linspace(0, h, n + 1, dtype=DOUBLE)
    grid = BrownianGrid.from_increments(times, steps, zero, zero)
    for a, b in ((0, 64), (8, 24)):
        found, exact = grid(times[a], times[b]), integrated(steps[a:b], float(times[b] - times[a]))
        for name in "WHK":
            assert torch.allclose(getattr(found, name), getattr(exact, name), atol=1e-13)


def test_coarse_increments_have_the_joint_law_of_a_brownian_path() -> None:
    grid = BrownianGrid(TIMES, (40_000, 1), levy=Levy.K)
    intervals = [(0.0, 0.4), (0.1, 1.0), (0.15, 0.75), (0.0, 1.0)]
    samples = torch.stack([getattr(grid(a, b), n)[:, 0] for a, b in intervals for n in "WHK"], 1)
    assert deviation(samples, covariance(intervals, 3)) < 4.0


def test_coarsening_twice_is_coarsening_once() -> None:
    grid = BrownianGrid(TIMES, (3, 2), levy=Levy.K)
    joined = law.chen(0.4, grid(0.0, 0.4), 0.6, grid(0.4, 1.0))
    whole = grid(0.0, 1.0)
    for name in "WHK":
        assert torch.allclose(getattr(joined, name), getattr(whole, name), rtol=0, atol=1e-15)


def test_a_grid_is_the_path_of_a_solve_with_the_same_seed_and_steps() -> None:
    grid = BrownianGrid(TIMES, (3, 2), seed=5, first=2, levy=Levy.H)
    fresh, like = FreshIncrements(KeyedDraws(5, 2)), torch.empty(3, 2, dtype=DOUBLE)
    for k in range(5):
        step = span(TIMES[k], TIMES[k + 1], k)
        a, b = grid.increment(step, like, Levy.H), fresh.increment(step, like, Levy.H)
        assert torch.allclose(a.W, b.W, rtol=1e-14)
        assert torch.allclose(a.H, b.H, rtol=1e-14)  # pyright: ignore


def test_a_path_traversed_backwards_has_the_reversed_increment() -> None:
    grid = BrownianGrid(TIMES, (3, 2), levy=Levy.AREA)
    forward, back = grid(0.1, 0.75), grid(0.75, 0.1)
    turned = law.reversed_increment(forward)
    for name in "WHA":
        assert torch.equal(getattr(back, name), getattr(turned, name))


def test_each_sample_may_have_its_own_interval() -> None:
    grid = BrownianGrid(TIMES, (3, 2), levy=Levy.AREA)
    a, b = TIMES[[0, 3, 5]][:, None], TIMES[[2, 1, 5]][:, None]
    found = grid.increment(span(a, b), torch.empty(3, 2, dtype=DOUBLE), Levy.AREA)
    for k in range(3):
        one = grid(a[k, 0], b[k, 0])
        for name in "WHA":
            assert torch.allclose(getattr(found, name)[k], getattr(one, name)[k], atol=1e-15)


def test_values_depend_on_the_sample_alone() -> None:
    wide, late = BrownianGrid(TIMES, (64, 3)), BrownianGrid(TIMES, (2, 3), first=40)
    assert torch.equal(wide(0.1, 1.0).W[40:42], late(0.1, 1.0).W)


def test_the_area_converges_to_that_of_the_path_as_the_grid_is_refined() -> None:
    n, h, batch = 256, 0.5, 4000
    times = torch.linspace(0, h, n + 1, dtype=DOUBLE)
    grid = BrownianGrid(times, (batch, 2), levy=Levy.H)
    exact = grid.increment(span(0.0, h), torch.empty(batch, 2, dtype=DOUBLE), Levy.AREA).A
    assert exact is not None
    for m in (4, 16):
        cut = times[:: n // m]
        pieces = [grid(a, b) for a, b in itertools.pairwise(cut)]
        stacked = Increment(torch.stack([p.W for p in pieces]), torch.stack([p.H for p in pieces if p.H is not None]))
        coarse = law.join(cut.diff(), stacked, area=True).A
        assert coarse is not None
        error = float((coarse - exact)[:, 0, 1].square().mean())
        expected = h * h / 12 * (1 / m - 1 / n)
        assert abs(error / expected - 1) < 0.15
    assert abs(float(exact[:, 0, 1].square().mean()) / (h * h / 4) - 1) < 4 * math.sqrt(5 / batch) + 1 / (3 * n)


def test_the_area_over_an_interval_is_chens_combination_of_its_halves() -> None:
    grid = BrownianGrid(TIMES, (5, 3), levy=Levy.AREA)
    joined = law.chen(0.4, grid(0.0, 0.4), 0.6, grid(0.4, 1.0)).A
    assert torch.allclose(joined, grid(0.0, 1.0).A, atol=1e-15)  # pyright: ignore


def test_a_part_is_the_path_itself_at_grid_times() -> None:
    grid, like = BrownianGrid(TIMES, (3, 2)), torch.empty(3, 2, dtype=DOUBLE)
    step = span(0.1, 1.0)
    whole = grid.increment(step, like, Levy.H)
    assert torch.equal(grid.part(step, span(0.1, 0.4), whole, like, Levy.H).W, grid(0.1, 0.4).W)
    assert torch.equal(grid.value(0.4), grid(0.0, 0.4).W)


def test_times_off_the_grid_are_explained() -> None:
    grid = BrownianGrid(TIMES, (3, 2))
    with pytest.raises(ValueError, match="BrownianTree"):
        grid(0.0, 0.2)
    with pytest.raises(ValueError, match="not on this Brownian grid"):
        grid(0.0, 1.2)
    with pytest.raises(ValueError, match="not on this Brownian grid"):
        grid(0.0, float("nan"))


def test_what_does_not_fit_is_explained() -> None:
    with pytest.raises(ValueError, match="increasing"):
        BrownianGrid([0.0, 0.5, 0.5], (3, 2))
    with pytest.raises(ValueError, match="increasing"):
        BrownianGrid([0.0], (3, 2))
    with pytest.raises(Incompatible, match=r"levy=Levy\.H"):
        BrownianGrid(TIMES, (3, 2), levy=Levy.W).increment(span(0.0, 1.0), torch.empty(3, 2), Levy.H)
    with pytest.raises(Incompatible, match=r"shape=\(3, 1\)"):
        BrownianGrid(TIMES, (3, 2)).increment(span(0.0, 1.0), torch.empty(3, 1), Levy.W)
    with pytest.raises(ValueError, match=r"expected shape \(5, B, …\)"):
        BrownianGrid.from_increments(TIMES, torch.zeros(4, 3, 2))
    with pytest.raises(ValueError, match="without H"):
        BrownianGrid.from_increments(TIMES, torch.zeros(5, 3, 2), K=torch.zeros(5, 3, 2))
