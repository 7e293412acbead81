"""The answers that most SDEs of this folder give to the questions of the `SDE` protocol."""

from __future__ import annotations

from ..protocols import Calculus, Direction, Noise


class ForwardIto:
    """Read in the sense of Itô, and running forward in time."""

    @property
    def calculus(self) -> Calculus:
        return Calculus.ITO

    @property
    def direction(self) -> Direction:
        return Direction.FORWARD


class Additive(ForwardIto):
    """With a diffusion that depends on time only."""

    @property
    def noise(self) -> Noise:
        return Noise.ADDITIVE


class Diagonal(ForwardIto):
    """With an element-wise diffusion, component i a function of x_i only."""

    @property
    def noise(self) -> Noise:
        return Noise.DIAGONAL
