"""The feature network of the digits: a small classifier, trained once and kept with the package.

Its weights are shipped so that every distance, on every machine and in every run, is measured in the same space. They
are made from the training split alone by `python -m sdekit_generative.metrics.make_classifier`, in a few seconds.

Notation: images are floats k/16 in [0, 1] `(N, 1, 8, 8)`; features are the penultimate layer,
`(N, 32)`, with a mean variance of 1 over the training images.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdekit.arguments import floating

from ..data import quantise, shown
from ..data.dataset import check_images
from ..data.digits import LEVELS
from ..errors import DataError

FEATURES = 32
WEIGHTS = "digit_classifier.safetensors"


class DigitClassifier(nn.Module):
    """Two convolutions and two dense layers: `(N, 1, 8, 8)` → logits of the ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.shrink = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.dense = nn.Linear(32 * 4 * 4, FEATURES)
        self.classes = nn.Linear(FEATURES, 10)

    def features(self, images: Tensor) -> Tensor:
        """The penultimate layer, `(N, 32)`."""
        h = F.relu(self.shrink(F.relu(self.conv(images))))
        return F.relu(self.dense(h.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.features(images))


def as_input(levels: Tensor) -> Tensor:
    """uint8 levels as the floats k/16 that the network takes."""
    return shown(levels, LEVELS)


@cache
def pretrained() -> DigitClassifier:
    """The classifier with the weights kept in the package."""
    network = DigitClassifier()
    with as_file(files("sdekit_generative.metrics") / WEIGHTS) as path:
        network.load_state_dict(safetensors.torch.load_file(path))
    return network.eval().requires_grad_(False)


def digit_features(images: Tensor) -> Tensor:
    """Features `(N, 32)` of digits: uint8 levels, or floats in [0, 1] that are cut to the 17 levels first.

    Raises ValueError for floats outside [0, 1], DataError for another shape.
    """
    values = floating("images", images)
    kind = torch.as_tensor(images).dtype
    if kind != torch.uint8 and not (kind.is_floating_point and bool(((values >= 0) & (values <= 1)).all())):
        raise ValueError(
            f"images: expected uint8 levels or floats in [0, 1], got {kind} from {float(values.min()):.3g} to "
            f"{float(values.max()):.3g}"
        )
    levels = torch.as_tensor(images) if kind == torch.uint8 else quantise(values, LEVELS)
    check_images(levels)
    if levels.shape[1:] != (1, 8, 8):
        raise DataError(f"images: expected digits (N, 1, 8, 8), got shape {tuple(levels.shape)}")
    return pretrained().features(as_input(levels.cpu()))
