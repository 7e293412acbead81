"""Every kind of file that a run leaves or reads, mutated: refused by name, or what was in it before; never anything else."""

from __future__ import annotations

import random
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from sdekit_generative.chunks import Chunks
from sdekit_generative.data import Digits
from sdekit_generative.data.arrays import read_array
from sdekit_generative.errors import CheckpointWarning, UserError
from sdekit_generative.folder import settle
from sdekit_generative.interop import score_sde
from sdekit_generative.log import Seal, kept
from sdekit_generative.metrics import DigitFeatures, Statistics, measure_images
from sdekit_generative.networks import NCSNppConfig
from sdekit_generative.recipes import encode
from sdekit_generative.run import Run
from sdekit_generative.training import checkpoint

from .mutations import mutated

PLAN = {"model": {"kind": "VP", "sha256": "0a1b2c3d"}, "images": {"seed": 3, "batch": 256}}


class Kind(NamedTuple):
    """A file, what reads it, and what a refusal names: the file, or the folder that it is a part of."""

    file: Path
    read: Callable[[], Any]
    named: Path


@pytest.fixture(scope="module")
def kinds(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    place = tmp_path_factory.mktemp("kinds")
    run = shutil.copytree(tiny_run, place / "run")
    newest = checkpoint.latest(run / "checkpoints")
    found = {f.name: Kind(f, lambda: checkpoint.read(newest), newest) for f in sorted(newest.iterdir())}
    found["recipe.json"] = Kind(run / "recipe.json", lambda: encode(Run.open(run).recipe()), run / "recipe.json")
    log = run / "log.jsonl"
    seal = Seal(**checkpoint.read(newest).state["log"])
    found["log.jsonl"] = Kind(log, lambda: kept(log, 12, seal), log)
    statistics = place / "statistics.npz"
    measure_images(Digits().load().select(torch.arange(40)), DigitFeatures(), "digits", keep=True).save(statistics)
    found["statistics"] = Kind(statistics, lambda: Statistics.load(statistics), statistics)
    chunks, span = Chunks(place / "chunks", 4, 4), range(4)
    chunks.write(span, {"images": np.arange(64, dtype=np.uint8).reshape(4, 1, 4, 4), "seconds": np.array(1.5)})
    found["chunk"] = Kind(chunks.file(span), lambda: chunks.read(span), chunks.file(span))
    images = place / "images.npz"
    np.savez_compressed(images, images=np.arange(640, dtype=np.uint8).reshape(10, 8, 8) % 17, levels=17)
    found["images"] = Kind(images, lambda: read_array(images), images)
    settle(place / "work", PLAN)
    found["plan"] = Kind(place / "work" / "plan.json", lambda: settle(place / "work", PLAN), place / "work")
    foreign = place / "checkpoint.pth"
    _as_published(foreign)
    found["imported"] = Kind(foreign, lambda: score_sde.read(foreign), foreign)
    return found


def _as_published(file: Path) -> None:
    """A checkpoint as the score_sde PyTorch code saves it."""
    network = NCSNppConfig(channels=8, multipliers=(1,), blocks=1, attention_resolutions=()).build((1, 8, 8))
    weights = score_sde.state_dict(network)
    state = {0: {"step": 7, "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}}
    averages = {"decay": 0.999, "num_updates": 7, "shadow_params": [value * 0.5 for value in weights.values()]}
    torch.save({"model": weights, "ema": averages, "step": 7, "optimizer": {"state": state}}, file)


def _plain(value: Any) -> Any:
    """Anything as what can be compared, to the last bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if hasattr(value, "items"):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _outcome(kind: Kind, meant: Any) -> str:
    """refused, the same, or what is wrong."""
    start = time.process_time()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", CheckpointWarning)
            found = "the same" if _plain(kind.read()) == meant else "silently another"
            if any(str(kind.named) in str(w.message) for w in said):
                found = "refused"
    except UserError as problem:
        found = "refused" if str(kind.named) in str(problem) and "\n" not in str(problem) else f"unclear: {problem}"
    except Exception as problem:  # is what must not be
        found = f"{type(problem).__name__}: {problem}"
    return found if time.process_time() - start < 1.0 else f"{found}, but late"


def _outcomes(kinds: dict[str, Kind], count: int) -> tuple[dict[str, int], list[str]]:
    """(how often what came of it, what must not be) of so many mutations, kind by kind and way by way."""
    rng, counted, wrong = random.Random(0), {"refused": 0, "the same": 0}, []
    meant = {name: _plain(kind.read()) for name, kind in kinds.items()}
    for i in range(count):
        name = list(kinds)[i % len(kinds)]
        kind = kinds[name]
        whole = kind.file.read_bytes()
        spoiled = mutated(whole, rng, i // len(kinds))
        kind.file.write_bytes(spoiled)
        found = _outcome(kind, meant[name]) if spoiled != whole else "the same"
        kind.file.write_bytes(whole)
        if found in counted:
            counted[found] += 1
        else:
            wrong.append(f"{i}, {name}: {found}")
    return counted, wrong


def test_mutated_files_are_refused_by_name_or_mean_the_same(kinds):
    counted, wrong = _outcomes(kinds, 120)
    assert wrong == []
    assert counted["refused"] > 90


@pytest.mark.slow
def test_two_thousand_mutated_files_are_refused_by_name_or_mean_the_same(kinds):
    counted, wrong = _outcomes(kinds, 2000)
    print(counted)  # noqa: T201
    assert wrong == []
    assert counted["refused"] > 1500
