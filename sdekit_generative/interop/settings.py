"""Configurations of the score_sde code, as what they stand for here.

    settings = sg.interop.score_sde.settings(config)              # an ml_collections.ConfigDict, or nested mappings
    network = settings.network.build(settings.shape)
    recipe = dataclasses.replace(recipe, **settings.for_recipe())

Keys that the code reads but does not use (`attention_type`, `conv_size`, `interpolation`, …) play no part here either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.sdes.process import DiffusionProcess

from ..data.dequantize import DataRange
from ..errors import UserError
from ..model import ScoreModel
from ..networks import DDPMConfig, NCSNppConfig, NCSNv2Config, NetworkConfig
from ..song2021 import Song2021

_FIRST_TIME = 1e-5  # at which training and likelihoods end there

_UNET = {  # names there and here
    "nf": "channels",
    "ch_mult": "multipliers",
    "num_res_blocks": "blocks",
    "attn_resolutions": "attention_resolutions",
    "dropout": "dropout",
    "nonlinearity": "activation",
    "conditional": "conditional",
    "resamp_with_conv": "resample_with_conv",
    "scale_by_sigma": "scale_by_sigma",
    "sigma_max": "sigma_max",
    "sigma_min": "sigma_min",
    "num_scales": "levels",
}
_NCSNPP = _UNET | {
    "fir": "fir",
    "fir_kernel": "fir_kernel",
    "skip_rescale": "skip_rescale",
    "resblock_type": "residual",
    "progressive": "progressive",
    "progressive_input": "progressive_input",
    "progressive_combine": "progressive_combine",
    "embedding_type": "embedding",
    "fourier_scale": "fourier_scale",
    "init_scale": "init_scale",
}
_NCSNV2 = {"nf": "channels", "nonlinearity": "activation", "sigma_max": "sigma_max", "sigma_min": "sigma_min"}
_STAGES = {
    "ncsnv2_64": ((1, 2, 2, 2), (1, 1, 2, 4)),
    "ncsnv2_128": ((1, 2, 2, 4, 4), (1, 1, 1, 2, 4)),
    "ncsnv2_256": ((1, 2, 2, 2, 4, 4), (1, 1, 1, 1, 2, 4)),
}


@dataclass(frozen=True)
class Settings:
    """What a configuration there stands for: all that a `ScoreModel` is made of, but for the weights."""

    network: NetworkConfig
    process: DiffusionProcess
    parametrisation: Song2021
    data_range: DataRange
    shape: tuple[int, int, int]

    def for_recipe(self) -> dict[str, Any]:
        """The fields of a `Recipe` that this decides."""
        names = ("network", "process", "parametrisation", "data_range")
        return {name: getattr(self, name) for name in names}

    def build(self, levels: int = 256) -> ScoreModel:
        """The model, its weights freshly initialised."""
        network = self.network.build(self.shape)
        return ScoreModel(network, self.process, self.parametrisation, self.data_range, self.shape, levels)


def settings(config: Any) -> Settings:
    """What a configuration of the score_sde code stands for.

    config: with sections `model`, `data` and `training`, as attributes or as mappings.
    Raises UserError for networks and processes that are not known, and for options that do not fit.
    """
    model, data, training = (_section(config, name) for name in ("model", "data", "training"))
    centered = bool(data.get("centered", False))
    size = int(data["image_size"])
    continuous = bool(training.get("continuous", True))
    conventions = Song2021(continuous, int(model.get("num_scales", 1000)))
    try:
        network = _network(model, centered)
    except (ValueError, TypeError) as problem:
        raise UserError(f"model: {problem}") from None
    where = DataRange(-1.0, 1.0) if centered else DataRange(0.0, 1.0)
    channels = int(data.get("num_channels", data.get("channels", 3)))
    return Settings(network, _process(model, training), conventions, where, (channels, size, size))


def _section(config: Any, name: str) -> Mapping[str, Any]:
    found = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    if found is None:
        raise UserError(f"expected a configuration with sections model, data and training; it has no {name}")
    return found if hasattr(found, "get") else vars(found)


def _network(model: Mapping[str, Any], centered: bool) -> NetworkConfig:
    name = model.get("name")
    if name == "ncsnpp":
        return NCSNppConfig(centered=centered, **_renamed(model, _NCSNPP))
    if name == "ddpm":
        return DDPMConfig(centered=centered, **_renamed(model, _UNET))
    if name in _STAGES:
        levels = {"levels": int(model["num_scales"])} if "num_scales" in model else {}
        return NCSNv2Config(
            multipliers=_STAGES[name][0],
            dilations=_STAGES[name][1],
            centered=centered,
            **levels,
            **_renamed(model, _NCSNV2),
        )
    raise UserError(f"model.name: expected ncsnpp, ddpm or {', '.join(_STAGES)}, got {name!r}")


def _renamed(model: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: _plain(ours, model[theirs]) for theirs, ours in names.items() if theirs in model}


def _plain(name: str, value: Any) -> Any:
    """Tuples for lists, floats for integers where the field is one, lower case for words."""
    if isinstance(value, str):
        return value.lower()
    if name == "fir_kernel":
        return tuple(float(tap) for tap in value)
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return float(value) if name in ("dropout", "fourier_scale", "init_scale", "sigma_max", "sigma_min") else value


def _process(model: Mapping[str, Any], training: Mapping[str, Any]) -> DiffusionProcess:
    kind = str(training.get("sde", "")).lower()
    if kind == "vesde":
        return VE(float(model.get("sigma_min", 0.01)), float(model.get("sigma_max", 50.0)), t_min=_FIRST_TIME)
    betas = float(model.get("beta_min", 0.1)), float(model.get("beta_max", 20.0))
    if kind in ("vpsde", "subvpsde"):
        return (VP if kind == "vpsde" else SubVP)(*betas, t_min=_FIRST_TIME)
    raise UserError(f"training.sde: expected vesde, vpsde or subvpsde, got {kind!r}")
