"""A model as a folder that diffusers loads: `UNet2DModel.from_pretrained(folder, subfolder="unet")`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sdekit.sdes.diffusion import VE, VP

from ..errors import UserError
from ..model import ScoreModel
from ..networks.ncsnpp import Combine, NCSNpp, NCSNppConfig
from ..networks.resample import QUADRATIC_SPLINE
from ..song2021 import Song2021

Named = Iterator[tuple[str, Tensor]]


def to_diffusers(model: ScoreModel, folder: str | Path) -> Path:
    """Write a folder with the network as a UNet2DModel and the scheduler of its process, which diffusers loads.

    Two families of networks have a counterpart there: DDPM (positional embedding, plain sums, blocks without resampling
    inside, no filters), and NCSN++ with Fourier embedding, filters [1, 3, 3, 1], "input_skip" added and "output_skip".
    There DDPM attends after every block on the way up, here after the last: the others become attention that adds nothing.

    Schedulers: discrete VP becomes DDPM's with the model's steps, continuous VP DDPM's with 1000, VE ScoreSdeVe's.
    Raises UserError where the network or the process has no counterpart, and says which option is in the way.
    """
    folder, network = Path(folder), model.network
    if not isinstance(network, NCSNpp):
        raise UserError(f"{type(network).__name__} has no counterpart in diffusers; DDPM and NCSN++ networks do")
    scheduler = _scheduler(model)
    config = network.config
    skip = config.embedding == "fourier"
    _check(config, _SKIP if skip else _DDPM)
    unet = _unet_config(network, model.shape, skip)
    weights = {
        name: (value[:, :, 0, 0] if _is_linear(name) else value).detach().cpu().contiguous()
        for name, value in (_skip_weights(network) if skip else _ddpm_weights(network))
    }
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    new = not folder.exists()
    try:
        for part in ("unet", "scheduler"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(weights, folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        _write(folder / "unet" / "config.json", unet)
        _write(folder / "scheduler" / "scheduler_config.json", scheduler)
        if not skip:
            _write(folder / "model_index.json", index | {"scheduler": ["diffusers", scheduler["_class_name"]]})
    except (OSError, safetensors.SafetensorError) as problem:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{folder}: cannot be written ({problem})") from None
    return folder


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


_COMMON = {"activation": "swish", "conditional": True}
_DDPM = _COMMON | {
    "embedding": "positional",
    "residual": "ddpm",
    "skip_rescale": False,
    "fir": False,
    "resample_with_conv": True,
    "progressive": "none",
    "progressive_input": "none",
    "scale_by_sigma": False,
}
_SKIP = _COMMON | {
    "residual": "biggan",
    "skip_rescale": True,
    "fir": True,
    "fir_kernel": QUADRATIC_SPLINE,
    "progressive": "output_skip",
    "progressive_input": "input_skip",
    "progressive_combine": "sum",
    "scale_by_sigma": True,
    "classes": 0,
}


def _check(config: NCSNppConfig, wanted: dict[str, object]) -> None:
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise UserError(
                f"diffusers has no network like this one: {name} is {getattr(config, name)!r}, not {value!r}"
            )
    if config.multipliers[0] != 1:
        raise UserError(
            f"diffusers has no network like this one: multipliers begin with {config.multipliers[0]}, not 1"
        )


def _scheduler(model: ScoreModel) -> dict[str, Any]:
    process, conventions = model.process, model.parametrisation
    if not isinstance(conventions, Song2021):
        raise UserError(f"diffusers has no counterpart of {type(conventions).__name__}; that of Song2021 has one")
    if isinstance(process, VE) and conventions.continuous:
        ends = {"sigma_min": process.sigma_min, "sigma_max": process.sigma_max}
        return {"_class_name": "ScoreSdeVeScheduler", "num_train_timesteps": conventions.steps, **ends}
    if isinstance(process, VP):
        steps = 1000 if conventions.continuous else conventions.steps  # continuous networks are told 999 t whatever N
        return {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": steps,
            "beta_start": process.beta_min / steps,
            "beta_end": process.beta_max / steps,
            "beta_schedule": "linear",
            "prediction_type": "epsilon",
            "variance_type": "fixed_large",
            "clip_sample": False,
        }
    raise UserError(f"diffusers has no scheduler for {process}; VP and continuous VE have one")


def _unet_config(network: NCSNpp, shape: tuple[int, int, int], skip: bool) -> dict[str, Any]:
    config = network.config
    down: Any = network.down
    attends = [level.attention is not None for level in down]
    kind = "Skip" if skip else ""
    names = [f"{'Attn' if attend else ''}{kind}DownBlock2D" for attend in attends]
    groups = {norm.num_groups for norm in network.modules() if isinstance(norm, nn.GroupNorm)}
    if (skip and shape[0] != 3) or (not skip and len(groups) != 1):
        raise UserError("diffusers has no network like this one: it takes images of 3 colours, or one number of groups")
    for level, attend in zip(down, attends, strict=True):
        if skip and attend and level.attention[0].norm.num_groups != 32:
            raise UserError("diffusers has no network like this one: levels with attention need 128 channels or more")
    return {
        "_class_name": "UNet2DModel",
        "sample_size": shape[1] if shape[1] == shape[2] else list(shape[1:]),
        "in_channels": shape[0],
        "out_channels": shape[0],
        "center_input_sample": not config.centered,
        "time_embedding_type": config.embedding,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "down_block_types": names,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(names)],
        "block_out_channels": config.widths,
        "layers_per_block": config.blocks,
        "mid_block_scale_factor": 2.0**0.5 if skip else 1,
        "downsample_padding": 1 if skip else 0,
        "dropout": config.dropout,
        "act_fn": "silu",
        "attention_head_dim": None,
        "norm_num_groups": None if skip else groups.pop(),
        "norm_eps": 1e-6,
        "num_class_embeds": config.classes + 1 if config.classes else None,
    }


def _is_linear(name: str) -> bool:
    return name.endswith(".weight") and any(part in name for part in (".to_q", ".to_k", ".to_v", ".to_out"))


# --- weights by the names there ---------------------------------------------------------------------------------------


def _layer(name: str, layer: Any) -> Named:
    for parameter, value in layer.named_parameters(recurse=False):
        yield f"{name}.{parameter}", value


def _resnet(name: str, block: Any) -> Named:
    parts = {
        "norm1": block.norm_in,
        "conv1": block.conv_in,
        "time_emb_proj": block.dense,
        "norm2": block.norm_out,
        "conv2": block.conv_out,
        "conv_shortcut": block.skip,
    }
    for part, layer in parts.items():
        if layer is not None:
            yield from _layer(f"{name}.{part}", layer)


def _attention(name: str, attention: Any) -> Named:
    yield from _layer(f"{name}.group_norm", attention.norm)
    for kind in ("weight", "bias"):
        rows = getattr(attention.qkv, kind).chunk(3)
        for part, value in zip(("to_q", "to_k", "to_v"), rows, strict=True):
            yield f"{name}.{part}.{kind}", value
        yield f"{name}.to_out.0.{kind}", getattr(attention.out, kind)


def _nothing(named: Named) -> Named:
    """Attention of the same shapes that adds nothing."""
    for name, value in named:
        yield name, torch.ones_like(value) if "group_norm.weight" in name else torch.zeros_like(value)


def _frame(network: NCSNpp) -> Named:
    """The embedding, the first layer and the middle, which both families have in common."""
    embed: Any = network.embed
    yield from _layer("time_embedding.linear_1", embed.dense_in)
    yield from _layer("time_embedding.linear_2", embed.dense_out)
    if embed.label is not None:
        yield "class_embedding.weight", embed.label.weight
    yield from _layer("conv_in", network.enter)
    yield from _resnet("mid_block.resnets.0", network.middle_in)
    yield from _attention("mid_block.attentions.0", network.middle_attention)
    yield from _resnet("mid_block.resnets.1", network.middle_out)


def _level_down(name: str, level: Any) -> Named:
    for j, block in enumerate(level.blocks):
        yield from _resnet(f"{name}.resnets.{j}", block)
        if level.attention is not None:
            yield from _attention(f"{name}.attentions.{j}", level.attention[j])


def _ddpm_weights(network: NCSNpp) -> Named:
    yield from _frame(network)
    down: Any = network.down
    for i, level in enumerate(down):
        name = f"down_blocks.{i}"
        yield from _level_down(name, level)
        if level.shrink is not None:
            yield from _layer(f"{name}.downsamplers.0.conv", level.shrink)
    levels: Any = network.up
    for i, level in enumerate(levels):
        for j, block in enumerate(level.blocks):
            yield from _resnet(f"up_blocks.{i}.resnets.{j}", block)
            if level.attention is not None:
                named = _attention(f"up_blocks.{i}.attentions.{j}", level.attention)
                yield from named if j == len(level.blocks) - 1 else _nothing(named)
        if level.grow is not None:
            yield from _layer(f"up_blocks.{i}.upsamplers.0.conv", level.grow)
    leave: Any = network.leave
    yield from _layer("conv_norm_out", leave[0])
    yield from _layer("conv_out", leave[1])


def _skip_weights(network: NCSNpp) -> Named:
    yield from _frame(network)
    features: Any = network.embed.features
    yield "time_proj.weight", features.W
    down: Any = network.down
    for i, level in enumerate(down):
        name = f"down_blocks.{i}"
        yield from _level_down(name, level)
        if isinstance(level.enter, Combine):
            yield from _resnet(f"{name}.resnet_down", level.shrink)
            yield from _layer(f"{name}.skip_conv", level.enter.conv)
    levels: Any = network.up
    for i, level in enumerate(levels):
        for j, block in enumerate(level.blocks):
            yield from _resnet(f"up_blocks.{i}.resnets.{j}", block)
        if level.attention is not None:
            yield from _attention(f"up_blocks.{i}.attentions.0", level.attention)
        norm, conv = (
            ("conv_norm_out", "conv_out")
            if level.grow is None
            else (
                f"up_blocks.{i}.skip_norm",
                f"up_blocks.{i}.skip_conv",
            )
        )
        yield from _layer(norm, level.leave[0])
        yield from _layer(conv, level.leave[1])
        if level.grow is not None:
            yield from _resnet(f"up_blocks.{i}.resnet_up", level.grow)
