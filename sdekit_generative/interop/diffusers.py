"""Scores from diffusers: a UNet2DModel and the configuration of the scheduler it was trained with.

    unet, scheduler = UNet2DModel.from_pretrained(folder), DDPMScheduler.from_pretrained(folder)
    model = sg.interop.diffusers.score_model(unet, scheduler)

Where that library is not installed, anything called and configured alike will do.

Schedulers of numbered steps (DDPM, DDIM, DPM-Solver, Euler, …) tell the network k = 0 … N − 1, and step 0 has noise
already: ᾱ_0 = 1 − β_0. Between steps the network is told the fraction. How many steps a scheduler takes to sample, and how
it spaces them, plays no part here. `ScoreSdeVe` tells it σ and gets the score; `EDMEuler` ln σ/4 of a preconditioned image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sdekit.sdes.diffusion import EDM, VE
from sdekit.sdes.process import DiffusionProcess

from ..data.dequantize import DataRange
from ..errors import UserError
from ..model import ScoreModel
from ..parametrisation import EDMPreconditioning, Parametrisation, Predict
from .tabulated import Tabulated, scheduler_betas

_PREDICTIONS = {"epsilon": "noise", "sample": "denoised", "v_prediction": "v"}


class Wrapped(nn.Module):
    """A UNet2DModel as a network `(x, c, labels) → image`. A learned variance, where it has one, is left out."""

    def __init__(self, unet: nn.Module, null_label: int | None) -> None:
        super().__init__()
        self.unet, self.null_label = unet, null_label

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None and self.null_label is not None:
            labels = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        if labels is not None:
            labels = self._named(labels)
        out = self.unet(x, c, return_dict=False, **({} if labels is None else {"class_labels": labels}))[0]
        return out[:, : x.shape[1]]

    def _named(self, labels: Tensor) -> Tensor:
        if self.null_label is None and bool((labels < 0).any()):
            raise ValueError(
                "labels: -1 (no class) needs the label that the network was trained with for it: null_label=…"
            )
        return torch.where(labels < 0, self.null_label or 0, labels)


def score_model(
    unet: nn.Module,
    scheduler: Any,
    *,
    shape: tuple[int, int, int] | None = None,
    null_label: int | None = None,
    data_range: DataRange | None = None,
    levels: int = 256,
) -> ScoreModel:
    """The score of a UNet2DModel trained with a scheduler.

    unet        called as `unet(x, timesteps, class_labels=…, return_dict=False)[0]`
    scheduler   a scheduler, or its configuration (a mapping, as in scheduler_config.json)
    shape       (C, H, W); if not given, from the unet's configuration
    null_label  the class that stands for "no class", of networks trained for classifier-free guidance

    Raises UserError for schedulers and predictions that are not known.
    """
    config: Mapping[str, Any] = scheduler
    if hasattr(scheduler, "config"):  # a scheduler that was not loaded from a file leaves its name out of it
        config = {"_class_name": type(scheduler).__name__, **scheduler.config}
    process, parametrisation = conventions(config)
    where = DataRange() if data_range is None else data_range
    size = _shape(unet) if shape is None else shape
    return ScoreModel(Wrapped(unet, null_label).eval(), process, parametrisation, where, size, levels)


def conventions(config: Mapping[str, Any]) -> tuple[DiffusionProcess, Parametrisation]:
    """The process, and what the network is told and predicts, of a scheduler configuration.

    Raises UserError for schedulers and predictions that are not known.
    """
    name = str(config.get("_class_name", ""))
    predicts = config.get("prediction_type", "epsilon")
    if name.startswith("ScoreSdeVe"):
        ends = float(config.get("sigma_min", 0.01)), float(config.get("sigma_max", 1348.0))
        return VE(*ends), Predict("score", "sigma")
    if name.startswith("EDM") and predicts == "epsilon":
        edm = EDM(float(config.get("sigma_min", 0.002)), float(config.get("sigma_max", 80.0)))
        return edm, EDMPreconditioning(float(config.get("sigma_data", 0.5)))
    known = "num_train_timesteps" in config and ("beta_schedule" in config or config.get("trained_betas") is not None)
    # the same names, but told ln σ/4, or of another process
    otherwise = config.get("timestep_type") == "continuous" or config.get("use_flow_sigmas")
    if not known or otherwise or name.startswith(("EDM", "FlowMatch", "ScoreSdeVp")):
        raise UserError(
            f"scheduler {name or config!r}: expected one of numbered steps with betas (DDPM, DDIM, DPM-Solver, Euler, …), "
            "ScoreSdeVe or EDM with epsilon; for others say the process and the prediction to interop.from_function"
        )
    if predicts not in _PREDICTIONS:
        raise UserError(f"prediction_type: expected one of {', '.join(_PREDICTIONS)}, got {predicts!r}")
    try:
        process = Tabulated.of_betas(scheduler_betas(config))
    except ValueError as problem:
        raise UserError(f"scheduler {name}: {problem}") from None
    return process, Predict(_PREDICTIONS[predicts], given="time")


def _shape(unet: nn.Module) -> tuple[int, int, int]:
    config: Any = getattr(unet, "config", {})
    size = config.get("sample_size") if hasattr(config, "get") else None
    if size is None:
        raise UserError("the network does not say its sample_size; give shape=(C, H, W)")
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(config.get("in_channels", 3)), int(height), int(width)
