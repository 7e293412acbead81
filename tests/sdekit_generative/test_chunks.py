import numpy as np
import pytest

from sdekit.processes import Processes
from sdekit_generative import chunks as module
from sdekit_generative.chunks import Chunks
from sdekit_generative.errors import UserError

ALONE = Processes()


def _squares(span, progress):
    progress(0.5)
    return {"squares": np.array([i * i for i in span])}


def _all(chunks: Chunks) -> list[int]:
    return [int(v) for chunk in chunks.each() for v in chunk["squares"]]


def test_work_that_stops_goes_on_where_it_was(tmp_path):
    chunks, made = Chunks(tmp_path / "work", 23, 5), []

    def sometimes(span, progress):
        made.append(span.start)
        if len(made) == 3:
            raise KeyboardInterrupt
        return _squares(span, progress)

    with pytest.raises(KeyboardInterrupt):
        chunks.make(sometimes, ALONE)
    chunks.make(sometimes, ALONE)
    assert made == [0, 5, 10, 10, 15, 20]
    assert _all(chunks) == [i * i for i in range(23)]


def test_more_items_begin_with_those_that_are_there(tmp_path):
    Chunks(tmp_path, 10, 5).make(_squares, ALONE)
    more, made = Chunks(tmp_path, 23, 5), []
    more.make(lambda span, progress: (made.append(span.start), _squares(span, progress))[1], ALONE)
    assert made == [10, 15, 20]
    assert _all(more) == [i * i for i in range(23)]
    assert _all(Chunks(tmp_path, 5, 5)) == [i * i for i in range(5)]


def test_progress_runs_from_zero_to_one(tmp_path):
    seen: list[float] = []
    Chunks(tmp_path, 20, 5).make(_squares, ALONE, seen.append)
    assert seen == [0.125, 0.375, 0.625, 0.875, 1.0]


def test_a_chunk_cut_short_is_never_there_and_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    chunks = Chunks(tmp_path / "work", 10, 5)

    def full(file, content):
        file.with_name(".writing").write_bytes(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "replace_file", full)
        with pytest.raises(
            UserError, match=r"00000000-00000005\.npz: could not be written \(No space left on device\)"
        ):
            chunks.make(_squares, ALONE)
    assert len(chunks.missing()) == 2
    chunks.make(_squares, ALONE)
    assert chunks.missing() == []


def test_a_damaged_chunk_is_named(tmp_path):
    chunks = Chunks(tmp_path, 10, 5)
    chunks.make(_squares, ALONE)
    file = chunks.file(chunks.spans()[1])
    whole = file.read_bytes()
    inside = whole.index(b"NUMPY") + 130  # among the numbers
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:inside] + b"X" + whole[inside + 1 :]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"00000005-00000010\.npz: damaged .* remove it and run again"):
            _all(chunks)


CODE = """
import os, signal
import numpy as np
from pathlib import Path
from sdekit.processes import Processes
from sdekit_generative.chunks import Chunks
made = []
def squares(span, progress):
    made.append(span.start)
    if FAIL and rank == 1 and len(made) == 2:
        raise ValueError("no more")
    return {"squares": np.array([i * i for i in span])}
chunks = Chunks(Path(place).parent / "work", 40, 5)
try:
    chunks.make(squares, Processes.current())
    print(made, [int(v) for chunk in chunks.each() for v in chunk["squares"]] == [i * i for i in range(40)])
except Exception as problem:
    print(type(problem).__name__, problem)
"""


@pytest.mark.slow
def test_processes_share_the_work_whatever_their_number_and_fail_together(launch):
    first, second = launch(CODE.replace("FAIL", "True"), 2)
    assert first == "ProcessFailed process 1 of 2: no more\n"
    assert second == "ValueError no more\n"
    # five of eight are there; three processes go on with the rest
    assert launch(CODE.replace("FAIL", "False"), 3) == ["[15] True\n", "[25] True\n", "[35] True\n"]
    assert launch(CODE.replace("FAIL", "False"), 1) == ["[] True\n"]
