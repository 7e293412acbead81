"""Inpainting and colourisation as the code of Song et al. (2021) does them, for comparison with published results.

A frame of coordinates in which the observation is a part of the entries: the pixels themselves, or the first channel
after a rotation of the colours. With m the mask of that part and c the observation in the frame,

    c(x) ← c(x) (1 − m) + (s c + std z) m

To replay that code's colourisation number by number, draw as it does: its noise fills the memory of tensors whose colours
lie side by side, `(B, H, W, C)`, after the first rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .measurement import Measurement
from .operator import MeasurementError
from .operators import Inpaint, MixChannels

# the constants of the published code; rows are colours, and the first column is grey
_ROTATION = (
    (0.57735014, -0.81649649, 4.7008697e-8),
    (0.57735026, 0.40824834, 0.70710671),
    (0.57735026, 0.40824822, -0.70710683),
)


@dataclass(frozen=True, eq=False)
class Song2021:
    """The constraint of the published code, for `Inpaint` and `Colorize()`."""

    measurement: Measurement

    def __post_init__(self) -> None:
        operator, channels = self.measurement.operator, self.measurement.shape[0]
        if isinstance(operator, Inpaint):
            return
        even = torch.full((1, 3), 1 / 3, dtype=torch.float64)
        matrix = operator.matrix if isinstance(operator, MixChannels) and channels == 3 else None
        if matrix is None or matrix.shape != even.shape or not torch.allclose(matrix, even):
            raise MeasurementError("compat='song2021' knows Inpaint(mask) and Colorize() of three channels only")

    @cached_property
    def _rotation(self) -> tuple[Tensor, Tensor] | None:
        if isinstance(self.measurement.operator, Inpaint):
            return None
        forward = torch.tensor(_ROTATION, dtype=torch.float32, device=self.measurement.y.device)
        return forward.to(self.measurement.y), torch.linalg.inv(forward).to(self.measurement.y)

    def _enter(self, x: Tensor) -> Tensor:
        return x if self._rotation is None else torch.einsum("bihw,ij->bjhw", x, self._rotation[0])

    def _leave(self, x: Tensor) -> Tensor:
        return x if self._rotation is None else torch.einsum("bihw,ij->bjhw", x, self._rotation[1])

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor, Tensor]:
        """The image that stands for the observation, the mask, and that image in the frame."""
        y, operator = self.measurement.y, self.measurement.operator
        if isinstance(operator, Inpaint):
            mask = operator.keep(torch.ones_like(y))
            return y, mask, y
        image = y.expand(-1, 3, -1, -1)
        mask = torch.zeros_like(image)
        mask[:, :1] = 1.0
        return image, mask, self._enter(image)

    def _put(self, x: Tensor, part: Tensor) -> Tensor:
        mask = self._known[1]
        return self._leave(self._enter(x) * (1.0 - mask) + part * mask)

    def start(self, x: Tensor) -> Tensor:
        """The prior's state with the clean observation in it."""
        # the published code takes the prior's part in pixels, before the rotation, and the observation's after it
        _, mask, part = self._known
        return self._leave(part * mask + self._enter(x * (1.0 - mask)))

    def noised(self, process: Any, t: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return self._put(x, self._known[2] * float(process.scale(t)) + z * float(process.std(t)))

    def clean(self, x: Tensor) -> Tensor:
        return self._put(x, self._known[2])
