"""What the training engine takes for a loss."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..model import ScoreModel


class Loss(Protocol):
    """A training objective: one value a sample, to be averaged over the batch.

    A loss that needs a random direction says `directed = True`, one that needs the classes `labelled = True`; these
    are then in `model.labels`.
    """

    def __call__(self, model: ScoreModel, x0: Tensor, u: Tensor, z: Tensor, signs: Tensor | None) -> Tensor:
        """`(B,)`.

        x0     images in the model's range `(B, C, H, W)`
        u      uniforms `(B,)`, which choose the times
        z      standard normal, of the shape of x0
        signs  −1 or +1 with equal odds, of the shape of x0: a random direction, where it is wanted
        """
        ...
