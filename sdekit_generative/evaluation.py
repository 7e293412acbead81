"""How good a model is: images made and compared with real ones, and bits per dimension of data.

    fid   Fréchet distance of features          kid   kernel distance of features
    is    Inception score                        pr    precision and recall
    bpd   bits per dimension of the data

Everything that takes long is done in chunks that are kept in a folder (see `chunks`): images, their features, the
features of the real images, the bits of every image. An evaluation that was interrupted goes on from them; one with more
images, other metrics or another feature network begins with them. Under `torchrun` processes share the chunks, and
the images are the same bit for bit, since image i depends on (model, sampler, seed, i) only and chunks do not change.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdekit.processes import ProcessFailed, processes

from .data import Dataset
from .describe import describe, describe_model, versions
from .errors import UserError
from .folder import held, settle
from .metrics import FeatureNetwork, Statistics
from .metrics.report import FEWEST, METRICS, NEEDS_FEATURES, NEEDS_REFERENCE, compare
from .model import ScoreModel
from .workshop import Bar, Bits, Images, Workshop, bits_summary, collect, plan, summary

__all__ = ["Bar", "Bits", "Images", "evaluate"]


def evaluate(
    model: ScoreModel,
    data: Dataset | None = None,
    *,
    metrics: Sequence[str] = ("fid",),
    images: Images | None = None,
    bits: Bits | None = None,
    reference: Dataset | Statistics | None = None,
    features: FeatureNetwork | None = None,
    folder: str | Path | None = None,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """Measure a model; returns figures with all that they depend on, as plain JSON values.

    data       the images whose bits are measured, and those compared with where there is no reference
    metrics    any of "fid", "kid", "is", "pr", "bpd"
    images     which images are made: `Images(n=…, sampler=…, seed=…)`
    bits       how bits are measured: `Bits(repeats=…)`
    reference  real images to compare with, or their statistics ("kid" and "pr" need those with features kept)
    features   the feature network; see `metrics.features`
    folder     where work is kept, to go on with; needed where there are several processes. None keeps nothing
    bar        shows progress

    Raises UserError for what does not fit together, SolveFailed where the model's score is not finite.
    """
    task = _Task(model, data, images or Images(), bits or Bits(), data if reference is None else reference, features)
    wanted = _checked(metrics, task)
    with processes() as group:
        if folder is None and group.size > 1:
            raise UserError("evaluate: several processes need a folder= that all of them can write to")
        with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
            try:
                with ExitStack() as lock:
                    with group.together():
                        if group.leads:
                            settle(Path(place), plan(model, task.images))
                            lock.enter_context(held(Path(place)))
                    return task.run(wanted, Workshop(model, Path(place), group, bar))
            except ProcessFailed as problem:
                raise UserError(str(problem)) from None


@dataclass(frozen=True, eq=False)
class _Task:
    """What is asked for."""

    model: ScoreModel
    data: Dataset | None
    images: Images
    bits: Bits
    reference: Dataset | Statistics | None
    features: FeatureNetwork | None

    def run(self, wanted: list[str], shop: Workshop) -> dict[str, Any]:
        """The figures, the same on every process."""
        result: dict[str, Any] = {"metrics": {}, "notes": [], "processes": shop.group.size, "versions": versions()}
        result["model"] = describe_model(self.model)
        if NEEDS_FEATURES & set(wanted) and self.features is not None:
            self._compare(wanted, shop, self.features, result)
        if "bpd" in wanted and self.data is not None:
            chunks = shop.bits(self.data, self.bits)
            with shop.group.together():
                if shop.group.leads:
                    result["metrics"]["bits_per_dim"] = bits_summary(chunks, self.data, self.bits)
        return shop.group.gather(result)[0]

    def _compare(self, wanted: list[str], shop: Workshop, network: FeatureNetwork, result: dict[str, Any]) -> None:
        """Make images, show them and the real ones to the feature network, and compare."""
        images, real = shop.images(self.images), self.reference
        fake_seen = shop.seen(images, network)
        needed = bool(NEEDS_REFERENCE & set(wanted))
        real_seen = shop.seen_data(real, network) if needed and isinstance(real, Dataset) else None
        with shop.group.together():
            if not shop.group.leads:
                return
            if real_seen is not None and isinstance(real, Dataset):
                held = collect(real_seen, keep=bool({"kid", "pr"} & set(wanted)))
                real = Statistics.of(held, real, network)
            truth = real if isinstance(real, Statistics) else None
            fake = collect(fake_seen, keep=wanted != ["fid"])
            result["metrics"] |= compare(wanted, fake, truth, self.images.seed, result["notes"])
        result["images"] = {**describe(self.images), **summary(images)}
        result["features"] = dict(network.about)
        result["reference"] = None if truth is None else dict(truth.provenance)


def _checked(metrics: Sequence[str], task: _Task) -> list[str]:
    """The metrics in the order in which they are reported. Raises UserError where something is missing for one."""
    if isinstance(metrics, str) or not metrics or set(metrics) - set(METRICS):
        raise UserError(f"metrics: expected some of {', '.join(METRICS)}, got {metrics!r}")
    wanted = [metric for metric in METRICS if metric in metrics]
    if NEEDS_FEATURES & set(wanted) and task.features is None:
        raise UserError(f"{', '.join(wanted)}: say by which feature network, features=…")
    if NEEDS_REFERENCE & set(wanted) and task.reference is None:
        raise UserError(f"{', '.join(wanted)}: say which real images to compare with, data=… or reference=…")
    if "bpd" in wanted and task.data is None:
        raise UserError("bpd: say of which images, data=…")
    for name, some in (("data", task.data), ("reference", task.reference)):
        if isinstance(some, Dataset) and (some.shape != task.model.shape or some.levels != task.model.levels):
            raise UserError(
                f"{name}: images of shape {some.shape} with {some.levels} levels; "
                f"the model is of {task.model.shape} with {task.model.levels}"
            )
    if task.features is not None and NEEDS_FEATURES & set(wanted):
        _check_features(wanted, task, task.features)
    return wanted


def _check_features(wanted: list[str], task: _Task, network: FeatureNetwork) -> None:
    """What would otherwise be found only when all images have been made. Raises UserError."""
    seen, real = network(torch.zeros(1, *task.model.shape, dtype=torch.uint8), task.model.levels), task.reference
    if "is" in wanted and seen.logits is None:
        raise UserError("is: this feature network does not classify; it gives no logits")
    count = task.images.n
    if isinstance(real, Statistics) and NEEDS_REFERENCE & set(wanted):
        real.check(network, "reference")
        if len(real.mean) != seen.features.shape[1]:
            raise UserError(
                f"the reference has {len(real.mean)} features, the feature network gives {seen.features.shape[1]}"
            )
        if {"kid", "pr"} & set(wanted):
            if real.features is None:
                raise UserError("kid, pr: the reference has no features; make it with them kept, or give the images")
            count = min(count, len(real.features))
    if isinstance(real, Dataset) and NEEDS_REFERENCE & set(wanted):
        count = min(count, len(real))
    for metric, least in FEWEST.items():
        if metric in wanted and count < least:
            raise UserError(f"{metric}: needs {least} images or more of each set, made and real; there are {count}")
