"""Every test runs on one thread and with fixed Hypothesis seeds, so that a figure that passes once passes always."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from sdekit_generative.recipes import Recipe

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


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """The digits recipe with a network of a few thousand weights and 12 steps of 8 images: a fraction of a second."""
    from sdekit_generative.networks import UNetConfig
    from sdekit_generative.recipes import DIGITS

    training = dataclasses.replace(DIGITS.training, steps=12, batch=8, warmup=4, save_every=4, cooldown=0.0)
    network = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.1)
    return dataclasses.replace(DIGITS, network=network, training=training)


@pytest.fixture(scope="session")
def tiny_run(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe. Tests must not change it; copy it first."""
    from sdekit_generative.train import begin
    from sdekit_generative.training import Stop

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    begin(folder, tiny).train(Stop(), lambda step, loss: None)
    return folder
