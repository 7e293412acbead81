"""The long parts of an evaluation, in chunks: images, their features, bits. See `evaluation`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.arguments import check_integer, check_number
from sdekit.processes import Processes
from sdekit.scores.divergence import Hutchinson
from sdekit.steps import Adaptive

from .chunks import Chunks
from .data import Dataset, quantise
from .describe import describe, describe_model
from .likelihood import bits_per_dim
from .metrics import Collected, FeatureNetwork, Features
from .model import Labels, ScoreModel
from .samplers import PC, Progress, Sampler
from .sampling import draw

Bar = Callable[[str], AbstractContextManager[Progress]]
"""`(title) → context manager of a Progress`: how the caller shows long work."""

_REAL_BATCH, _SEEN_BATCH = 256, 64  # images in a chunk of real ones; images shown to the feature network at a time


@dataclass(frozen=True)
class Images:
    """Which images are made: n of them, by a sampler, from a seed.

    batch     images in a chunk; part of what they are only through rounding
    classes   K: image i is of class i mod K, so that all are met alike; 0 for none
    label     one class for all images, in place of that
    guidance  how much classes count; see `ScoreModel.conditional`

    Raises ValueError for values that make no sense.
    """

    n: int = 10_000
    sampler: Sampler = field(default_factory=PC)
    seed: int = 0
    batch: int = 256
    classes: int = 0
    label: int | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        check_integer("n: the number of images", self.n, 2)
        check_integer("batch", self.batch, 1)
        check_integer("classes", self.classes, 0)
        check_number("guidance", self.guidance)
        if self.label is not None and self.classes:
            raise ValueError(f"give one label ({self.label}) or a number of classes ({self.classes}), not both")

    def labels(self, span: range) -> Labels:
        """Those of some of the images."""
        return torch.arange(span.start, span.stop) % self.classes if self.classes else self.label


@dataclass(frozen=True)
class Bits:
    """How bits per dimension are measured.

    repeats     times that every image is measured, with its own dequantisation and probes
    tolerance   relative and absolute, of the ODE
    probes      of the divergence, for each image and repeat

    Raises ValueError or TypeError for values that make no sense.
    """

    repeats: int = 1
    tolerance: float = 1e-3
    probes: int = 1
    seed: int = 0
    batch: int = 100

    def __post_init__(self) -> None:
        for name in ("repeats", "probes", "batch"):
            check_integer(name, getattr(self, name), 1)
        check_number("tolerance", self.tolerance, above=0.0)


@dataclass(frozen=True, eq=False)
class Workshop:
    """Where the chunks of an evaluation are made and kept: a folder, for a model, by the processes of a group."""

    model: ScoreModel
    folder: Path
    group: Processes
    bar: Bar | None = None

    def images(self, which: Images) -> Chunks:
        """Images as uint8 levels, with the evaluations of the network that each took."""

        def make(span: range, progress: Progress) -> dict[str, Any]:
            found = draw(
                self.model,
                len(span),
                which.sampler,
                which.seed,
                span.start,
                which.batch,
                progress,
                which.labels(span),
                which.guidance,
            )
            levels = quantise(found.images, self.model.levels).cpu().numpy()
            return {"images": levels, "evaluations": np.array(found.network_evaluations)}

        return self._make(Chunks(self.folder / "images", which.n, which.batch), make, "sampling")

    def seen(self, images: Chunks, network: FeatureNetwork) -> Chunks:
        """Features of images that were made."""

        def make(span: range, progress: Progress) -> dict[str, Any]:
            return _see(network, torch.from_numpy(images.read(span)["images"]), self.model.levels)

        folder = self.folder / f"features-{_short(network)}"
        return self._make(Chunks(folder, images.total, images.size), make, "features")

    def seen_data(self, data: Dataset, network: FeatureNetwork) -> Chunks:
        """Features of real images."""

        def make(span: range, progress: Progress) -> dict[str, Any]:
            return _see(network, data.images[span.start : span.stop], data.levels)

        folder = self.folder / f"real-{data.fingerprint()[:12]}-{_short(network)}"
        return self._make(Chunks(folder, len(data), _REAL_BATCH), make, "features of real images")

    def bits(self, data: Dataset, how: Bits) -> Chunks:
        """Bits per dimension of every image, repeat after repeat: item i + r N is image i in repeat r."""
        chosen = f"{how.tolerance:g}-{how.probes}-{how.seed}-{how.batch}"

        def make(span: range, progress: Progress) -> dict[str, Any]:
            found = bits_per_dim(
                self.model,
                data.images[torch.arange(span.start, span.stop) % len(data)],
                steps=Adaptive(rtol=how.tolerance, atol=how.tolerance),
                divergence=Hutchinson(probes=how.probes),
                seed=how.seed,
                first=span.start,
                batch=how.batch,
            )
            return {"bits": found.per_image.numpy(), "evaluations": np.array(found.network_evaluations)}

        folder = self.folder / f"bits-{data.fingerprint()[:12]}-{chosen}"
        return self._make(Chunks(folder, how.repeats * len(data), how.batch), make, "likelihood")

    def _make(self, chunks: Chunks, make: Callable[[range, Progress], dict[str, Any]], title: str) -> Chunks:
        def timed(span: range, progress: Progress) -> dict[str, Any]:
            start = time.perf_counter()
            found = make(span, progress)
            return {**found, "seconds": np.array(time.perf_counter() - start)}

        kept = chunks.total - sum(map(len, chunks.missing()))
        said = f"{title}, {kept} of {chunks.total} kept" if kept else title
        with nullcontext() if self.bar is None or not self.group.leads else self.bar(said) as progress:
            chunks.make(timed, self.group, progress)
        return chunks


def _short(network: FeatureNetwork) -> str:
    about = network.about
    return f"{about['sha256'][:12]}-{about['resize']}"


def _see(network: FeatureNetwork, images: Tensor, levels: int) -> dict[str, Any]:
    found = [network(part, levels) for part in images.split(_SEEN_BATCH)]
    arrays = {"features": torch.cat([f.features for f in found]).cpu().numpy()}
    logits = [f.logits for f in found if f.logits is not None]
    return {**arrays, "logits": torch.cat(logits).cpu().numpy()} if logits else arrays


def collect(chunks: Chunks, keep: bool) -> Collected:
    """What was seen of all images: the moments of their features, and the features themselves if they are kept."""
    collected = Collected(keep)
    for chunk in chunks.each():
        logits = torch.from_numpy(chunk["logits"]) if "logits" in chunk else None
        collected.add(Features(torch.from_numpy(chunk["features"]), logits))
    return collected


def summary(chunks: Chunks) -> dict[str, Any]:
    """The largest number of evaluations that an item took, and the seconds of all processes together."""
    kept = list(chunks.each())
    return {
        "network_evaluations": max(int(chunk["evaluations"]) for chunk in kept),
        "seconds": round(sum(float(chunk["seconds"]) for chunk in kept), 2),
    }


def bits_summary(chunks: Chunks, data: Dataset, how: Bits) -> dict[str, Any]:
    """Mean and standard error over images of the bits that were measured, and the mean of every repeat."""
    every = np.concatenate([chunk["bits"] for chunk in chunks.each()]).reshape(how.repeats, len(data))
    images = every.mean(0)  # each the mean of its repeats: their spread over images holds that of both
    return {
        "mean": float(every.mean()),
        "standard_error": float(images.std(ddof=1)) / math.sqrt(len(images)) if len(images) > 1 else None,
        "repeats": [float(mean) for mean in every.mean(1)],
        "count": len(data),
        "data_sha256": data.fingerprint(),
        **describe({"tolerance": how.tolerance, "probes": how.probes, "seed": how.seed}),
        **summary(chunks),
    }


def plan(model: ScoreModel, images: Images) -> dict[str, Any]:
    """What the images in a folder depend on: all but their number."""
    chosen: dict[str, Any] = describe(images)
    del chosen["n"]
    return {"model": describe_model(model), "images": chosen}
