import math

import pytest
import torch

from sdekit_generative.metrics import kernel_distance
from sdekit_generative.metrics.kernel import _deal, discrepancy


def _normal(n: int, features: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, features, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def test_it_agrees_with_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = _normal(60, 7, 0), _normal(60, 7, 1, 0.3)
    assert float(discrepancy(x, y)) == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-12)
    found = kernel_distance(x, y, subsets=1, size=60)
    assert found.mean == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-12)


def test_its_mean_is_the_closed_form_of_two_normal_laws():
    """With F = 1 and k = (xy + 1)³ = Σ c_j x^j y^j, c = (1, 3, 3, 1): d² = Σ c_j (E x^j − E y^j)²."""
    n, shift = 40_000, 0.7
    found = kernel_distance(_normal(n, 1, 0), _normal(n, 1, 1, shift), subsets=40, size=1000)
    moments = {1: shift, 2: shift**2, 3: shift**3 + 3 * shift}
    exact = 3 * moments[1] ** 2 + 3 * moments[2] ** 2 + moments[3] ** 2
    assert abs(found.mean - exact) < 4 * found.standard_error
    assert found.standard_error < 0.05 * exact


def test_it_is_unbiased_whatever_the_size_of_a_subset_and_its_standard_error_is_its_spread():
    """200 repetitions on equal laws: the mean is 0, and the errors given match the spread seen."""
    found = [kernel_distance(_normal(120, 4, 2 * i), _normal(120, 4, 2 * i + 1), 6, 20) for i in range(200)]
    means = torch.tensor([f.mean for f in found], dtype=torch.float64)
    errors = torch.tensor([f.standard_error for f in found], dtype=torch.float64)
    assert abs(float(means.mean())) < 3 * float(means.std()) / math.sqrt(200)
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(means.std()), rel=0.2)


def test_subsets_of_a_deal_have_nothing_in_common_and_sets_do_not_share_their_shuffle():
    dealt, others = ([next(deal) for _ in range(20)] for deal in (_deal(103, 10, 0), _deal(103, 10, 1)))
    for deal in (dealt[:10], dealt[10:]):
        assert len(torch.cat(deal).unique()) == 100
    # the same packs for both sets would pair every sample with itself
    assert int((torch.cat(dealt) == torch.cat(others)).sum()) < 20
    x = _normal(100, 3, 0)
    same = kernel_distance(x, x, subsets=10, size=10)
    assert len(set(same.per_subset.tolist())) == 10
    assert kernel_distance(x, x, 10, 10).mean == same.mean
    assert kernel_distance(x, x, 10, 10, seed=1).mean != same.mean


def test_few_samples_are_cut_to_fit_and_too_few_refused():
    found = kernel_distance(_normal(7, 3, 0), _normal(50, 3, 1), subsets=3, size=1000)
    assert math.isfinite(found.mean)
    assert math.isnan(found.standard_error)
    assert math.isfinite(kernel_distance(_normal(7, 3, 0), _normal(50, 3, 1), subsets=3).standard_error)
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance(_normal(7, 3, 0), _normal(50, 3, 1) * math.nan)
    with pytest.raises(ValueError, match="2 or more images each, got 1 and 50"):
        kernel_distance(_normal(1, 3, 0), _normal(50, 3, 1))
    with pytest.raises(ValueError, match="as many features in both, got 3 and 4"):
        kernel_distance(_normal(5, 3, 0), _normal(5, 4, 1))
