"""The virtual Brownian tree: joint law, additivity at every scale, and values that depend on nothing but their key."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from sdekit.brownian import BrownianTree
from sdekit.brownian import levy as law
from sdekit.errors import Incompatible
from sdekit.protocols import Increment, Levy

from .paths import covariance, deviation, integrated, span

DOUBLE = torch.float64


def tree(
    shape: tuple[int, ...] = (3, 2), levy: Levy = Levy.K, ends: tuple[float, float] = (0.0, 1.0), **more
) -> BrownianTree:
    return BrownianTree(*ends, shape, levy=levy, dtype=DOUBLE, **more)


def random_intervals(count: int, seed: int, low: float = 0.0, high: float = 1.0) -> list[tuple[float, float]]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        length = (high - low) * 2.0 ** -draw.uniform(0, 8)
        a = low + (high - low - length) * draw.random()
        found.append((a, a + length))
    return found


def columns(i: Increment, count: int) -> list[Tensor]:
    return [getattr(i, name).reshape(-1) for name in "WHK"[:count]]


def equal(a: Increment, b: Increment) -> bool:
    pairs = [(getattr(a, n), getattr(b, n)) for n in "WHKA"]
    return all(x is y if x is None or y is None else torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("levy", [Levy.W, Levy.H, Levy.K])
def test_random_queries_have_the_joint_law_of_a_brownian_path(levy: Levy) -> None:
    count = law.terms(levy)
    intervals = random_intervals(10, seed=count)
    path = tree((20_000, 1), levy)
    samples = torch.stack([c for a, b in intervals for c in columns(path(a, b), count)], 1)
    assert deviation(samples, covariance(intervals, count)) < 4.0


@pytest.mark.slow
def test_random_queries_have_the_joint_law_with_a_million_samples() -> None:
    intervals = random_intervals(8, seed=5)
    chunks = []
    for first in range(0, 1_000_000, 20_000):
        path = tree((20_000, 1), first=first)
        chunks.append(torch.stack([c for a, b in intervals for c in columns(path(a, b), 3)], 1))
    assert deviation(torch.cat(chunks), covariance(intervals, 3)) < 4.0


def test_times_of_each_sample_have_the_joint_law_too() -> None:
    a, b = torch.rand(2, 40_000, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)).sort(0).values
    path = tree((40_000, 1))
    z = torch.stack(law.to_normals(path(a, b), (b - a)[:, None], 3), -1)[:, 0]
    assert deviation(z, torch.eye(3, dtype=DOUBLE).numpy()) < 4.0


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3.7, 11.2), (1000.0, 1000.5), (1e-5, 80.0), (0.0, 1e-9)])
@pytest.mark.parametrize("levy", [Levy.W, Levy.H, Levy.K])
def test_increments_add_to_rounding(ends: tuple[float, float], levy: Levy) -> None:
    path, draw = tree(levy=levy, ends=ends), random.Random(0)
    for _ in range(20):
        a, b, c = sorted(draw.uniform(*ends) for _ in range(3))
        joined, whole = law.chen(b - a, path(a, b), c - b, path(b, c)), path(a, c)
        # the clock's tick limits how well a length is known; lengths enter only through it
        slack = 2e-15 + 4 * max(map(abs, ends)) * 2.0**-52 / min(b - a, c - b)
        for name in "WHK"[: law.terms(levy)]:
            assert float((getattr(joined, name) - getattr(whole, name)).abs().max()) < slack * math.sqrt(c - a) * 10


def test_increments_of_w_add_exactly_where_lengths_do_not_enter() -> None:
    path = tree(levy=Levy.W, ends=(1000.0, 1000.5))
    points = sorted(random.Random(2).uniform(1000, 1000.5) for _ in range(50))
    total = sum(path(a, b).W for a, b in itertools.pairwise(points))
    assert float((total - path(points[0], points[-1]).W).abs().max()) < 1e-14


@pytest.mark.parametrize("at", [0.0, 0.5, 0.3, 1.0 - 4e-15])
def test_intervals_far_below_any_tolerance_have_the_right_law(at: float) -> None:
    path, width = tree((20_000, 1)), 2.0**-52
    intervals = [(at, at + width), (at + width, at + 3 * width), (at, at + 4 * width)]
    samples = torch.stack([c for a, b in intervals for c in columns(path(a, b), 3)], 1)
    assert deviation(samples / 2.0**-26, covariance([(0.0, 1.0), (1.0, 3.0), (0.0, 4.0)], 3)) < 4.0


def test_an_empty_interval_has_no_increment() -> None:
    path = tree(levy=Levy.AREA)
    for t in (0.0, 0.3, 1.0):
        i = path(t, t)
        assert i.H is not None
        assert i.A is not None
        assert not i.W.any()
        assert not i.H.any()
        assert not i.A.any()


def test_a_path_traversed_backwards_has_the_reversed_increment() -> None:
    path = tree()
    assert equal(path(0.7, 0.2), law.reversed_increment(path(0.2, 0.7)))
    a, b = torch.tensor([0.1, 0.8, 0.5]), torch.tensor([0.4, 0.3, 0.5])
    i = path(a, b)
    for k in range(3):
        one = path(float(a[k]), float(b[k]))
        for name in "WHK":
            assert torch.equal(getattr(i, name)[k], getattr(one, name)[k])


@pytest.mark.parametrize("levy", list(Levy))
def test_values_depend_on_the_sample_alone(levy: Levy) -> None:
    a, b = random_intervals(64, seed=3), random_intervals(64, seed=4)
    wide, one, late = tree((64, 3), levy), tree((1, 3), levy), tree((9, 3), levy, first=55)
    for ta, tb in a[:5] + b[:5]:
        whole, single, end = wide(ta, tb), one(ta, tb), late(ta, tb)
        for name in "WHK":
            x = getattr(whole, name)
            if x is not None:
                assert torch.equal(x[:1], getattr(single, name))
                assert torch.equal(x[55:], getattr(end, name))
    starts = torch.tensor([x[0] for x in a], dtype=DOUBLE)
    ends = torch.tensor([x[1] for x in a], dtype=DOUBLE)
    own = wide(starts, ends)
    for k in (0, 17, 63):
        assert torch.equal(own.W[k], wide(starts[k], ends[k]).W[k])


def test_large_samples_and_large_batches_agree_with_small_ones() -> None:
    for shape in ((70, 5, 7, 3), (3, 2000), (2000, 1)):
        wide, one = tree(shape), tree((1, *shape[1:]), first=shape[0] - 1)
        assert torch.equal(wide(0.1, 0.7).W[-1:], one(0.1, 0.7).W)


def test_the_order_of_queries_does_not_matter() -> None:
    queries = random_intervals(30, seed=6)
    first, second = tree(), tree()
    answers = {q: first(*q) for q in queries}
    for q in sorted(queries, reverse=True) + queries:
        assert equal(second(*q), answers[q])


def test_sequential_steps_meet_queries_out_of_the_blue() -> None:
    path, other = tree((2, 2), Levy.H), tree((2, 2), Levy.H)
    times = torch.linspace(0, 1, 101, dtype=DOUBLE)
    steps = [path(times[k], times[k + 1]) for k in range(100)]
    assert all(equal(steps[k], other(times[k], times[k + 1])) for k in (99, 3, 57, 0))
    total = law.join(times.diff(), Increment(torch.stack([i.W for i in steps]), torch.stack([i.H for i in steps])))  # pyright: ignore
    whole = path(0.0, 1.0)
    assert total.H is not None
    assert whole.H is not None
    assert float((total.W - whole.W).abs().max()) < 1e-14
    assert float((total.H - whole.H).abs().max()) < 1e-14


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_sequential_steps_add_up() -> None:
    path, n = tree((1, 1), Levy.W), 100_000
    times = torch.linspace(0, 1, n + 1, dtype=DOUBLE)
    total, squares = torch.zeros(1, 1, dtype=DOUBLE), 0.0
    for k in range(n):
        w = path(times[k], times[k + 1]).W
        total += w
        squares += float(w) ** 2
    assert float((total - path(0.0, 1.0).W).abs()) < 1e-11
    assert abs(squares - 1) < 4 * math.sqrt(2 / n)


def test_saved_parts_are_the_path_itself() -> None:
    path, like = tree((4, 2), Levy.H), torch.empty(4, 2, dtype=DOUBLE)
    step, inner = span(0.25, 0.5), span(0.25, 0.3)
    whole = path.increment(step, like, Levy.H)
    part = path.part(step, inner, whole, like, Levy.H)
    rest = path(0.3, 0.5)
    joined = law.chen(0.05, part, 0.2, rest)
    assert joined.H is not None
    assert whole.H is not None
    assert float((joined.W - whole.W).abs().max()) < 1e-15
    assert float((joined.H - whole.H).abs().max()) < 1e-15


def test_a_higher_level_answers_lower_ones_of_the_same_path() -> None:
    path, like = tree((4, 2), Levy.K), torch.empty(4, 2)
    whole = path.increment(span(0.2, 0.9), like, Levy.K)
    for levy in (Levy.W, Levy.H):
        assert torch.equal(path.increment(span(0.2, 0.9), like, levy).W, whole.W)
    assert path.increment(span(0.2, 0.9), like, Levy.W).H is None
    assert whole.W.dtype is torch.float32


def test_a_coarse_clock_rounds_times_and_still_adds() -> None:
    path = tree((5, 1), Levy.H, tol=1e-3)
    assert equal(path(0.1, 0.5), path(0.1 + 1e-5, 0.5 - 1e-4))
    i = law.chen(0.25, path(0.0, 0.25), 0.25, path(0.25, 0.5))
    assert float((i.W - path(0.0, 0.5).W).abs().max()) < 1e-15


def test_the_path_does_not_start_anew_with_another_level_of_batching() -> None:
    path = tree((1000, 4), Levy.W)
    assert abs(float(path.value(0.37).square().mean()) / 0.37 - 1) < 4 * math.sqrt(2 / 4000)
    assert torch.equal(path.value(0.37), path(0.0, 0.37).W)


def test_seeds_and_samples_are_independent() -> None:
    a, b = tree((4000, 1), Levy.W)(0.0, 1.0).W, tree((4000, 1), Levy.W, seed=1)(0.0, 1.0).W
    for x, y in ((a, b), (a[:-1], a[1:])):
        assert abs(float((x * y).mean())) < 4 / math.sqrt(4000)


@pytest.mark.parametrize("levy", [Levy.W, Levy.H, Levy.K])
def test_components_of_a_sample_are_independent(levy: Levy) -> None:
    w = tree((20_000, 3), levy)(0.2, 0.7).W / math.sqrt(0.5)
    assert deviation(w, torch.eye(3, dtype=DOUBLE).numpy()) < 4.0


def test_the_area_is_that_of_the_path_and_converges_as_the_pieces_do() -> None:
    path = tree((400, 2), Levy.AREA, area_rate=40.0)
    i = path(0.25, 0.5)
    points = torch.linspace(0.25, 0.5, 641, dtype=DOUBLE)
    fine = torch.stack([path._between(a, b, Levy.W, DOUBLE).W for a, b in itertools.pairwise(points)])
    exact = integrated(fine, 0.25).A
    assert i.A is not None
    assert exact is not None
    # 160 pieces err by h²/(12 · 160); the reference's 640 straight pieces by h²/(4 · 640)
    expected = 0.25**2 * (1 / (12 * 160) + 1 / (4 * 640))
    found = float((i.A - exact)[:, 0, 1].square().mean())
    assert found < expected * 1.3
    assert abs(float(i.A[:, 0, 1].square().mean()) / (0.25**2 / 4) - 1) < 4 * math.sqrt(5 / 400)


def test_levels_and_shapes_that_do_not_fit_are_explained() -> None:
    with pytest.raises(Incompatible, match=r"levy=Levy\.K"):
        tree(levy=Levy.W).increment(span(0.0, 0.5), torch.empty(3, 2), Levy.K)
    with pytest.raises(Incompatible, match=r"shape=\(3, 4\)"):
        tree().increment(span(0.0, 0.5), torch.empty(3, 4), Levy.W)
    with pytest.raises(ValueError, match=r"defined on \[0\.0, 1\.0\]"):
        tree()(0.5, 1.1)
    with pytest.raises(Incompatible, match=r"\(B, m\)"):
        tree((3, 2, 2), Levy.AREA).increment(span(0.0, 0.5), torch.empty(3, 2, 2), Levy.AREA)


@pytest.mark.parametrize("t", [float("nan"), float("inf")])
def test_times_must_be_numbers(t: float) -> None:
    with pytest.raises(ValueError, match="every time asked"):
        tree()(0.0, t)
    with pytest.raises(ValueError, match="t1 must be finite"):
        tree(ends=(0.0, t))


def test_ends_may_come_in_any_order_and_must_differ() -> None:
    assert torch.equal(tree(ends=(1.0, 0.0))(0.1, 0.4).W, tree()(0.1, 0.4).W)
    with pytest.raises(ValueError, match="two different finite times"):
        tree(ends=(1.0, 1.0))
    with pytest.raises(ValueError, match="tol"):
        tree(tol=-1.0)


def test_an_empty_batch_has_an_empty_increment() -> None:
    path = tree((0, 2))
    assert path(0.1, 0.2).W.shape == (0, 2)
    assert path(torch.empty(0), torch.empty(0)).W.shape == (0, 2)


def test_the_domain_runs_from_the_earlier_end_to_the_later() -> None:
    tree = BrownianTree(2.0, -1.0, (3, 1))
    assert tree.domain == (-1.0, 2.0)
    assert float(tree.value(-1.0).abs().max()) == 0.0
