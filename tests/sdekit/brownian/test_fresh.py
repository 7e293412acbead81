"""Fresh increments: their law, and the path inside a step."""

from __future__ import annotations

import math

import pytest
import torch

from sdekit.brownian import FreshIncrements
from sdekit.brownian import levy as law
from sdekit.errors import Incompatible
from sdekit.protocols import Increment, Levy, Span
from sdekit.random import KeyedDraws, Purpose, Replay

from .paths import covariance, deviation, integrated, span

DOUBLE = torch.float64


def path(seed: int = 0, first: int = 0, **more) -> FreshIncrements:
    return FreshIncrements(KeyedDraws(seed, first), **more)


def like(*shape: int, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype)


@pytest.mark.parametrize("levy", [Levy.W, Levy.H, Levy.K])
def test_steps_have_the_law_of_adjacent_intervals(levy: Levy) -> None:
    count, p, x = law.terms(levy), path(), like(50_000, 1)
    steps = [(0.0, 0.5), (0.5, 0.75)]
    found = [p.increment(span(a, b, k), x, levy) for k, (a, b) in enumerate(steps)]
    samples = torch.stack([getattr(i, n)[:, 0] for i in found for n in "WHK"[:count]], 1)
    assert deviation(samples, covariance(steps, count)) < 4.0


@pytest.mark.parametrize("levy", [Levy.W, Levy.H, Levy.K])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_parts_of_a_step_have_the_joint_law_of_the_path(levy: Levy, backwards: bool, together: bool) -> None:
    count, p, x = law.terms(levy), path(together=together), like(50_000, 1)
    sign = -1.0 if backwards else 1.0
    step = span(0.0, sign * 0.5, 3)
    whole = p.increment(step, x, levy)
    cuts = (0.3, 0.1, 1 / 3)
    parts = [p.part(step, span(0.0, sign * c), whole, x, levy) for c in cuts]
    # along the direction of travel the increments are those of a path that starts at the step's beginning
    exact = covariance([*((0.0, c) for c in cuts), (0.0, 0.5)], count)
    samples = torch.stack([getattr(i, n)[:, 0] for i in [*parts, whole] for n in "WHK"[:count]], 1)
    assert deviation(samples, exact) < 4.0


def test_the_variance_is_right_at_times_between_steps() -> None:
    p, x = path(), like(40_000, 1)
    w, t = torch.zeros(40_000, 1, dtype=DOUBLE), 0.0
    for k in range(2):
        step = span(t, t + 0.25, k)
        whole = p.increment(step, x, Levy.W)
        for inner in (0.05, 0.125, 0.2):
            value = w + p.part(step, span(t, t + inner, k), whole, x, Levy.W).W
            assert abs(float(value.square().mean()) / (t + inner) - 1) < 4 * math.sqrt(2 / 40_000)
        w, t = w + whole.W, t + 0.25


@pytest.mark.parametrize("levy", [Levy.W, Levy.H, Levy.K])
def test_a_cut_that_was_asked_before_is_given_again(levy: Levy) -> None:
    x, step, p = like(4, 2, 3), span(1.0, 2.0, 7), path(together=True)
    whole = p.increment(step, x, levy)
    found = [p.part(step, span(1.0, t, 7), whole, x, levy) for t in (1.4, 1.1, 1.9, 1.4)]
    for name in "WHK"[: law.terms(levy)]:
        torch.testing.assert_close(getattr(found[-1], name), getattr(found[0], name), rtol=1e-12, atol=1e-14)
    fresh = path(together=True)
    again = fresh.part(step, span(1.0, 1.4, 7), fresh.increment(step, x, levy), x, levy)
    assert torch.equal(again.W, found[0].W)


def test_bridges_of_a_step_depend_on_the_sample_alone() -> None:
    step, cuts = span(0.0, 0.5, 3), (0.2, 0.4, 0.3)

    def parts(count: int, first: int) -> torch.Tensor:
        p, x = path(first=first, together=True), like(count, 3)
        whole = p.increment(step, x, Levy.H)
        return torch.stack([p.part(step, span(0.0, t), whole, x, Levy.H).W for t in cuts])

    assert torch.equal(parts(6, 0)[:, 2:5], parts(3, 2))


def test_a_part_does_not_depend_on_what_else_is_asked() -> None:
    x, step = like(4, 2, 3), span(1.0, 2.0, 7)
    lonely, busy = path(), path()
    whole = lonely.increment(step, x, Levy.H)
    alone = lonely.part(step, span(1.0, 1.4, 7), whole, x, Levy.H)
    for t in (1.1, 1.9, 1.4000001, 1.39):
        busy.part(step, span(1.0, t, 7), whole, x, Levy.H)
    again = busy.part(step, span(1.0, 1.4, 7), whole, x, Levy.H)
    assert torch.equal(alone.W, again.W)


@pytest.mark.parametrize("together", [False, True])
def test_parts_at_the_ends_are_nothing_and_the_whole(together: bool) -> None:
    for levy in Levy:
        x, step, p = like(4, 2), span(0.0, 0.25, 7), path(together=together)
        whole = p.increment(step, x, levy)
        for name in "WHKA":
            if getattr(whole, name) is not None:
                full = p.part(step, span(0.0, 0.25, 7), whole, x, levy)
                assert float((getattr(full, name) - getattr(whole, name)).abs().max()) < 1e-15
                assert not getattr(p.part(step, span(0.0, 0.0, 7), whole, x, levy), name).any()


def test_part_and_rest_join_to_the_step() -> None:
    x, step, p = like(4, 2), span(0.0, 1.0, 2), path()
    whole = p.increment(step, x, Levy.K)
    first, second = (p.part(step, span(0.0, t, 2), whole, x, Levy.K) for t in (0.3, 0.7))
    # the increment over [0.3, 0.7] follows from both parts, and must have the right size
    middle = second.W - first.W
    assert first.K is not None
    assert float(middle.abs().max()) < 4 * math.sqrt(0.4)
    near = p.part(step, span(0.0, 1.0 - 1e-9, 2), whole, x, Levy.K)
    assert float((near.W - whole.W).abs().max()) < 6 * math.sqrt(1e-9)


def test_times_of_each_sample_give_what_each_has_alone() -> None:
    x = like(5, 2)
    step = span(torch.zeros(5, 1), torch.full((5, 1), 0.5), torch.arange(5))
    p = path()
    for levy in Levy:
        whole = p.increment(step, x, levy)
        ends = torch.tensor([[0.1], [0.5], [0.0], [0.25], [0.49]], dtype=DOUBLE)
        parts = p.part(step, span(torch.zeros(5, 1), ends, torch.arange(5)), whole, x, levy)
        for k in range(5):
            q = path(first=k)
            one = span(torch.zeros(1, 1), torch.full((1, 1), 0.5), torch.tensor([k]))
            alone = q.increment(one, like(1, 2), levy)
            part = q.part(one, span(torch.zeros(1, 1), ends[k : k + 1], torch.tensor([k])), alone, like(1, 2), levy)
            for a, b, c, d in ((whole.W, alone.W, parts.W, part.W), (whole.A, alone.A, parts.A, part.A)):
                if a is not None and b is not None and c is not None and d is not None:
                    assert torch.allclose(a[k], b[0], rtol=1e-13, atol=1e-14)
                    assert torch.allclose(c[k], d[0], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("levy", list(Levy))
def test_values_depend_on_the_sample_alone(levy: Levy) -> None:
    step = span(0.0, 0.5, 9)
    p, q = path(), path(first=60)
    wide, late = p.increment(step, like(64, 3), levy), q.increment(step, like(4, 3), levy)
    assert torch.equal(wide.W[60:], late.W)
    a = p.part(step, span(0.0, 0.3), wide, like(64, 3), levy)
    b = q.part(step, span(0.0, 0.3), late, like(4, 3), levy)
    assert torch.equal(a.W[60:], b.W)


def test_step_sizes_may_be_floats_or_tensors_and_keep_the_dtype() -> None:
    p = path()
    zero = torch.zeros((), dtype=DOUBLE)
    for h in (0.25, torch.tensor(0.25, dtype=DOUBLE), torch.full((3, 1), 0.25), -0.25):
        i = p.increment(Span(zero, zero + 0.25, h, 4), like(3, 2, dtype=torch.float32), Levy.K)
        assert i.W.dtype is torch.float32
        assert torch.allclose(
            i.W, p.increment(span(0.0, 0.25, 4), like(3, 2, dtype=torch.float32), Levy.W).W, rtol=1e-6
        )


@pytest.mark.parametrize("rate", [1.0, 16.0])
def test_the_area_has_variance_h_squared_over_four_less_its_stated_error(rate: float) -> None:
    h, batch = 0.25, 10_000
    n = math.ceil(rate / h)
    i = path(area_rate=rate).increment(span(0.0, h, 1), like(batch, 2), Levy.AREA)
    assert i.A is not None
    assert i.H is not None
    a = i.A[:, 0, 1]
    expected = h * h * (1 / 4 - 1 / (12 * n))
    assert abs(float(a.square().mean()) - expected) < 4 * float(a.square().std()) / math.sqrt(batch)
    assert abs(float(a.mean())) < 4 * float(a.std()) / math.sqrt(batch)
    mean = i.H[:, 0] * i.W[:, 1] - i.W[:, 0] * i.H[:, 1]
    # the regression of A on its conditional mean given W and H has slope one
    assert abs(float((a * mean).mean() / mean.square().mean()) - 1) < 4 * float((a - mean).std()) / float(
        mean.std()
    ) / math.sqrt(batch)
    assert torch.equal(i.A, -i.A.transpose(1, 2))


def test_the_area_of_a_part_and_of_the_rest_make_that_of_the_step() -> None:
    h, batch = 0.25, 4000
    p, x, step = path(area_rate=8.0), like(batch, 2), span(0.0, h, 1)
    whole = p.increment(step, x, Levy.AREA)
    for cut in (h / 2, 0.3 * h):
        part = p.part(step, span(0.0, cut, 1), whole, x, Levy.AREA)
        assert part.A is not None
        n = 32
        error = cut * (h / n) / 12 + (h / n) ** 2 / 12
        assert abs(float(part.A[:, 0, 1].square().mean()) - cut**2 / 4) < error + 4 * float(
            part.A[:, 0, 1].square().std()
        ) / math.sqrt(batch)
        w = torch.stack((part.W[:, 0], whole.W[:, 0]), 1)
        assert deviation(w, covariance([(0.0, cut), (0.0, h)], 1)) < 4.0


def test_more_pieces_are_taken_for_smaller_steps() -> None:
    from sdekit.brownian.area import MOST_PIECES, piece_lengths

    x = like(3, 2)
    assert len(piece_lengths(0.01, 1.0, x)) == 100
    assert len(piece_lengths(-4.0, 1.0, x)) == 1
    assert len(piece_lengths(1e-30, 1.0, x)) == MOST_PIECES
    assert piece_lengths(0.0, 1.0, x).sum() == 0
    own = piece_lengths(torch.tensor([[0.5], [0.0], [-0.1]], dtype=DOUBLE), 1.0, x)
    assert [(int((own[:, k] > 0).sum())) for k in range(3)] == [2, 0, 10]
    assert torch.allclose(own.sum(0), torch.tensor([[0.5], [0.0], [0.1]], dtype=DOUBLE))


def test_recorded_numbers_make_steps_and_refuse_parts() -> None:
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    p = FreshIncrements(Replay({Purpose.PATH: [z]}))
    step, x = span(0.0, 0.25, 0), like(2, 3, dtype=torch.float32)
    whole = p.increment(step, x, Levy.W)
    assert torch.equal(whole.W, z * 0.5)
    with pytest.raises(Incompatible, match="seed=<integer>"):
        p.part(step, span(0.0, 0.1, 0), whole, x, Levy.W)


def test_the_area_needs_dense_noise_and_a_positive_rate() -> None:
    with pytest.raises(Incompatible, match="Dense"):
        path().increment(span(0.0, 0.5), like(2, 3, 4), Levy.AREA)
    with pytest.raises(ValueError, match="area_rate"):
        path(area_rate=0.0)


def test_a_joined_step_is_the_integral_of_its_pieces() -> None:
    p, x, step = path(area_rate=16.0), like(5, 2), span(0.0, 0.25, 1)
    lengths, pieces = p._pieces(step, x)
    straight = law.join(lengths, Increment(pieces.W, torch.zeros_like(pieces.W)), area=True)
    by_hand = integrated(pieces.W, 0.25)
    assert straight.A is not None
    assert torch.allclose(straight.A, by_hand.A, atol=1e-14)  # pyright: ignore
