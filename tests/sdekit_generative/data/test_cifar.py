"""CIFAR-10 from its archive, and pickles that would like to do more than hold data."""

import contextlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sdekit_generative.data import Cifar10, source_of
from sdekit_generative.data.pickled import read_pickle
from sdekit_generative.errors import DataError


def _batch(n: int, seed: int, protocol: int = 2, changes: dict | None = None) -> bytes:
    generator = np.random.default_rng(seed)
    batch = {
        b"batch_label": b"batch",
        b"labels": generator.integers(0, 10, n).tolist(),
        b"data": generator.integers(0, 256, (n, 3072), dtype=np.uint8),
        b"filenames": [b"a.png"] * n,
    }
    return pickle.dumps({**batch, **(changes or {})}, protocol=protocol)


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    for i in (1, 2):
        (place / f"data_batch_{i}").write_bytes(_batch(6, i))
    (place / "test_batch").write_bytes(_batch(4, 3))
    (place / "batches.meta").write_bytes(b"not looked at")
    return place


def test_the_folder_and_the_archive_hold_the_same_images_labels_and_split(folder, tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    for path in (folder, archive):
        assert source_of(path) == Cifar10(str(path))
        data = Cifar10(str(path)).load()
        expected = np.concatenate([pickle.loads(_batch(6, i))[b"data"] for i in (1, 2)])
        training, held_out = data.split()
        assert training.shape == (3, 32, 32)
        assert np.array_equal(training.images.numpy(), expected.reshape(-1, 3, 32, 32))
        assert training.labels.tolist() == [n for i in (1, 2) for n in pickle.loads(_batch(6, i))[b"labels"]]
        assert np.array_equal(held_out.images.numpy().reshape(4, -1), pickle.loads(_batch(4, 3))[b"data"])


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_of_pickle_is_read(protocol):
    found = read_pickle(_batch(3, 0, protocol), "batch")
    assert np.array_equal(found["data"], pickle.loads(_batch(3, 0))[b"data"])
    assert found["filenames"] == [b"a.png"] * 3


def test_batches_as_python_2_wrote_them_are_read():
    """Text as bytes, and numpy under its old name."""
    data = pickle.dumps({"data": np.arange(6, dtype=np.uint8).reshape(2, 3, order="F")}, protocol=2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(read_pickle(old, "batch")["data"], np.arange(6).reshape(2, 3, order="F"))


class _Runs:
    def __init__(self, call, *arguments):
        self._reduced = call, arguments

    def __reduce__(self):
        return self._reduced


def _hostile(canary: Path) -> dict[str, bytes]:
    wanted = [
        _Runs(os.system, f"touch {canary}"),
        _Runs(eval, f"open({str(canary)!r}, 'w')"),
        _Runs(exec, f"open({str(canary)!r}, 'w')"),
        _Runs(open, str(canary), "w"),
        _Runs(np.load, str(canary)),
        _Runs(Path.touch, canary),
    ]
    pickles = {f"{i}-{p}": pickle.dumps({b"data": w}, protocol=p) for i, w in enumerate(wanted) for p in (0, 2, 5)}
    pickles["alone"] = pickle.dumps(wanted[0])
    pickles["global"] = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    pickles["stack global"] = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
    pickles["persistent"] = b"Psomething\n."
    pickles["extension"] = b"\x80\x02\x82\x01."
    pickles["nested name"] = b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93."
    pickles["build"] = b"\x80\x02cnumpy\nndarray\n)R}X\x01\x00\x00\x00aK\x01sb."
    pickles["state"] = b"\x80\x02cnumpy\ndtype\n(U\x02u1tRK\x05b."
    pickles["set item"] = b"\x80\x02cnumpy\nndarray\nK\x01K\x02s."
    return pickles


def test_no_pickle_runs_code_whatever_it_asks_for(tmp_path):
    canary = tmp_path / "canary"
    for name, content in _hostile(canary).items():
        with pytest.raises(DataError, match="not a pickle of arrays") as caught:
            read_pickle(content, "data_batch_1")
        assert "data_batch_1" in str(caught.value), name
        assert "\n" not in str(caught.value)
        assert not canary.exists(), name


@pytest.mark.parametrize(
    "value",
    [
        np.array([print], dtype=object),
        np.array(["text"]),
        np.zeros(3, dtype=[("a", "u1")]),
        {1, 2},
        np.uint8,
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(value):
    with pytest.raises(DataError, match="not a pickle of arrays"):
        read_pickle(pickle.dumps({b"data": value}, protocol=2), "batch")


def test_mutated_batches_are_refused_or_read_but_never_crash(tmp_path):
    whole, generator = _batch(2, 0), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in generator.integers(0, min(len(content), 400), 2):
            content[place] = int(generator.integers(256))
        with contextlib.suppress(DataError):
            read_pickle(bytes(content), "batch")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({b"data": np.zeros((2, 3071), dtype=np.uint8)}, "uint8 \\(N, 3072\\)"),
        ({b"data": np.zeros((2, 3072))}, "uint8 \\(N, 3072\\)"),
        ({b"labels": [0]}, "one for each of 2"),
        ({b"labels": [0, 10]}, "from 0 to 9"),
        ({b"labels": [True, False]}, "from 0 to 9"),
    ],
)
def test_batches_of_another_kind_are_refused_by_name(tmp_path, changes, said):
    (tmp_path / "data_batch_1").write_bytes(_batch(2, 0, changes=changes))
    with pytest.raises(DataError, match=f"data_batch_1: expected .*{said}"):
        Cifar10(str(tmp_path)).load()


def test_places_without_batches_are_refused(tmp_path):
    with pytest.raises(DataError, match="no CIFAR-10 batches"):
        Cifar10(str(tmp_path)).load()
    with pytest.raises(DataError, match="no such"):
        Cifar10(str(tmp_path / "absent.tar.gz")).load()
    with pytest.raises(DataError, match=r"data\.path is not set"):
        Cifar10().load()
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a readable archive"):
        Cifar10(str(tmp_path / "a.tar.gz")).load()


def test_an_archive_cannot_reach_outside_itself(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(_batch(2, 0))
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("cifar/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
        outside = tarfile.TarInfo("../../data_batch_2")
        content = _batch(2, 0)
        outside.size = len(content)
        tar.addfile(outside, io.BytesIO(content))
    data = Cifar10(str(archive)).load()
    assert len(data) == 2  # read from within, never unpacked; the link is not followed
    assert sorted(f.name for f in tmp_path.parent.iterdir() if "data_batch" in f.name) == []
    assert torch.equal(data.labels, torch.tensor(pickle.loads(content)[b"labels"]))
