"""What the training engine takes for a loss."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sdekit.arguments import check_like, check_state
from sdekit.protocols import as_time

from ..model import ScoreModel


def check_batch(x0: Tensor, u: Tensor, z: Tensor, what: str = "u") -> None:
    """Raise unless x0 is a batch of states, z is shaped like it, and u, or `what` it is, has one number a sample."""
    check_state("x0", x0)
    check_like("z", z, "x0", x0)
    if as_time(u, what=what).shape != x0.shape[:1]:
        shape = tuple(as_time(u).shape)
        raise ValueError(f"{what}: expected one number a sample, ({len(x0)},), got shape {shape}")


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
