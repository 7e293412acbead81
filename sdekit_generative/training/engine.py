"""One training step after another, each a function of (seed, step) alone.

Notation: step k of a run takes the images k·B … (k+1)·B − 1 of an endless sequence, whose n-th image is the n mod
N-th of a permutation keyed by (seed, epoch = ⌊n/N⌋). Times, noise, dequantisation and dropout are keyed
by (seed, k). So a run that goes on from step k repeats exactly what the uninterrupted run would have done.

Reference: Kingma, Ba (2015), Adam; Pascanu, Mikolov, Bengio (2013), gradient clipping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.random import KeyedDraws, Purpose

from ..data import Dataset, dequantise, permutation
from ..errors import CheckpointError, TrainingDiverged
from ..losses import DenoisingLoss, stratified
from ..model import ScoreModel
from ..randomness import scoped_seed
from .checkpoint import Checkpoint
from .ema import EMA

_DROPOUT = 1  # keeps the key of dropout apart from that of initialisation


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    steps, batch             number of updates, and images in each
    learning_rate, warmup    Adam's rate, reached linearly over `warmup` steps
    cooldown                 share of the steps, at the end, over which the rate falls linearly to zero
    clip                     largest norm of the gradient; a larger one is scaled down to it
    ema                      decay of the average of the weights
    save_every, keep         steps between checkpoints, and how many are kept
    seed                     of everything random in the run
    """

    steps: int = 1000
    batch: int = 128
    learning_rate: float = 2e-4
    warmup: int = 100
    cooldown: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    save_every: int = 100
    keep: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not (self.learning_rate > 0 and self.clip > 0 and self.warmup >= 0):
            raise ValueError("learning_rate and clip: expected above 0; warmup: 0 or more")
        if not (0 <= self.cooldown <= 1 and 0 <= self.ema < 1):
            raise ValueError("cooldown and ema: expected a number from 0 to 1")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, …: `learning_rate · min(1, (k+1)/warmup, (steps−k)/(cooldown steps))`."""
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        fall = (self.steps - step) / (self.cooldown * self.steps) if self.cooldown else 1.0
        return self.learning_rate * min(1.0, rise, fall)


class Trainer:
    """A model on its way from random weights to trained ones. `steps_done` counts the updates made."""

    def __init__(self, model: ScoreModel, images: Dataset, loss: DenoisingLoss, training: Training) -> None:
        self.model, self.images, self.loss, self.training = model, images, loss, training
        self.ema = EMA(model.network, training.ema)
        self.steps_done = 0
        self._parameters = dict(model.network.named_parameters())
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=training.learning_rate, fused=True)
        self._draws = KeyedDraws(training.seed)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def finished(self) -> bool:
        return self.steps_done >= self.training.steps

    def step(self) -> float:
        """One update; returns the loss. Raises TrainingDiverged where it is not finite; weights are then as before."""
        step, network = self.steps_done, self.model.network
        network.train()
        with scoped_seed(self.training.seed, _DROPOUT, step):
            loss = self._loss(step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.training.clip)
        value = float(loss.detach())
        for name, number in (("loss", value), ("norm of the gradient", float(norm))):
            if not math.isfinite(number):
                raise TrainingDiverged(f"the {name} is {number} at step {step + 1}")
        for group in self._optimizer.param_groups:
            group["lr"] = self.training.rate(step)
        self._optimizer.step()
        self.ema.update(network)
        self.steps_done += 1
        return value

    def _loss(self, step: int) -> Tensor:
        batch, device = self.training.batch, self.model.device
        levels = self.images.images[self._places(step)].to(device)
        x0 = self.model.data_range.enter(dequantise(levels, self.images.levels, self._draws, step))
        shift = self._draws.uniform(Purpose.TIME, step, (1,), torch.float64, device)
        z = self._draws.normal(Purpose.PATH, step, tuple(x0.shape), x0.dtype, device)
        return self.loss(self.model, x0, stratified(batch, shift), z).mean()

    def _places(self, step: int) -> Tensor:
        """Which images step k takes: int64 `(batch,)`."""
        places, n = [], step * self.training.batch
        end = n + self.training.batch
        while n < end:
            epoch, position = divmod(n, len(self.images))
            if epoch != self._epoch:
                self._epoch, self._order = epoch, permutation(len(self.images), self.training.seed, epoch)
            taken = self._order[position : position + end - n]
            places.append(taken)
            n += len(taken)
        return torch.cat(places)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """All that `restore` needs."""
        moments = {
            f"{name}/{key}": value.detach().contiguous()
            for name, parameter in self._parameters.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }
        weights = {name: value.detach().contiguous() for name, value in self.model.network.state_dict().items()}
        averages = {name: value.contiguous() for name, value in self.ema.averages.items()}
        state = {"steps_done": self.steps_done, "ema_updates": self.ema.updates}
        return Checkpoint({"model": weights, "ema": averages, "optimizer": moments}, state)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this same recipe. Raises CheckpointError where the tensors do not fit."""
        copy_into(self.model.network.state_dict(), checkpoint.tensors["model"], "model")
        copy_into(self.ema.averages, checkpoint.tensors["ema"], "ema")
        moments: dict[str, dict[str, Tensor]] = {name: {} for name in self._parameters}
        for place, value in checkpoint.tensors["optimizer"].items():
            name, key = place.rsplit("/", 1)
            parameter = self._parameters[name]
            # the fused kernel needs the moments in the memory layout of the parameter
            moments[name][key] = value.clone() if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
        for name, parameter in self._parameters.items():
            if moments[name]:
                self._optimizer.state[parameter] = moments[name]
        self.steps_done = int(checkpoint.state["steps_done"])
        self.ema.updates = int(checkpoint.state["ema_updates"])


@torch.no_grad()
def copy_into(target: Mapping[str, Tensor], source: Mapping[str, Tensor], group: str) -> None:
    """Copy tensors by name. Raises CheckpointError that names what is missing, left over or of another shape."""
    for name in sorted(set(target) ^ set(source)):
        raise CheckpointError(
            f"{group}.safetensors: {name} is {'missing' if name in target else 'not part of the network'}"
        )
    for name, value in source.items():
        if value.shape != target[name].shape:
            raise CheckpointError(
                f"{group}.safetensors: {name} has shape {tuple(value.shape)}, expected {tuple(target[name].shape)}"
            )
        target[name].copy_(value)
