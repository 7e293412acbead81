"""A model's weights as one safetensors file that says what they are of."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch

from ..errors import UserError
from ..files import aside
from ..model import ScoreModel
from ..recipes import encode


def to_safetensors(model: ScoreModel, file: str | Path) -> Path:
    """Write the weights of a model by their names here, and in the file's metadata how to build it, as JSON.

    Raises UserError where the file cannot be written.
    """
    file = Path(file)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.network.state_dict().items()}
    config = getattr(model.network, "config", None)
    about = {
        "network": None if config is None else encode(config),
        "process": encode(model.process),
        "parametrisation": encode(model.parametrisation),
        "data_range": encode(model.data_range),
        "shape": list(model.shape),
        "levels": model.levels,
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside(file) as hidden:
            safetensors.torch.save_file(weights, hidden, metadata={"sdekit": json.dumps(about)})
    except (OSError, safetensors.SafetensorError) as problem:
        raise UserError(f"{file}: cannot be written ({problem})") from None
    return file
