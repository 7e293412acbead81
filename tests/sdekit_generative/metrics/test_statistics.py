import json

import numpy as np
import pytest
import torch

from sdekit_generative.data import Digits
from sdekit_generative.errors import DataError
from sdekit_generative.metrics import (
    Collected,
    DigitFeatures,
    FeatureModule,
    Features,
    Statistics,
    digit_features,
    feature_moments,
    frechet_distance,
    measure_images,
)

DIGITS = Digits().load()
FEATURES = digit_features(DIGITS.images)


def test_statistics_of_images_in_parts_are_those_of_the_whole_and_say_where_they_are_from():
    found = measure_images(DIGITS, DigitFeatures(), source="digits", keep=True, batch=100)
    torch.testing.assert_close(found.mean, FEATURES.double().mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.covariance, torch.cov(FEATURES.double().T), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.features, FEATURES, rtol=1e-5, atol=1e-5)
    assert found.provenance["images"] == {
        "source": "digits",
        "count": 1797,
        "shape": [1, 8, 8],
        "levels": 17,
        "sha256": DIGITS.fingerprint(),
    }
    assert found.provenance["features"] == dict(DigitFeatures().about)
    other = feature_moments(FEATURES[:300])
    assert found.distance(other) == pytest.approx(frechet_distance(FEATURES, FEATURES[:300]), rel=1e-6)


@pytest.mark.parametrize("keep", [True, False])
def test_a_file_gives_back_what_was_saved(keep, tmp_path):
    saved = measure_images(DIGITS, DigitFeatures(), keep=keep)
    saved.save(tmp_path / "there" / "stats.npz")
    loaded = Statistics.load(tmp_path / "there" / "stats.npz")
    assert torch.equal(loaded.mean, saved.mean)
    assert torch.equal(loaded.covariance, saved.covariance)
    assert loaded.provenance == saved.provenance
    assert (loaded.features is None) == (not keep)
    loaded.check(DigitFeatures())
    with np.load(tmp_path / "there" / "stats.npz") as plain:  # as other packages read it
        assert plain["mu"].shape == (32,)
        assert plain["sigma"].shape == (32, 32)
        assert json.loads(str(plain["provenance"]))["images"]["count"] == 1797


def test_files_of_other_packages_are_taken(tmp_path):
    mean, covariance = FEATURES.double().mean(0).numpy(), np.cov(FEATURES.double().numpy().T)
    np.savez(tmp_path / "usual.npz", mu=mean, sigma=covariance)
    usual = Statistics.load(tmp_path / "usual.npz")
    usual.check(DigitFeatures())
    assert usual.provenance == {}
    np.savez(tmp_path / "pool.npz", pool_3=FEATURES.numpy(), logits=np.zeros((1797, 10)))
    pool = Statistics.load(tmp_path / "pool.npz")
    torch.testing.assert_close(pool.covariance, usual.covariance, rtol=1e-9, atol=1e-12)
    assert pool.features is not None


def test_statistics_of_another_network_are_refused_and_it_is_said_what_differs():
    found = measure_images(DIGITS, DigitFeatures())
    other = FeatureModule(torch.nn.Flatten(), "flat")
    with pytest.raises(
        DataError, match=r"made with network digit-class.*, but the feature network here is network flat"
    ):
        found.check(other, "stats.npz")


def test_a_file_that_is_not_statistics_is_refused_by_name(tmp_path):
    def refused(what: str, **arrays: object) -> None:
        np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=rf"x\.npz: {what}"):
            Statistics.load(tmp_path / "x.npz")

    eye = np.eye(3)
    refused("expected mu and sigma in it, found images", images=np.zeros(3))
    refused("mu .3,. and sigma .4, 4. do not fit", mu=np.zeros(3), sigma=np.eye(4))
    refused("mu or sigma hold numbers that are not finite", mu=np.zeros(3), sigma=eye * np.nan)
    refused("sigma is not symmetric", mu=np.zeros(3), sigma=eye + np.triu(np.ones((3, 3))))
    refused("its provenance is not JSON", mu=np.zeros(3), sigma=eye, provenance=np.array("{"))
    (tmp_path / "y.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"y\.npz: not a readable"):
        Statistics.load(tmp_path / "y.npz")
    with pytest.raises(DataError, match=r"z\.npz: there is no such file"):
        Statistics.load(tmp_path / "z.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"s\.npz: cannot be written \("):
        measure_images(DIGITS, DigitFeatures()).save(tmp_path / "file" / "s.npz")
    with pytest.raises(DataError, match="2 images or more, got 1"):
        measure_images(DIGITS.select(torch.tensor([0])), DigitFeatures())


_SHARED = """
from sdekit.processes import Processes
from sdekit_generative.data import Digits
from sdekit_generative.metrics import DigitFeatures, measure_images
found = measure_images(Digits().load().split()[1], DigitFeatures(), keep=True, group=Processes.current())
print(float(found.mean.sum()), float(found.covariance.square().sum()), float(found.features.double()[7].sum()))
"""


@pytest.mark.slow
def test_processes_that_share_the_work_find_what_one_finds(launch):
    alone, *_ = launch(_SHARED, 1)
    one, two = launch(_SHARED, 2)
    assert one == two
    assert [float(x) for x in one.split()] == pytest.approx([float(x) for x in alone.split()], rel=1e-9)


def test_what_parts_have_collected_is_what_the_whole_would_have():
    whole, parts = Collected(keep=True), [Collected(keep=True) for _ in range(3)]
    whole.add(Features(FEATURES, None))
    for part, some in zip(parts, FEATURES.split(600), strict=True):
        part.add(Features(some, None))
    for part in parts[1:]:
        parts[0].merge(part)
    torch.testing.assert_close(parts[0].moments.covariance, whole.moments.covariance, rtol=1e-9, atol=1e-12)
    assert torch.equal(parts[0].features, FEATURES)
