"""First weights.

Notation: uniform on ±√(3 scale/fan), fan the mean of the numbers of inputs and outputs of a place, so that variances are
kept both forwards and backwards; biases are zero.

Reference: Glorot, Bengio (2010), equation 16; Ho, Jain, Abbeel (2020), whose code scales it.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


@torch.no_grad()
def scaled_uniform(layer: Layer, scale: float = 1.0, parts: int = 1) -> Layer:
    """The layer with weights of that law; scale 0 makes it silent: the branch it ends begins by adding nothing.

    parts: how many layers of equal size are stacked in this one, which counts for its number of outputs.
    """
    outputs, inputs = layer.weight.shape[0] // parts, layer.weight.shape[1]
    places = layer.weight[0, 0].numel()
    bound = math.sqrt(3.0 * scale * 2.0 / ((inputs + outputs) * places))
    if scale:
        layer.weight.uniform_(-bound, bound)
    else:
        layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    return layer
