import numpy as np
import pytest
import torch
from scipy import linalg

from sdekit.moments import Moments
from sdekit_generative.metrics import feature_moments, frechet_distance
from sdekit_generative.metrics.frechet import gaussian_distance


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


def test_it_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = (torch.randn(90, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    parts = [(x.mean(0), torch.cov(x.T)) for x in (a, 0.3 + b @ torch.randn(6, 6, dtype=torch.float64).tril())]
    theirs = fid._compute_fid(*parts[0], *parts[1])
    assert gaussian_distance(*parts[0], *parts[1]) == pytest.approx(float(theirs), rel=1e-9)


@pytest.mark.parametrize("n", [3, 10, 400])
def test_a_set_is_at_no_distance_from_itself_even_where_its_covariance_is_singular(n):
    features = 5.0 * torch.randn(n, 256, generator=torch.Generator().manual_seed(0))
    features[:, 5] = 0.0
    assert frechet_distance(features, features) < 1e-9 * float(feature_moments(features).variance.sum())


def test_few_samples_of_many_features_have_the_distance_that_their_own_span_gives():
    """Singular covariances: tr (C₁C₂)^½ is the nuclear norm of the product of the centred samples, found there directly."""
    a, b = (torch.randn(n, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (12, 20))
    x, y = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (a, b))
    expected = (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum()
    expected = float(expected - 2.0 * torch.linalg.svdvals(x @ y.T).sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_moments_of_parts_stand_for_the_whole():
    a, b = (torch.randn(200, 8, generator=torch.Generator().manual_seed(i)) + 50.0 for i in range(2))
    parts = Moments.merged(feature_moments(part) for part in a.split(33))
    assert frechet_distance(parts, b) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_two_sets_of_one_law_are_apart_by_what_the_docstring_says():
    n, generator = 400, torch.Generator().manual_seed(0)
    distances = [
        frechet_distance(*(torch.randn(n, 8, dtype=torch.float64, generator=generator) for _ in range(2)))
        for _ in range(20)
    ]
    # of means alone: tr(C) 2/n; of covariances another part of the same order
    assert 1.0 < np.mean(distances) / (8 * 2 / n) < 4.0


def test_sets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 samples or more"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="a: the features of 2 of 5 images are not finite"):
        frechet_distance(torch.tensor([[0.0], [np.nan], [1.0], [np.inf], [2.0]]), torch.zeros(5, 1))
    with pytest.raises(ValueError, match="as many features in both, got 3 and 4"):
        frechet_distance(torch.zeros(5, 3), torch.zeros(5, 4))
