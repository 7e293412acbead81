"""The algebra of (W, H, K, A) against integration of a path by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit.brownian import levy as law
from sdekit.errors import Incompatible
from sdekit.protocols import Increment, Levy

from .paths import covariance, deviation, integrated

DOUBLE = torch.float64


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def distance(a: Increment, b: Increment, names: str = "WHKA") -> float:
    return max(float((getattr(a, n) - getattr(b, n)).abs().max()) for n in names)


def linear(steps: Tensor, h: float) -> tuple[Tensor, Increment]:
    """The pieces of a piecewise linear path: no H and no K of their own, and no area."""
    zero = torch.zeros_like(steps)
    m = steps.shape[-1]
    return torch.full((len(steps),), h / len(steps), dtype=DOUBLE), Increment(
        steps, zero, zero, zero.new_zeros((*steps.shape[:2], m, m))
    )


def test_joined_pieces_are_the_integrals_of_the_path() -> None:
    steps = normals(37, 5, 3)
    assert distance(law.join(*linear(steps, 0.7)), integrated(steps, 0.7)) < 1e-13


def test_a_reversed_increment_is_the_integral_of_the_path_traversed_backwards() -> None:
    steps = normals(64, 5, 3)
    backwards = -steps.flip(0)
    assert distance(law.reversed_increment(integrated(steps, 0.7)), integrated(backwards, 0.7)) < 1e-13


@pytest.mark.parametrize("cut", [1, 20, 63])
def test_chen_joins_two_intervals_of_any_lengths_exactly(cut: int) -> None:
    steps, h = normals(64, 5, 2), 0.7
    h1 = h * cut / 64
    first, second = integrated(steps[:cut], h1), integrated(steps[cut:], h - h1)
    assert distance(law.chen(h1, first, h - h1, second), integrated(steps, h)) < 1e-13


def test_chen_is_associative() -> None:
    lengths = (0.3, 1e-6, 0.9)
    parts = [law.from_normals(list(normals(3, 4, 2, seed=k)), h) for k, h in enumerate(lengths)]
    a, b, c = lengths
    left = law.chen(a + b, law.chen(a, parts[0], b, parts[1]), c, parts[2])
    right = law.chen(a, parts[0], b + c, law.chen(b, parts[1], c, parts[2]))
    assert distance(left, right, "WHK") < 1e-14


def test_an_empty_piece_adds_nothing() -> None:
    whole = law.from_normals(list(normals(3, 4, 2)), 0.3)
    other = law.from_normals(list(normals(3, 4, 2, seed=1)), 0.0)
    assert distance(law.chen(0.3, whole, 0.0, other), whole, "WHK") == 0.0
    assert distance(law.chen(0.0, other, 0.3, whole), whole, "WHK") < 1e-15


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("theta", [1e-12, 0.25, 0.5, 0.9, 1 - 1e-12])
def test_the_parts_of_a_split_join_to_the_whole(count: int, theta: float) -> None:
    z = list(normals(2 * count, 6, 3))
    whole = law.from_normals(z[:count], 0.8)
    first, second = law.split(0.8, whole, theta, z[count:])
    assert distance(law.chen(theta * 0.8, first, (1 - theta) * 0.8, second), whole, "WHK"[:count]) < 1e-14


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_split_has_the_law_of_two_adjacent_intervals(count: int) -> None:
    theta, h = 0.3, 2.0
    z = list(normals(2 * count, 100_000, 1, seed=count))
    first, second = law.split(h, law.from_normals(z[:count], h), theta, z[count:])
    exact = covariance([(0.0, theta * h), (theta * h, h)], count)
    columns = [getattr(i, n)[:, 0] for i in (first, second) for n in "WHK"[:count]]
    assert deviation(torch.stack(columns, 1), exact) < 4.0


def test_the_law_of_a_part_given_the_whole_is_that_of_a_fine_path() -> None:
    h, n, cut = 1.5, 64, 24
    steps = normals(n, 40_000, 1) * math.sqrt(h / n)
    # fine H and K make the path Brownian between its points too
    fine = Increment(steps, normals(n, 40_000, 1, seed=1) * math.sqrt(h / n / 12), None)
    lengths = torch.full((n,), h / n, dtype=DOUBLE)
    whole, part = law.join(lengths, fine), law.join(lengths[:cut], Increment(fine.W[:cut], fine.H[:cut]))  # pyright: ignore
    z_whole = torch.stack(law.to_normals(whole, h, 2), -1)[:, 0]
    z_part = torch.stack(law.to_normals(part, h * cut / n, 2), -1)[:, 0]
    matrix = law.split_matrix(torch.tensor(cut / n, dtype=DOUBLE), 2)
    regression = torch.linalg.lstsq(z_whole, z_part).solution.T
    assert (regression - matrix[:2, :2]).abs().max() < 4 / math.sqrt(40_000)
    left = z_part - z_whole @ matrix[:2, :2].T
    free = matrix[:2, 2:] @ matrix[:2, 2:].T
    assert deviation(left, free.numpy()) < 4.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_midpoint_constants_complete_the_rows_that_join_halves(count: int) -> None:
    free, bound = law.midpoint(count)
    half = torch.zeros(2, count, count, dtype=DOUBLE)
    for j in range(count):
        half[0, j, j], half[1, j, j] = free[j], -free[j]
        if j < count - 1:
            half[:, j + 1, j] = -bound[j]
    added = half.reshape(2 * count, count)
    joined = law.split_matrix(torch.tensor(0.5, dtype=DOUBLE), count)[:, :count]
    assert torch.allclose(added.T @ added, torch.eye(count, dtype=DOUBLE), atol=1e-15)
    assert (joined.T @ added).abs().max() < 1e-15


def test_the_area_has_the_sign_of_an_anticlockwise_turn() -> None:
    angle = torch.linspace(0, 2 * math.pi, 1001, dtype=DOUBLE)
    circle = torch.stack((angle.cos(), angle.sin()), -1)[:, None]
    found = law.join(*linear(circle.diff(dim=0), 1.0)).A
    assert found is not None
    assert abs(float(found[0, 0, 1]) - math.pi) < 1e-4
    assert float(found[0, 1, 0]) == -float(found[0, 0, 1])


def test_the_conditional_mean_of_the_area_given_w_and_h_leaves_a_twelfth_of_h_squared() -> None:
    h, n, batch = 0.5, 128, 20_000
    steps = normals(n, batch, 2) * math.sqrt(h / n)
    exact = integrated(steps, h)
    assert exact.H is not None
    assert exact.A is not None
    mean = exact.H[:, 0] * exact.W[:, 1] - exact.W[:, 0] * exact.H[:, 1]
    rest = exact.A[:, 0, 1] - mean
    # uncorrelated with the mean, and of variance h²/12, less what a path of n straight pieces lacks of it
    assert abs(float((rest * mean).mean())) < 4 * float((rest * mean).std()) / math.sqrt(batch)
    assert (
        abs(float(rest.square().mean()) / (h * h / 12) - 1)
        < 4 * float(rest.square().std() / rest.square().mean()) / math.sqrt(batch) + 4 / n
    )


def test_splitting_asks_for_a_fraction_inside() -> None:
    whole = law.from_normals([normals(2, 1)], 1.0)
    for theta in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            law.split(1.0, whole, theta, [normals(2, 1)])


def test_missing_terms_are_named() -> None:
    with pytest.raises(ValueError, match="no H"):
        law.to_normals(Increment(normals(2, 1)), 1.0, 2)
    pieces = Increment(normals(3, 2, 2, 4), normals(3, 2, 2, 4))
    with pytest.raises(Incompatible, match=r"\(B, m\)"):
        law.join(torch.ones(3, dtype=DOUBLE), pieces, area=True)
    with pytest.raises(ValueError, match=r"levy=Levy\.H"):
        law.join(torch.ones(3, dtype=DOUBLE), Increment(normals(3, 2, 4)), area=True)


def test_per_sample_lengths_join_like_each_sample_alone() -> None:
    lengths = torch.rand(4, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    pieces = Increment(*normals(3, 4, 5, 2))
    together = law.join(lengths[..., None], pieces)
    for i in range(5):
        alone = law.join(
            lengths[:, i], Increment(*(x[:, i : i + 1] for x in (pieces.W, pieces.H, pieces.K) if x is not None))
        )
        for name in "WHK":
            assert np.allclose(getattr(alone, name)[0], getattr(together, name)[i], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("levy", list(Levy))
def test_a_level_gives_its_terms_only(levy: Levy) -> None:
    i = Increment(*normals(3, 2, 2), A=normals(2, 2, 2))
    chosen = law.selected(i, levy, torch.float32)
    present = {name for name in "WHKA" if getattr(chosen, name) is not None}
    assert present == {Levy.W: set("W"), Levy.H: set("WH"), Levy.K: set("WHK"), Levy.AREA: set("WHA")}[levy]
    assert chosen.W.dtype is torch.float32
