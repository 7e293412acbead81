"""What is installed apart from the core, by the names that are imported."""

from __future__ import annotations

_EXTRAS = {
    "cyclopts": "generative",
    "matplotlib": "generative",
    "PIL": "generative",
    "safetensors": "generative",
    "tqdm": "generative",
    "pyarrow": "parquet",
    "tensorboard": "tensorboard",
}


def advice(problem: ImportError) -> str | None:
    """What to install, where an import failed for want of it; None where that was not the reason."""
    name = (problem.name or "").partition(".")[0]
    return f"{name} is not installed; pip install 'sdekit[{_EXTRAS[name]}]'" if name in _EXTRAS else None
