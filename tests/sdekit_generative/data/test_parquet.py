import io

import numpy as np
import pytest
from PIL import Image

from sdekit_generative.data import Parquet, source_of
from sdekit_generative.errors import DataError, DataWarning

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def _encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 9, 9, 3), dtype=np.uint8)


def _write(file, images, labels=None, name="image"):
    columns = {name: [{"bytes": image, "path": None} for image in images]}
    if labels is not None:
        columns["label"] = labels
    pq.write_table(pa.table(columns), file)


def test_shards_are_read_in_order_with_labels_and_split(tmp_path, pixels):
    encoded = [_encoded(p) for p in pixels]
    _write(tmp_path / "train-00000-of-00002.parquet", encoded[:3], [0, 1, 2])
    _write(tmp_path / "train-00001-of-00002.parquet", encoded[3:5], [3, 4])
    _write(tmp_path / "test-00000-of-00001.parquet", encoded[5:], [5, 6])
    source = source_of(tmp_path)
    assert isinstance(source, Parquet)
    training, held_out = source.load().split()
    assert np.array_equal(training.images.numpy(), pixels[:5].transpose(0, 3, 1, 2))
    assert np.array_equal(held_out.images.numpy(), pixels[5:].transpose(0, 3, 1, 2))
    assert (training.labels.tolist(), held_out.labels.tolist()) == ([0, 1, 2, 3, 4], [5, 6])


def test_plain_bytes_and_other_columns_are_read_too(tmp_path, pixels):
    pq.write_table(pa.table({"img": [_encoded(p) for p in pixels]}), tmp_path / "a.parquet")
    data = Parquet(str(tmp_path / "a.parquet"), image="img", size=4).load()
    assert data.images.shape == (7, 3, 4, 4)
    assert data.labels is None


def test_a_broken_image_is_named_by_its_row_and_stops_or_is_left_out(tmp_path, pixels):
    encoded = [_encoded(p) for p in pixels]
    encoded[4] = b"no image"
    _write(tmp_path / "a.parquet", encoded, list(range(7)))
    with pytest.raises(DataError, match=r"a\.parquet, row 4: not an image"):
        Parquet(str(tmp_path)).load()
    with pytest.warns(DataWarning, match="row 4"):
        data = Parquet(str(tmp_path), broken="skip").load()
    assert data.labels.tolist() == [0, 1, 2, 3, 5, 6]


def test_files_that_are_not_what_they_seem_are_named(tmp_path, pixels):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
        Parquet(str(tmp_path)).load()
    _write(tmp_path / "a.parquet", [_encoded(pixels[0])], name="picture")
    with pytest.raises(DataError, match="no column image; there are picture"):
        Parquet(str(tmp_path)).load()
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 0: expected an encoded image, got int"):
        Parquet(str(tmp_path)).load()
    with pytest.raises(DataError, match="no such"):
        Parquet(str(tmp_path / "absent")).load()
