"""What a result was made with, as plain JSON values: models, samplers, versions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from .metrics.features import fingerprint
from .model import ScoreModel


def describe(value: Any) -> Any:
    """An object as JSON: a dataclass by its kind and fields, a tensor by shape and SHA-256, a function by its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return {"shape": list(value.shape), "sha256": hashlib.sha256(content).hexdigest()}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, functools.partial):
        return {"kind": describe(value.func), "given": describe(list(value.args)), **describe(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    return getattr(value, "__qualname__", type(value).__qualname__)


def describe_model(model: ScoreModel) -> dict[str, Any]:
    """The model by its weights and by what surrounds them."""
    return {
        "weights_sha256": fingerprint(model.network),
        "network": type(model.network).__name__,
        "process": describe(model.process),
        "parametrisation": describe(model.parametrisation),
        "data_range": describe(model.data_range),
        "shape": list(model.shape),
        "levels": model.levels,
        "precision": None if model.precision is None else str(model.precision).removeprefix("torch."),
    }


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    try:
        ours = version("sdekit")
    except PackageNotFoundError:
        ours = "not installed"
    return {"sdekit": ours, "torch": torch.__version__, "python": platform.python_version()}
