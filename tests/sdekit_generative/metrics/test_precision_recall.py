import math
import sys

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sdekit_generative.metrics import precision_recall

module = sys.modules[precision_recall.__module__]


def _normal(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)) + 100.0


def _by_scikit_learn(points: np.ndarray, manifold: np.ndarray, k: int) -> float:
    radii = NearestNeighbors(n_neighbors=k + 1).fit(manifold).kneighbors(manifold)[0][:, -1]
    distances = np.linalg.norm(points[:, None] - manifold[None], axis=2)
    return float((distances <= radii).any(1).mean())


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("pairs", [1 << 24, 1000])
def test_it_agrees_with_neighbours_found_by_scikit_learn(k, pairs, monkeypatch):
    monkeypatch.setattr(module, "_PAIRS", pairs)
    real, fake = _normal(150, 0), _normal(90, 1, scale=0.7)
    found = precision_recall(real, fake, neighbours=k)
    x, y = real.double().numpy(), fake.double().numpy()
    assert found.precision == pytest.approx(_by_scikit_learn(y, x, k))
    assert found.recall == pytest.approx(_by_scikit_learn(x, y, k))
    assert found.recall < found.precision


def test_a_line_of_points_has_the_shares_that_one_counts():
    """Neighbours are 1 apart: balls of radius 1 about 0 … 9 cover [−1, 10]."""
    real = torch.arange(10.0)[:, None]
    fake = torch.tensor([[0.5], [9.9], [11.0], [-5.0]])
    found = precision_recall(real, fake, neighbours=1)
    assert found.precision == 0.5
    # balls of the generated: radius 1.1 about 9.9 and 11, 5.5 about −5, 5.5 about 0.5 (reaching 6)
    assert found.recall == pytest.approx(8 / 10)


def test_a_set_covers_itself_and_copies_count_as_neighbours():
    x = _normal(40, 0)
    found = precision_recall(x, x)
    assert (found.precision, found.recall) == (1.0, 1.0)
    copies = x[:1].repeat(10, 1)
    assert precision_recall(x, copies).precision == 1.0
    assert precision_recall(x, copies).recall == pytest.approx(1 / 40)
    assert precision_recall(x, x + 1e6).recall == 0.0


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="4 or more images of each set, got 3 and 50"):
        precision_recall(_normal(3, 0), _normal(50, 1))
    with pytest.raises(ValueError, match="not finite"):
        precision_recall(_normal(9, 0), _normal(9, 1) * math.nan)
    with pytest.raises(ValueError, match=r"as many features in both, got 5 and 4"):
        precision_recall(_normal(9, 0), _normal(9, 1)[:, :4])
