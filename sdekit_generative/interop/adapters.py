"""Scores from networks made elsewhere: any function with a declared prediction, and denoisers D(x, σ).

    model = sg.interop.from_function(f, process=sk.VP(), shape=(3, 32, 32), prediction="noise", given="time")
    model = sg.interop.from_denoiser(net, shape=(3, 64, 64))          # as of Karras et al.'s code

What they give is a `ScoreModel`: to be sampled, scored and solved like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdekit.sdes.diffusion import EDM
from sdekit.sdes.process import DiffusionProcess

from ..data.dequantize import DataRange
from ..model import ScoreModel
from ..parametrisation import Parametrisation, Predict

Shape = tuple[int, int, int]


class Called(nn.Module):
    """A function as a network. A module that it is stays a part of it, with its weights and device."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        if isinstance(function, nn.Module):
            self.inner = function  # registered
        else:
            object.__setattr__(self, "inner", function)

    def forward(self, x: Tensor, c: Tensor, *labels: Tensor) -> Tensor:
        """What the function gives, checked. Raises TypeError or ValueError where it is no image of the shape of x."""
        out = self.inner(x, c, *labels)
        if not isinstance(out, Tensor):
            raise TypeError(f"the network gave a {type(out).__name__}; expected a tensor of the shape of x")
        if out.shape != x.shape:
            raise ValueError(f"the network gave {tuple(out.shape)} for x {tuple(x.shape)}; expected the same shape")
        return out


def from_function(
    function: Callable[..., Tensor],
    process: DiffusionProcess,
    shape: Shape,
    *,
    prediction: str = "noise",
    given: str = "log_sigma",
    factor: float = 1.0,
    scaled: bool = False,
    parametrisation: Parametrisation | None = None,
    data_range: DataRange | None = None,
    levels: int = 256,
) -> ScoreModel:
    """The score of a function `(x, c) → image`, or `(x, c, labels) → image` for `model.conditional(labels)`.

    function         x is float32 `(B, *shape)`, c float32 `(B,)`, labels int64 `(B,)`
    process          the process whose score it is
    prediction       "score", "noise", "denoised", "v" or "flow": see `Predict`
    given, factor    what c is: "log_sigma", "sigma", or "time", multiplied by `factor`
    scaled           whether it takes x/s for x
    parametrisation  in place of the four above
    data_range       the range of x that stands for [0, 1]; [−1, 1] if not said

    Raises ValueError for predictions and times that do not exist.
    """
    chosen = Predict(prediction, given, factor, scaled) if parametrisation is None else parametrisation
    where = DataRange() if data_range is None else data_range
    return ScoreModel(Called(function), process, chosen, where, shape, levels)


def from_denoiser(
    network: Callable[..., Tensor],
    shape: Shape,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    process: DiffusionProcess | None = None,
    classes: int = 0,
    data_range: DataRange | None = None,
    levels: int = 256,
) -> ScoreModel:
    """The score of a denoiser `D(x, σ)`: x = image + noise of standard deviation σ, D its estimate of the image.

    network               `(x, σ) → image`, σ `(B,)`; with classes `(x, σ, one-hot (B, classes)) → image`, all zeros for none
    sigma_min, sigma_max  the noise levels it was trained for; t is σ
    process               another process, to be sampled with it: x/s and σ are what the network sees

    score = (D(x/s, σ) − x/s)/(s σ²): digits are lost where σ is far below the size of x; a network that predicts
    `PredictVelocity` or `EDMPreconditioning` with this library's parametrisation keeps them.

    Reference: Karras et al. (2022), equation 3.
    """
    function = _OneHot(network, classes) if classes else network
    chosen = EDM(sigma_min, sigma_max) if process is None else process
    return from_function(
        function, chosen, shape, prediction="denoised", given="sigma", scaled=True, data_range=data_range, levels=levels
    )


class _OneHot(nn.Module):
    """A network of one-hot labels as one of numbered labels."""

    def __init__(self, network: Callable[..., Tensor], classes: int) -> None:
        super().__init__()
        self.called, self.classes = Called(network), classes

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
        vector = x.new_zeros(len(x), self.classes)
        if labels is not None:
            vector[torch.arange(len(x), device=x.device), labels.clamp_min(0)] = (labels >= 0).to(x.dtype)
        return self.called(x, c, vector)
