import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdekit.moments import Moments


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.sampled_from([0.0, 1e8]))
def test_parts_in_any_number_have_the_moments_of_the_whole(sizes, offset):
    x = torch.randn(sum(sizes) + 1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + offset
    parts = x.split([*sizes, 1])
    plain = Moments.merged(Moments.of(part) for part in parts)
    full = Moments.merged(Moments.of(part, full=True) for part in reversed(parts))
    rounding = 1e-12 + 4e-16 * offset
    torch.testing.assert_close(plain.mean, x.mean(0), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(plain.variance, x.var(0), rtol=1e-10 + rounding, atol=rounding)
    torch.testing.assert_close(full.variance, x.var(0), rtol=1e-10 + rounding, atol=rounding)
    torch.testing.assert_close(full.covariance, torch.cov(x.flatten(1).T), rtol=1e-9, atol=max(1e-12, rounding))
    torch.testing.assert_close(plain.standard_error, x.std(0) / len(x) ** 0.5, rtol=1e-8, atol=rounding)
    assert plain.count == len(x)


def test_a_mean_large_against_the_spread_costs_no_digits_of_the_spread():
    """Sums of squares would leave none: 1e8² has no place for a variance of 1 in float64."""
    x = torch.randn(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = Moments.merged(Moments.of(part + 1e8) for part in x.split(7))
    assert float(found.variance) == pytest.approx(float(x.var()), rel=1e-6)


def test_moments_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match=r"samples is empty, shape \(0, 3\)"):
        Moments.of(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="2 samples or more, got 1"):
        _ = Moments.of(torch.zeros(1, 3)).variance
    with pytest.raises(ValueError, match="full=True"):
        _ = Moments.of(torch.zeros(2, 3)).covariance
    with pytest.raises(ValueError, match="do not go together"):
        Moments.of(torch.zeros(2, 3)).merge(Moments.of(torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="do not go together"):
        Moments.of(torch.zeros(2, 3)).merge(Moments.of(torch.zeros(2, 3), full=True))
