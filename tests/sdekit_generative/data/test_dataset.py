import pytest
import torch

from sdekit_generative.data import Dataset, Digits, permutation
from sdekit_generative.errors import DataError


def test_the_split_is_the_same_for_ever_and_loses_no_image():
    training, held_out = Digits().load().split()
    assert (len(training), len(held_out)) == (1497, 300)
    everything = torch.cat([training.images, held_out.images]).flatten(1)
    assert len(everything.unique(dim=0)) == len(Digits().load().images.flatten(1).unique(dim=0))
    # pinned: every published figure is about these held-out images
    assert held_out.fingerprint()[:16] == "ea581c3807a1a63c"


def test_labels_stay_with_their_images_through_the_split():
    data = Digits().load()
    key = {image.numpy().tobytes(): int(label) for image, label in zip(data.images, data.labels, strict=True)}
    for part in data.split():
        assert all(key[i.numpy().tobytes()] == int(label) for i, label in zip(part.images, part.labels, strict=True))


def test_a_permutation_depends_on_seed_and_epoch_only():
    assert torch.equal(permutation(50, 3, 7), permutation(50, 3, 7))
    assert not torch.equal(permutation(50, 3, 7), permutation(50, 3, 8))
    assert not torch.equal(permutation(50, 3, 7), permutation(50, 4, 7))
    assert torch.equal(permutation(50, 3, 7).sort().values, torch.arange(50))


def test_a_fingerprint_notices_one_changed_pixel():
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    before = Dataset(images).fingerprint()
    images[2, 0, 3, 3] = 1
    assert Dataset(images).fingerprint() != before


@pytest.mark.parametrize(
    ("images", "levels", "labels", "said"),
    [
        (torch.zeros(2, 1, 4, 4), 256, None, "uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), 256, None, "N, C, H, W"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), 256, None, "none"),
        (torch.full((2, 1, 4, 4), 17, dtype=torch.uint8), 17, None, "levels"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 17, torch.zeros(3), "labels"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_a_reason(images, levels, labels, said):
    with pytest.raises(DataError, match=said):
        Dataset(images, levels, labels)


def test_a_single_image_cannot_be_split():
    with pytest.raises(DataError, match="too few"):
        Dataset(torch.zeros(1, 1, 4, 4, dtype=torch.uint8)).split()


def test_labels_count_in_the_fingerprint_where_they_are_told():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    one, other = Dataset(images, labels=torch.tensor([0, 1])), Dataset(images, labels=torch.tensor([1, 0]))
    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint(labelled=True) != other.fingerprint(labelled=True)
    assert Dataset(images).fingerprint(labelled=True) == Dataset(images).fingerprint()
