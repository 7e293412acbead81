"""Weights split over processes (FSDP), seen whole where they are saved and restored.

Reference: Zhao et al. (2023), "PyTorch FSDP"; Rajbhandari et al. (2020), "ZeRO".
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from .processes import Processes


def shard(network: nn.Module, processes: Processes) -> None:
    """Split a network's parameters over the processes, in place; blocks of convolutions are gathered one at a time."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.size,))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # other layouts than the plain one cannot be split
            module.weight.data = module.weight.data.contiguous()
    for block in _blocks(network):
        fully_shard(block, mesh=mesh)
    # its own weights are split again after a look at it, too, in which no gradient is taken
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The network's parts that have convolutions of their own, inner ones first."""
    found = [m for m in network.modules() if m is not network and any(isinstance(c, nn.Conv2d) for c in m.children())]
    return found[::-1]


def like(value: Tensor, target: Tensor) -> Tensor:
    """A whole value split as the target is."""
    mesh = getattr(target, "device_mesh", None)
    if mesh is None:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(mesh.device_type), mesh, cast(Any, target).placements)
