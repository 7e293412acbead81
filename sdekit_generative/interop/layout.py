"""Which weights of the score_sde PyTorch code are which of ours: a list, in the order in which that code counts them.

That code keeps the parts of a network in one list, `all_modules`, in the order of their use; a part's number is its place
in it, parts without weights included. Averages are stored without names, in the order of parameters that are trained;
Adam's moments in the order of all parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..networks.attention import SelfAttention
from ..networks.embeddings import RandomFourier
from ..networks.ncsnpp import Combine, Leave, NCSNpp
from ..networks.ncsnv2 import MeanPooled, NCSNv2
from ..networks.resample import ConvDown, ConvUp
from ..networks.residual import Residual


@dataclass(frozen=True)
class Entry:
    """One weight there: its key and shape, and the part of our parameter that is its counterpart.

    parameter  ours; None for weights that the code has but never uses
    part       (i, n): rows i/n to (i + 1)/n of ours; (0, 1) for all
    turned     whether it is a matrix (in, out) where ours is a 1×1 convolution
    trained    whether it is among those averaged
    """

    key: str
    shape: tuple[int, ...]
    parameter: Tensor | None
    part: tuple[int, int] = (0, 1)
    turned: bool = False
    trained: bool = True

    def view(self, tensor: Tensor) -> Tensor:
        """The counterpart in a tensor shaped as our parameter, as a view in the shape that it has there."""
        i, n = self.part
        rows = len(tensor) // n
        view = tensor[i * rows : (i + 1) * rows]
        return view[:, :, 0, 0].T if self.turned else view


def ncsnpp_entries(network: NCSNpp) -> list[Entry]:
    """The weights of `ncsnpp` and `ddpm` there, in their order."""
    config = network.config
    unused = () if config.conditional else (4 * config.channels,)
    ddpm = config.residual == "ddpm"
    entries: list[Entry] = []
    for number, part in enumerate(_parts(network)):
        entries += _entries(f"all_modules.{number}", part, unused, ddpm, config.fir)
    return entries


def _parts(network: NCSNpp) -> Iterator[nn.Module | tuple[int, ...]]:
    """The parts in the order of their use; a shape stands for a vector that is there but not here."""
    config, embed = network.config, network.embed
    down: Any = network.down  # torch does not say of what its lists are
    up: Any = network.up
    if embed.features is not None:
        if isinstance(embed.features, RandomFourier):
            yield embed.features
        yield embed.dense_in
        yield embed.dense_out
    elif config.embedding == "fourier":
        yield (config.channels,)
    yield network.enter
    for level in down:
        for i, block in enumerate(level.blocks):
            yield block
            if level.attention is not None:
                yield level.attention[i]
        yield from (part for part in (level.shrink, level.enter) if part is not None)
    yield from (network.middle_in, network.middle_attention, network.middle_out)
    for level in up:
        yield from level.blocks
        if level.attention is not None:
            yield level.attention
        if isinstance(level.leave, Leave):
            yield from level.leave
        elif level.leave is not None:
            yield level.leave
        if level.grow is not None:
            yield level.grow
    if network.leave is not None:
        yield from network.leave


def _entries(
    place: str, part: nn.Module | tuple[int, ...], unused: tuple[int, ...], ddpm: bool, fir: bool
) -> list[Entry]:
    if isinstance(part, tuple):
        return [Entry(f"{place}.W", part, None, trained=False)]
    if isinstance(part, RandomFourier):
        return [Entry(f"{place}.W", tuple(part.W.shape), part.W, trained=False)]
    if isinstance(part, Residual):
        return _residual(place, part, unused, ddpm)
    if isinstance(part, SelfAttention):
        entries = whole(f"{place}.GroupNorm_0", part.norm)
        for i in range(3):
            entries += _matrix(f"{place}.NIN_{i}", part.qkv, (i, 3))
        return entries + _matrix(f"{place}.NIN_3", part.out)
    if isinstance(part, Combine):
        return whole(f"{place}.Conv_0", part.conv)
    if isinstance(part, (ConvDown, ConvUp)):
        return whole(f"{place}.Conv2d_0" if fir else f"{place}.Conv_0", part)
    return whole(place, part)


def _residual(place: str, part: Residual, unused: tuple[int, ...], ddpm: bool) -> list[Entry]:
    entries = whole(f"{place}.GroupNorm_0", part.norm_in) + whole(f"{place}.Conv_0", part.conv_in)
    if unused:  # a network that is not told the noise level keeps the weights for it there
        outputs = len(part.conv_in.weight)
        entries += [
            Entry(f"{place}.Dense_0.weight", (outputs, *unused), None),
            Entry(f"{place}.Dense_0.bias", (outputs,), None),
        ]
    elif part.dense is not None:
        entries += whole(f"{place}.Dense_0", part.dense)
    entries += whole(f"{place}.GroupNorm_1", part.norm_out) + whole(f"{place}.Conv_1", part.conv_out)
    if part.skip is not None:
        entries += _matrix(f"{place}.NIN_0", part.skip) if ddpm else whole(f"{place}.Conv_2", part.skip)
    return entries


def whole(place: str, module: nn.Module | None) -> list[Entry]:
    """Every parameter of a layer, by its own name, in its own order."""
    if module is None:
        return []
    return [Entry(f"{place}.{name}", tuple(p.shape), p) for name, p in module.named_parameters(recurse=False)]


def _matrix(place: str, layer: nn.Conv2d, part: tuple[int, int] = (0, 1)) -> list[Entry]:
    outputs = len(layer.weight) // part[1]
    entries = [Entry(f"{place}.W", (layer.weight.shape[1], outputs), layer.weight, part, turned=True)]
    if layer.bias is not None:
        entries.append(Entry(f"{place}.b", (outputs,), layer.bias, part))
    return entries


# --- NCSNv2 -----------------------------------------------------------------------------------------------------------


def ncsnv2_entries(network: NCSNv2) -> list[Entry]:
    """The weights of `ncsnv2_64`, `_128` and `_256` there, in their order."""
    entries = whole("begin_conv", network.enter) + whole("normalizer", network.norm) + whole("end_conv", network.leave)
    stages = _stage_names(len(network.down))
    down: Any = network.down  # torch does not say of what its lists are
    for name, stage in zip(stages, down, strict=True):
        for i, block in enumerate(stage):
            entries += _instance_residual(f"res{name}.{i}", block)
    # numbered in the order of use, from below, but for six stages, whose 31 is used before 3 and kept after it
    order = [0, 1, 3, 2, 4, 5] if len(stages) == 6 else range(len(stages))
    for name, i in zip(stages, order, strict=True):
        entries += _refine(f"refine{name}", network.up[i])
    return entries


def _stage_names(count: int) -> list[str]:
    """1, 2, 3, …; six stages are 1, 2, 3, 31, 4, 5 there."""
    return ["1", "2", "3", "31", "4", "5"] if count == 6 else [str(i + 1) for i in range(count)]


def _instance_residual(place: str, block: Any) -> list[Entry]:
    pooled = ".conv" if isinstance(block.conv_out, MeanPooled) else ""
    out, shortcut = block.conv_out, block.shortcut
    entries = whole(f"{place}.conv1", block.conv_in) + whole(f"{place}.normalize2", block.norm_out)
    entries += whole(f"{place}.conv2{pooled}", out.conv if pooled else out)
    if shortcut is not None:
        entries += whole(f"{place}.shortcut{pooled}", shortcut.conv if pooled else shortcut)
    return entries + whole(f"{place}.normalize1", block.norm_in)


def _refine(place: str, refine: Any) -> list[Entry]:
    entries: list[Entry] = []
    for i, adapt in enumerate(refine.adapt):
        entries += _adapt(f"{place}.adapt_convs.{i}", adapt)
    entries += _adapt(f"{place}.output_convs", refine.out)
    for i, conv in enumerate(refine.fuse or ()):
        entries += whole(f"{place}.msf.convs.{i}", conv)
    for i, conv in enumerate(refine.chain):
        entries += whole(f"{place}.crp.convs.{i}", conv)
    return entries


def _adapt(place: str, adapt: Any) -> list[Entry]:
    return [
        entry
        for i, unit in enumerate(adapt)
        for j, conv in enumerate(unit)
        for entry in whole(f"{place}.{i + 1}_{j + 1}_conv", conv)
    ]
