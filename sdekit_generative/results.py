"""A result in files of one name: a picture, its numbers (.npz), and what it was made with (.json).

The .json holds the recipe, the model by its weights' SHA-256, the sampler and seed, versions, evaluations of the network
and seconds: enough to make the picture again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from .describe import describe_model, versions
from .errors import UserError
from .files import as_json, aside, replace_file
from .model import ScoreModel
from .pictures import save
from .recipes import Recipe, encode


@dataclass(frozen=True)
class Result:
    """The files of a result, named by its picture."""

    file: Path

    @classmethod
    def vacant(cls, file: Path, endings: Sequence[str] = (".png",)) -> Result:
        """Files that are still to be written. Raises UserError where one exists, or the ending is another."""
        if file.suffix.lower() not in endings:
            raise UserError(f"--out: expected a name ending in {' or '.join(endings)}, got {file}")
        for taken in (file, file.with_suffix(".npz"), file.with_suffix(".json")):
            if taken.exists():
                raise UserError(f"{taken}: exists already; choose another --out")
        return cls(file)

    def write(
        self, picture: Image.Image | Sequence[Image.Image], arrays: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        """Write the picture, or one that moves, its numbers, and what they were made with."""
        import numpy as np

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with aside(self.file) as shown, aside(self.file.with_suffix(".npz")) as numbers:
            save(picture, shown)
            np.savez_compressed(numbers, **arrays)
            sidecar(self.file, about)


def sidecar(picture: Path, about: Mapping[str, Any]) -> None:
    """Write what a picture was made with beside it."""
    replace_file(picture.with_suffix(".json"), as_json({**about, "versions": versions()}))


def made_with(model: ScoreModel, recipe: Recipe | None, **more: Any) -> dict[str, Any]:
    """What goes beside a picture: the model and its recipe, and what else is known."""
    return {**more, "recipe": None if recipe is None else encode(recipe), "model": describe_model(model)}


class Calls:
    """How often a network was called."""

    count = 0


@contextmanager
def counting(network: nn.Module) -> Iterator[Calls]:
    """Counts the calls of a network; with all images in one batch, its evaluations an image."""
    calls = Calls()

    def count(*_: Any) -> None:
        calls.count += 1

    handle = network.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()
