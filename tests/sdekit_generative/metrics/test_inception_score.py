import math
import warnings

import pytest
import torch

from sdekit_generative.metrics import inception_score

LOGITS = 3.0 * torch.randn(101, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_certain_images_of_every_class_score_the_number_of_classes_and_uncertain_ones_score_one():
    certain = 1e4 * torch.eye(7).repeat(10, 1)
    assert inception_score(certain, splits=1).mean == pytest.approx(7.0, rel=1e-12)
    assert inception_score(certain[:1].repeat(20, 1)).mean == pytest.approx(1.0, rel=1e-12)
    assert inception_score(torch.zeros(20, 7)).mean == pytest.approx(1.0, rel=1e-12)


def test_images_of_two_kinds_have_the_closed_form():
    """Half of the images say (p, 1 − p), half the reverse: KL is ln 2 − H(p)."""
    p = 0.8
    rows = torch.tensor([[p, 1 - p], [1 - p, p]], dtype=torch.float64).log().repeat(5, 1)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert inception_score(rows, splits=1).mean == pytest.approx(2.0 * math.exp(-entropy), rel=1e-12)


def test_it_agrees_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.image.inception")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what it keeps in memory
        metric = theirs.InceptionScore(feature=torch.nn.Flatten(), splits=1)
        metric.features = [LOGITS]
        metric._update_count = 1
        mean, _ = metric.compute()
    assert inception_score(LOGITS, splits=1).mean == pytest.approx(float(mean), rel=1e-9)


def test_splits_are_scored_alone():
    found = inception_score(LOGITS, splits=4)
    alone = [inception_score(part, splits=1).mean for part in LOGITS.tensor_split(4)]
    assert found.per_split.tolist() == pytest.approx(alone, rel=1e-12)
    assert found.mean == pytest.approx(sum(alone) / 4)
    assert found.std == pytest.approx(math.sqrt(sum((a - found.mean) ** 2 for a in alone) / 4))


def test_scores_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="at least one image a split"):
        inception_score(torch.zeros(9, 3))
    with pytest.raises(ValueError, match="not finite"):
        inception_score(torch.full((20, 3), math.nan))
