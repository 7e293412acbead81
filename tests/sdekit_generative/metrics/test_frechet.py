import numpy as np
import pytest
import torch
from scipy import linalg

from sdekit_generative.metrics import frechet_distance


def _with_moments(mean: torch.Tensor, covariance: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """Features n whose sample mean and covariance are exactly these."""
    z = torch.randn(n, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    return z @ torch.linalg.cholesky(covariance).T + mean


def test_gaussians_with_commuting_covariances_have_the_closed_form():
    """‖μ₁ − μ₂‖² + Σ (√λ₁ − √λ₂)²."""
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 0.25, 1.0]).double()
    shift = torch.tensor([0.5, -1.0, 2.0]).double()
    first = _with_moments(torch.zeros(3).double(), a.diag(), 50, 0)
    second = _with_moments(shift, b.diag(), 80, 1)
    expected = float(shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_it_agrees_with_the_matrix_root_of_scipy():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(200, 6, dtype=torch.float64, generator=generator) @ torch.randn(6, 6).double() for _ in range(2)
    )
    root = linalg.sqrtm(torch.cov(a.T).numpy() @ torch.cov(b.T).numpy()).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + float(
        np.trace(torch.cov(a.T).numpy() + torch.cov(b.T).numpy() - 2 * root)
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_a_set_is_at_no_distance_from_itself_even_where_its_covariance_is_singular():
    features = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
    features[:, 5] = 0.0
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-5)


def test_two_sets_of_one_law_are_apart_by_what_the_docstring_says():
    n, generator = 400, torch.Generator().manual_seed(0)
    distances = [
        frechet_distance(*(torch.randn(n, 8, dtype=torch.float64, generator=generator) for _ in range(2)))
        for _ in range(20)
    ]
    # of means alone: tr(C) 2/n; of covariances another part of the same order
    assert 1.0 < np.mean(distances) / (8 * 2 / n) < 4.0


def test_sets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 or more"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="3 and 4 features"):
        frechet_distance(torch.zeros(5, 3), torch.zeros(5, 4))
