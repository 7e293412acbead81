"""The metrics by the names that they are asked for, as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..errors import UserError
from .inception_score import inception_score
from .kernel import kernel_distance
from .precision_recall import precision_recall
from .statistics import Collected, Statistics

METRICS = ("fid", "kid", "is", "pr", "bpd")
NEEDS_FEATURES, NEEDS_REFERENCE = {"fid", "kid", "is", "pr"}, {"fid", "kid", "pr"}
_SPLITS, _NEIGHBOURS = 10, 3
FEWEST = {"fid": 2, "kid": 2, "is": _SPLITS, "pr": _NEIGHBOURS + 1}


def compare(
    wanted: Sequence[str], fake: Collected, real: Statistics | None, seed: int, notes: list[str]
) -> dict[str, Any]:
    """The wanted metrics of generated images against real ones; adds to the notes what a reader ought to know.

    Raises UserError where there are too few images, or the network does not classify.
    """
    try:
        found: dict[str, Any] = {}
        if "fid" in wanted:
            found["fid"] = _fid(fake, _there(real), notes)
        if "kid" in wanted:
            distance = kernel_distance(_features(_there(real)), _features(fake), seed=seed)
            error = None if math.isnan(distance.standard_error) else distance.standard_error
            found["kid"] = {"mean": distance.mean, "standard_error": error}
        if "is" in wanted:
            found["inception_score"] = _score(fake)
        if "pr" in wanted:
            found |= _precision(_features(_there(real)), _features(fake), notes)
    except ValueError as problem:
        raise UserError(str(problem)) from None
    if real is not None and not real.provenance:
        notes.append("the reference has no provenance: nothing tells whether it is of this feature network")
    return found


def _there(real: Statistics | None) -> Statistics:
    if real is None:
        raise UserError("say which real images to compare with")
    return real


def _features(held: Collected | Statistics) -> Tensor:
    if held.features is None:
        raise UserError("kid, pr: the reference has no features; make it with them kept, or give the images")
    return held.features


def _fid(fake: Collected, real: Statistics, notes: list[str]) -> float:
    moments = fake.moments
    if moments.count <= len(moments.mean):
        notes.append(
            f"fid: {moments.count} images for {len(moments.mean)} features; their covariance is singular and the "
            "distance far too large. Compare at equal numbers only, or use kid"
        )
    return real.distance(moments)


def _score(fake: Collected) -> dict[str, float]:
    if fake.logits is None:
        raise UserError("is: this feature network does not classify; it gives no logits")
    score = inception_score(fake.logits, _SPLITS)
    return {"mean": score.mean, "std": score.std}


def _precision(real: Tensor, fake: Tensor, notes: list[str]) -> dict[str, float]:
    count = min(len(real), len(fake))
    if len(real) != len(fake):
        notes.append(f"precision and recall: of the first {count} images of both sets, since they depend on the number")
    found = precision_recall(real[:count], fake[:count], _NEIGHBOURS)
    return {"precision": found.precision, "recall": found.recall}
