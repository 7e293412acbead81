"""Every test runs on one thread and with fixed Hypothesis seeds, so that a figure that passes once passes always."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile(
    "reproducible",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("reproducible")

_JOIN = """
import sys, torch, torch.distributed as dist
torch.set_num_threads(1)
rank, size, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=size)
"""
_LEAVE = """
dist.destroy_process_group()
"""


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., list[str]]:
    """`launch(code, size)`: run Python code in processes that know of each other; returns what each of them printed.

    The code finds `rank`, `size` and `place` (an empty folder that all share) defined. One alone runs in this process.
    """

    def run(code: str, size: int, status: int = 0) -> list[str]:
        place = tmp_path / f"together-{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        if size == 1:
            with contextlib.redirect_stdout(io.StringIO()) as said_alone:
                exec(code, {"rank": 0, "size": 1, "place": str(place), "torch": torch})
            return [said_alone.getvalue()]
        started = [
            subprocess.Popen(
                [sys.executable, "-c", _JOIN + code + _LEAVE, str(rank), str(size), str(place)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
            )
            for rank in range(size)
        ]
        said = [process.communicate(timeout=300) for process in started]
        assert [process.returncode for process in started] == [status] * size, "\n\n".join(err for _, err in said)
        return [out for out, _ in said]

    return run
