"""Weights of the score_sde PyTorch code, in and out: state dicts, and checkpoints of its training.

    network = sg.NCSNppConfig(centered=False).build((3, 32, 32))
    sg.interop.score_sde.load(network, state_dict)                  # by the names of that code
    saved = sg.interop.score_sde.read("checkpoint_24.pth")          # weights only: nothing in the file is run
    sg.interop.score_sde.load_averages(network, saved)
    model = sg.ScoreModel(network, sg.VE(...), sg.Song2021(), sg.DataRange(0, 1), (3, 32, 32), 256)

Works at any size and with any options of NCSN++, DDPM++, DDPM and NCSNv2; `settings(config)` reads a configuration of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, UserError
from ..files import aside
from ..networks.ncsnpp import NCSNpp
from ..networks.ncsnv2 import NCSNv2
from ..pth import read_pth
from .layout import Entry, ncsnpp_entries, ncsnv2_entries
from .settings import Settings, settings

__all__ = [
    "Saved",
    "Settings",
    "averaged",
    "entries",
    "load",
    "load_averages",
    "read",
    "save",
    "settings",
    "state_dict",
]

_PREFIX = "module."  # of torch's DataParallel
_SHOWN = 3  # names in a message


def entries(network: nn.Module) -> list[Entry]:
    """The weights of that code which this network has counterparts of, in that code's order.

    Raises TypeError for networks that have none.
    """
    if isinstance(network, NCSNpp):
        if network.config.classes:
            raise TypeError("the score_sde code has no networks with classes; build it with classes=0")
        return ncsnpp_entries(network)
    if isinstance(network, NCSNv2):
        return ncsnv2_entries(network)
    raise TypeError(f"expected an NCSN++, DDPM++, DDPM or NCSNv2 network, got {type(network).__name__}")


# --- state dicts ------------------------------------------------------------------------------------------------------


def load(network: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Give a network the weights of a state dict of that code, and return it. The prefix "module." is taken off.

    Raises CheckpointError that names what is missing, left over, of another shape, or not finite, or noise levels
    (`sigmas`) other than those of the network; the network is then as it was. TypeError for another kind of network.
    """
    if isinstance(state_dict.get("model"), Mapping):
        raise CheckpointError(
            "a whole checkpoint, not a state dict; give its ['model'], or load_averages(network, read(file))"
        )
    found = {key.removeprefix(_PREFIX): value for key, value in state_dict.items()}
    sigmas = found.pop("sigmas", None)
    wanted = entries(network)
    keys = {entry.key for entry in wanted}
    _refuse("weights are missing", [key for key in keys if key not in found])
    _refuse("weights are not part of this network", [key for key in found if key not in keys])
    _check_shapes(wanted, [found[entry.key] for entry in wanted])
    _check_sigmas(network, sigmas)
    _copy(wanted, [found[entry.key] for entry in wanted])
    return network


@torch.no_grad()
def state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network by the names of that code: the inverse of `load`.

    Weights that the code has but does not use are zero. Raises TypeError for another kind of network.
    """
    return {
        e.key: torch.zeros(e.shape) if e.parameter is None else e.view(e.parameter.detach()).clone().contiguous()
        for e in entries(network)
    }


def save(network: nn.Module, file: str | Path) -> Path:
    """Write the weights of a network by the names of that code, as safetensors.

    Raises UserError for another kind of network, or where the file cannot be written.
    """
    try:
        with aside(Path(file)) as hidden:
            safetensors.torch.save_file(state_dict(network), hidden)
    except (TypeError, OSError, safetensors.SafetensorError) as problem:
        raise UserError(f"{file}: cannot be written ({problem})") from None
    return Path(file)


def _refuse(complaint: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise CheckpointError(f"{len(names)} {complaint}: {', '.join(sorted(names)[:_SHOWN])}{more}; {_HINT}")


_HINT = "is the network built with the sizes and options it was trained with?"


def _check_shapes(wanted: Sequence[Entry], values: Sequence[Tensor]) -> None:
    for entry, value in zip(wanted, values, strict=True):
        if not isinstance(value, Tensor) or tuple(value.shape) != entry.shape:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(f"{entry.key}: expected shape {entry.shape}, got {given}; {_HINT}")
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{entry.key}: has values that are not finite")


def _check_sigmas(network: nn.Module, sigmas: Tensor | None) -> None:
    """The noise levels kept in a state dict, against those the network was built with."""
    config: Any = network.config
    positions = getattr(config, "embedding", "positional") == "positional" and getattr(config, "scale_by_sigma", True)
    if sigmas is None or not positions:
        return
    wanted = (config.levels, config.sigma_max, config.sigma_min)
    given = (len(sigmas), float(sigmas[0]), float(sigmas[-1]))
    if given[0] != wanted[0] or any(abs(a / b - 1.0) > 1e-6 for a, b in zip(given[1:], wanted[1:], strict=True)):
        raise CheckpointError(
            f"sigmas: {given[0]} from {given[1]:g} to {given[2]:g}, but the network was built "
            f"with levels={wanted[0]}, sigma_max={wanted[1]:g}, sigma_min={wanted[2]:g}"
        )


@torch.no_grad()
def _copy(wanted: Sequence[Entry], values: Sequence[Tensor]) -> None:
    for entry, value in zip(wanted, values, strict=True):
        if entry.parameter is not None:
            entry.view(entry.parameter).copy_(value)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint of that code.

    model     the raw weights by name
    averages  the averaged weights, in the order of trained parameters, without names; what samples are made with
    step      updates made; None where the file does not say
    decay     of the averages, and how many updates they had
    moments   Adam's state by the number of the parameter; None where the file has none
    """

    model: Mapping[str, Tensor]
    averages: Sequence[Tensor]
    step: int | None
    decay: float | None
    updates: int | None
    moments: Mapping[int, Mapping[str, Any]] | None


def read(path: str | Path) -> Saved:
    """A checkpoint file of that code, without running anything that may be in it.

    Raises CheckpointError where the file is missing, damaged, or something else.
    """
    path = Path(path)
    try:
        with _numpy_scalars():
            content = read_pth(path)
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except Exception as problem:  # a damaged file may fail in any way
        raise CheckpointError(
            f"{path}: not a file of weights, or damaged, or it asks for code to be run ({type(problem).__name__})"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a state dict or a checkpoint, got {type(content).__name__}")
    return _sorted_out(path, content)


def _numpy_scalars() -> AbstractContextManager[None]:
    """The learning rate is saved as a NumPy number, which plain weights-only loading refuses."""
    import numpy
    from numpy.dtypes import Float64DType

    scalar = numpy._core.multiarray.scalar  # pyright: ignore[reportAttributeAccessIssue]
    # files written under NumPy 1 name it by its old place
    names: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), numpy.dtype, Float64DType]
    return torch.serialization.safe_globals(names)


def _sorted_out(path: Path, content: Mapping[str, Any]) -> Saved:
    model = content.get("model", content if all(isinstance(v, Tensor) for v in content.values()) else None)
    if not isinstance(model, Mapping) or not model:
        raise CheckpointError(
            f"{path}: no weights in it; it holds {', '.join(map(str, list(content)[:8])) or 'nothing'}"
        )
    ema = content.get("ema") if "model" in content else None
    ema = ema if isinstance(ema, Mapping) else {}
    averages = ema.get("shadow_params", [])
    optimizer = content.get("optimizer") if "model" in content else None
    moments = optimizer.get("state") if isinstance(optimizer, Mapping) else None
    step = content.get("step")
    return Saved(
        model,
        averages if isinstance(averages, (list, tuple)) else [],
        int(step) if "model" in content and step is not None else None,
        ema.get("decay"),
        ema.get("num_updates"),
        moments if isinstance(moments, Mapping) and moments else None,
    )


def load_averages(network: nn.Module, saved: Saved) -> nn.Module:
    """Give a network the averaged weights of a checkpoint, and what is not averaged from the raw ones.

    Raises CheckpointError where there are no averages, or not as many as trained weights.
    """
    load(network, saved.model)
    _copy(*averaged(network, saved))
    return network


def averaged(network: nn.Module, saved: Saved) -> tuple[list[Entry], Sequence[Tensor]]:
    """The trained weights and their averages, pair by pair. Raises CheckpointError as `load_averages` does."""
    trained = [entry for entry in entries(network) if entry.trained]
    if len(saved.averages) != len(trained):
        raise CheckpointError(f"{len(saved.averages)} averages for {len(trained)} trained weights; {_HINT}")
    _check_shapes(trained, saved.averages)
    return trained, saved.averages
