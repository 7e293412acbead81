"""One update of the weights: gradients over all parts and processes, scaling, clipping, Adam.

Notation: a batch of B images is shared by P processes, each taking its share in A parts; the loss is the mean over all.

float16 has so small a range that gradients vanish; they are computed of S times the loss, with S as large as goes. A
step whose gradient overflows is left out, and S is halved.

Reference: Kingma, Ba (2015), Adam; Pascanu, Mikolov, Bengio (2013), clipping; Micikevicius et al. (2018), scaling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sdekit.processes import whole

from ..errors import CheckpointError, TrainingDiverged
from .processes import Processes
from .settings import Training
from .sharding import like, shard

_PATIENCE = 20  # steps in a row that may be left out for overflow, before it is called divergence


class Update:
    """The optimiser of a network, in one process or many. `network` is what the loss must be evaluated with."""

    def __init__(self, network: nn.Module, training: Training, processes: Processes) -> None:
        self._training, self._processes, self._sharded = training, processes, training.shard and processes.size > 1
        self.network: nn.Module = network
        if self._sharded:
            shard(network, processes)
        elif processes.size > 1:
            devices = [processes.device] if processes.device.type == "cuda" else None
            self.network = DistributedDataParallel(network, device_ids=devices)
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._adam = torch.optim.Adam(self.parameters.values(), lr=training.learning_rate, fused=not self._sharded)
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=training.precision == "float16")
        self._left_out = 0

    @contextmanager
    def part(self, last: bool) -> Iterator[None]:
        """Inside, gradients are exchanged with the other processes only in the last part of a batch."""
        waiting: AbstractContextManager[Any] = nullcontext()
        if self._sharded:
            cast(Any, self.network).set_requires_gradient_sync(last)  # fully_shard gives networks this method
        elif isinstance(self.network, DistributedDataParallel) and not last:
            waiting = self.network.no_sync()
        with waiting:
            yield

    def clear(self) -> None:
        """Forget the gradients of the step before."""
        self._adam.zero_grad(set_to_none=True)

    def add(self, loss: Tensor) -> None:
        """Add the gradient of a part's share of the loss."""
        self._scaler.scale(loss).backward()

    def make(self, step: int, loss: float) -> float:
        """Change the weights by the gradient; returns its norm.

        Raises TrainingDiverged where loss or gradient are not finite; the weights are then as before.
        """
        self._scaler.unscale_(self._adam)
        limit = math.inf if self._training.clip is None else self._training.clip
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit)))
        overflow = self._scaler.is_enabled() and not math.isfinite(norm)
        self._left_out = self._left_out + 1 if overflow else 0
        if not overflow or self._left_out > _PATIENCE:
            for name, number in (("loss", loss), ("norm of the gradient", norm)):
                if not math.isfinite(number):
                    raise TrainingDiverged(f"the {name} is {number} at step {step + 1}")
        for group in self._adam.param_groups:
            group["lr"] = self._training.rate(step)
        self._scaler.step(self._adam)
        self._scaler.update()
        return norm

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def moments(self) -> dict[str, Tensor]:
        """Adam's state by "parameter/name"."""
        return {
            f"{name}/{key}": whole(value).contiguous()
            for name, parameter in self.parameters.items()
            for key, value in self._adam.state.get(parameter, {}).items()
        }

    def state(self) -> dict[str, Any]:
        """What else there is to remember, as plain JSON values."""
        return {"scaler": self._scaler.state_dict(), "left_out": self._left_out}

    def restore(self, moments: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Raises CheckpointError where the moments are not of these parameters."""
        for place, value in sorted(moments.items()):
            name, _, key = place.rpartition("/")
            parameter = self.parameters.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                raise CheckpointError(f"optimizer.safetensors: {place} does not fit the network")
            # the fused kernel needs the moments in the memory layout of the parameter
            fitting = value.clone() if value.ndim == 0 else torch.empty_like(parameter).copy_(like(value, parameter))
            self._adam.state[parameter][key] = fitting.detach()
        if self._scaler.is_enabled() and state.get("scaler"):
            self._scaler.load_state_dict(dict(state["scaler"]))
        self._left_out = int(state.get("left_out", 0))
