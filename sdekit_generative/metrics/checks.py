"""What metrics are given, looked at before it is used."""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.arguments import floating


def checked_features(what: str, features: object) -> Tensor:
    """Features `(N, F)` as numbers that are all finite. Raises TypeError or ValueError that names them."""
    x = floating(what, features).detach()
    if x.ndim != 2:
        raise ValueError(f"{what}: expected features (N, F), got shape {tuple(x.shape)}")
    bad = int((~torch.isfinite(x)).any(1).sum())
    if bad:
        raise ValueError(f"{what}: the features of {bad} of {len(x)} images are not finite, got NaN or infinities")
    return x


def checked_pair(what: tuple[str, str], first: object, second: object) -> tuple[Tensor, Tensor]:
    """Two sets of features with the same F."""
    x, y = checked_features(what[0], first), checked_features(what[1], second)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{what[0]} and {what[1]}: expected as many features in both, got {x.shape[1]} and {y.shape[1]}"
        )
    return x, y
