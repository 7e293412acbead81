"""Statistics of a set of real images: what generated images are compared with, in a file.

The file is the usual .npz with `mu` (F,) and `sigma` (F, F), so that those of other packages serve here and ours there.
Ours also hold

    provenance   JSON: the images (where from, how many, their SHA-256) and the feature network (name, SHA-256, resize)
    features     `(N, F)` float32, where they were asked to be kept: KID and precision/recall need them
    logits       likewise

Files of the score_sde code hold `pool_3` (N, F) in place of mu and sigma; they are taken as well. Without provenance
nothing tells which network a file is from, and the result says so.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.arguments import floating
from sdekit.moments import Moments
from sdekit.processes import Processes

from ..data import Dataset
from ..errors import DataError, UserError
from ..files import replace_file
from ..npz import unpack
from .features import FeatureNetwork, Features
from .frechet import feature_moments, gaussian_distance

_MEAN, _COVARIANCE, _FEATURES, _POOL, _PROVENANCE = "mu", "sigma", "features", "pool_3", "provenance"


class Collected:
    """Features of images that come in parts: their moments, and the features and logits themselves where they are kept."""

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._moments: Moments | None = None
        self._features: list[Tensor] = []
        self._logits: list[Tensor | None] = []

    def add(self, found: Features) -> None:
        """Raises ValueError for features that are not finite."""
        part = feature_moments(found.features)
        self._moments = part if self._moments is None else self._moments.merge(part)
        if self._keep:
            self._features.append(found.features.cpu())
            self._logits.append(None if found.logits is None else found.logits.cpu())

    def merge(self, other: Collected) -> None:
        """Take in what another has collected, of images that come after ours."""
        if other._moments is not None:
            self._moments = other._moments if self._moments is None else self._moments.merge(other._moments)
        self._features += other._features
        self._logits += other._logits

    @property
    def moments(self) -> Moments:
        """Of all features. Raises UserError where there are none."""
        if self._moments is None:
            raise UserError("images: there are none")
        return self._moments

    @property
    def features(self) -> Tensor | None:
        """`(N, F)`, None where they are not kept."""
        return torch.cat(self._features) if self._features else None

    @property
    def logits(self) -> Tensor | None:
        """`(N, classes)`, None where they are not kept or the network has none."""
        logits = [part for part in self._logits if part is not None]
        return torch.cat(logits) if logits and len(logits) == len(self._logits) else None


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean `(F,)` and covariance `(F, F)` of features, the features themselves `(N, F)` if kept, and where they are from.

    provenance is empty for files of other packages; its part "features" is what `FeatureNetwork.about` says.

    Raises DataError for shapes that do not fit together and for numbers that are not finite.
    """

    mean: Tensor
    covariance: Tensor
    features: Tensor | None
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, rank in (("mean", 1), ("covariance", 2)):
            given = floating(name, getattr(self, name)).detach().double()
            if given.ndim != rank or (rank == 2 and tuple(given.shape) != (len(self.mean),) * 2):
                raise DataError(f"{name}: expected mean (F,) and covariance (F, F), got shape {tuple(given.shape)}")
            if not bool(torch.isfinite(given).all()):
                raise DataError(f"{name}: expected finite numbers, got NaN or infinities among them")
            object.__setattr__(self, name, given)

    @classmethod
    def of(cls, seen: Collected, data: Dataset, network: FeatureNetwork, source: str = "") -> Statistics:
        """Of what a network saw of all images of a data set."""
        about = {"source": source, "count": len(data), "shape": list(data.shape), "levels": data.levels}
        provenance = {"images": {**about, "sha256": data.fingerprint()}, "features": dict(network.about)}
        return cls(seen.moments.mean, seen.moments.covariance, seen.features, provenance)

    def distance(self, moments: Moments) -> float:
        """Fréchet distance to other features."""
        return gaussian_distance(self.mean, self.covariance, moments.mean, moments.covariance)

    def check(self, network: FeatureNetwork, source: str = "the statistics") -> None:
        """Raises DataError where they are known to be of another network than this one, or of another number of features."""
        held, ours = self.provenance.get("features"), dict(network.about)
        if held is not None and dict(held) != ours:
            differing = [name for name in ours if held.get(name) != ours[name]]
            raise DataError(
                f"{source}: made with {_spoken(held, differing)}, but the feature network here is {_spoken(ours, differing)}; "
                "make them again: sdekit-generative data statistics"
            )

    def save(self, file: Path) -> None:
        """Write the file, whole or not at all. Raises DataError where it cannot be written."""
        arrays: dict[str, Any] = {_MEAN: self.mean.numpy(), _COVARIANCE: self.covariance.numpy()}
        arrays[_PROVENANCE] = np.array(json.dumps(dict(self.provenance), sort_keys=True))
        if self.features is not None:
            arrays[_FEATURES] = self.features.numpy()
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, stream.getvalue())
        except OSError as problem:
            raise DataError(f"{file}: cannot be written ({problem.strerror or problem})") from None

    @classmethod
    def load(cls, file: str | Path) -> Statistics:
        """Raises DataError that names the file and what is wrong with it."""
        path = Path(file)
        arrays = _read(path)
        provenance = _provenance(path, arrays)
        features = arrays.get(_FEATURES, arrays.get(_POOL))
        if _MEAN in arrays and _COVARIANCE in arrays:
            mean, covariance = (torch.from_numpy(arrays[name]).double() for name in (_MEAN, _COVARIANCE))
        elif features is not None and features.ndim == 2:
            moments = feature_moments(torch.from_numpy(features))
            mean, covariance = moments.mean, moments.covariance
        else:
            raise DataError(f"{path}: expected mu and sigma in it, found {', '.join(sorted(arrays)) or 'nothing'}")
        if mean.ndim != 1 or tuple(covariance.shape) != (len(mean), len(mean)):
            raise DataError(f"{path}: mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)} do not fit together")
        if not bool(torch.isfinite(mean).all() & torch.isfinite(covariance).all()):
            raise DataError(f"{path}: mu or sigma hold numbers that are not finite")
        if float((covariance - covariance.T).abs().max()) > 1e-6 * float(covariance.abs().max()):
            raise DataError(f"{path}: sigma is not symmetric, so it is no covariance")
        return cls(mean, covariance, None if features is None else torch.from_numpy(features).float(), provenance)


def _spoken(about: Mapping[str, Any], differing: list[str]) -> str:
    shown = {name: str(about.get(name, "?"))[:12] for name in ["network", *differing]}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of statistics")
    try:
        return unpack(io.BytesIO(path.read_bytes()))
    except Exception as problem:  # a damaged file may fail in any way
        raise DataError(f"{path}: not a readable .npz file ({' '.join(str(problem).split())[:150]})") from None


def _provenance(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if _PROVENANCE not in arrays:
        return {}
    try:
        found = json.loads(str(arrays[_PROVENANCE]))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path}: its provenance is not JSON")
    return found


def measure_images(
    data: Dataset,
    network: FeatureNetwork,
    source: str = "",
    keep: bool = False,
    batch: int = 64,
    progress: Callable[[float], None] | None = None,
    group: Processes | None = None,
) -> Statistics:
    """Statistics of a data set of 2 images or more, with their provenance.

    source  where the images are from, in words
    keep    whether to hold the features too
    group   processes that share the work, all with the same images; all get the result, as one process does to rounding

    Raises DataError for fewer than two images.
    """
    if len(data) < 2:
        raise DataError(f"{source or 'images'}: statistics need 2 images or more, got {len(data)}")
    group, part = group or Processes(), Collected(keep)
    mine = group.share(len(data))
    with group.together():
        for start in range(mine.start, mine.stop, batch):
            stop = min(start + batch, mine.stop)
            part.add(network(data.images[start:stop], data.levels))
            if progress is not None:
                progress((stop - mine.start) / len(mine))
    collected = Collected(keep)
    for other in group.gather(part):
        collected.merge(other)
    return Statistics.of(collected, data, network, source)
