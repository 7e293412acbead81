"""Pictures of results: grids of images, trajectories as film strips and as films that move, and the loss curve.

Images are floats in [0, 1] `(N, C, H, W)`; every pixel is enlarged by repetition, so one sees what there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_EDGE = 64  # pixels that a small image is enlarged to, at least
_GAP = 4
_PAPER = 255
_FRAME, _LAST = 120, 1500  # milliseconds that a frame is shown, and the last one


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images in rows, with a light gap between them; as many columns as rows unless told otherwise."""
    columns = columns or max(1, math.ceil(math.sqrt(len(images))))
    zoom = max(1, math.ceil(_EDGE / images.shape[-1]))
    pixels = (images.detach().float().cpu().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    count, channels, height, width = pixels.shape
    rows = math.ceil(count / columns)
    shape = (channels, rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP)
    sheet = torch.full(shape, _PAPER, dtype=torch.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + _GAP) + _GAP, (i % columns) * (width + _GAP) + _GAP
        sheet[:, top : top + height, left : left + width] = image
    array = sheet.numpy()
    return Image.fromarray(array[0] if channels == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def film(states: Tensor) -> Tensor:
    """States on their way `(frames, n, C, H, W)` as images in [0, 1], one row a sample, each frame in its own range.

    Noise is many times larger than an image, so a common scale would show the one or the other.
    """
    low, high = (states.flatten(2).quantile(q, dim=2)[:, :, None, None, None] for q in (0.01, 0.99))
    scaled = (states - low) / (high - low).clamp_min(1e-6)
    return scaled.clamp(0.0, 1.0).transpose(0, 1).flatten(0, 1)


def animation(states: Tensor, columns: int | None = None) -> list[Image.Image]:
    """States on their way `(frames, n, C, H, W)` as pictures that follow one another; each holds a grid of all samples."""
    frames, n = states.shape[:2]
    shown = film(states).unflatten(0, (n, frames)).transpose(0, 1)
    return [grid(frame, columns) for frame in shown]


def save(picture: Image.Image | Sequence[Image.Image], file: Path) -> None:
    """Write a picture, or several as one that moves and begins again."""
    if isinstance(picture, Image.Image):
        picture.save(file)
        return
    first, *rest = picture
    durations = [_FRAME] * len(rest) + [_LAST]
    first.save(file, save_all=True, append_images=rest, duration=durations, loop=0)


def trajectories(forward: Tensor, reverse: Tensor) -> Image.Image:
    """Above: images turning into noise. Below: noise turning into images. Both `(frames, n, C, H, W)`; a row each."""
    sheets = [grid(film(states), columns=len(states)) for states in (forward, reverse)]
    gap = _EDGE // 2
    width, height = max(s.width for s in sheets), sum(s.height for s in sheets) + gap
    page = Image.new(sheets[0].mode, (width, height), color=_PAPER if sheets[0].mode == "L" else (_PAPER,) * 3)
    page.paste(sheets[0], (0, 0))
    page.paste(sheets[1], (0, sheets[0].height + gap))
    return page


def loss_curve(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """The loss of every step, and its running mean, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, losses = [row["step"] for row in rows], np.array([row["loss"] for row in rows])
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="0.75", linewidth=0.8, label="every step")
    span = max(1, min(50, len(losses) // 5))
    mean = np.convolve(losses, np.ones(span) / span, mode="valid")
    axes.plot(steps[span - 1 :], mean, color="#0b4f8a", linewidth=1.8, label=f"mean of {span} steps")
    axes.set(xlabel="step", ylabel="denoising loss (nats/dim, up to a constant)")
    axes.set_ylim(float(np.quantile(losses, 0.001)) * 0.98, float(np.quantile(losses, 0.98)) * 1.02)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
