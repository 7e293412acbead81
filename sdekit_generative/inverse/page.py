"""A page of restorations: a row an image, with truth, observation, samples, their mean and their standard deviation."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..pictures import grid
from .measurement import Measurement

STD_SHOWN = 2.0  # the standard deviation is at most ½ for values in [0, 1]
_HEAD = 14
_RIDGE = 0.02


def as_images(operator: Any, y: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """An observation as images to be looked at: missing pixels grey, few pixels enlarged, others nearly as A⁺ y."""
    channels, height, width = shape
    missing = operator.keep(torch.ones_like(y)) == 0
    if y.shape[1:] == shape:
        return torch.where(missing, 0.5, y)
    if y.ndim == 4 and y.shape[1] in (1, channels) and height % y.shape[2] == 0 and width % y.shape[3] == 0:
        large = y.repeat_interleave(height // y.shape[2], 2).repeat_interleave(width // y.shape[3], 3)
        return large.expand(-1, channels, -1, -1)
    measurement = Measurement(operator, operator.keep(y), 0.0, shape)
    if not measurement.linear:
        return torch.full((len(y), *shape), 0.5, dtype=y.dtype, device=y.device)
    if measurement.svd is None:
        return operator.adjoint(y)
    # A⁺ itself would show little but the noise of the weakest directions
    return operator.adjoint(measurement.svd.apply(lambda s: 1.0 / (s + _RIDGE * s.amax()), measurement.y))


def page(truth: Tensor | None, observed: Tensor, samples: Tensor, most: int = 6) -> Image.Image:
    """The page of samples `(N, n, C, H, W)`; observed and truth are `(N, C, H, W)`. Shows `most` samples at most."""
    mean = samples.mean(1)
    std = samples.std(1) if samples.shape[1] > 1 else torch.zeros_like(mean)
    columns = [] if truth is None else [("truth", truth)]
    columns += [("observed", observed)]
    columns += [(f"sample {j + 1}", samples[:, j]) for j in range(min(most, samples.shape[1]))]
    columns += [("mean", mean), (f"{STD_SHOWN:g} std", STD_SHOWN * std)]
    sheet = grid(torch.stack([images for _, images in columns], 1).flatten(0, 1), columns=len(columns))
    paper = 255 if sheet.mode == "L" else (255,) * 3
    whole = Image.new(sheet.mode, (sheet.width, sheet.height + _HEAD), color=paper)
    whole.paste(sheet, (0, _HEAD))
    pen, step = ImageDraw.Draw(whole), (sheet.width - 4) / len(columns)
    for j, (name, _) in enumerate(columns):
        pen.text((4 + (j + 0.5) * step - 2, 2), name, fill=0 if sheet.mode == "L" else (0, 0, 0), anchor="ma")
    return whole
