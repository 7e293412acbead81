"""One training step after another, each a function of (seed, step) alone.

Notation: step k of a run takes the images k·B … (k+1)·B − 1 of an endless sequence, whose n-th image is the n mod
N-th of a permutation keyed by (seed, epoch = ⌊n/N⌋). Times, noise, dequantisation, mirroring and dropout are keyed
by (seed, k, place in the batch). So a run that goes on from step k repeats exactly what the uninterrupted run would
have done, and a batch that is split over processes or parts is still the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sdekit.processes import whole
from sdekit.random import KeyedDraws, Purpose

from ..data import Dataset, permutation
from ..data.dequantize import Dequantisation, UniformNoise
from ..errors import CheckpointError, DataError, RunError
from ..losses import Loss, spread
from ..model import ScoreModel
from .checkpoint import Checkpoint
from .dropout import KeyedDropout
from .ema import EMA, PowerEMA
from .processes import Processes
from .settings import PRECISIONS, Training
from .sharding import like
from .update import Update

_FLIP, _LABEL = 1, 2  # parts of the draws of data, whose part 0 is the order


class Trainer:
    """A model on its way from random weights to trained ones. `steps_done` counts the updates made.

    Raises DataError where classes are to be told that the images do not have, RunError where processes cannot share a batch.
    """

    def __init__(
        self,
        model: ScoreModel,
        images: Dataset,
        loss: Loss,
        training: Training,
        processes: Processes | None = None,
        dequantisation: Dequantisation | None = None,
    ) -> None:
        self.model, self.images, self.loss, self.training = model, images, loss, training
        self.processes = Processes(device=model.device) if processes is None else processes
        self.dequantisation = UniformNoise() if dequantisation is None else dequantisation
        _check_labels(model, images, self.takes_labels)
        self._first, share = self.processes.part(training.batch)
        if share % training.accumulate:
            raise RunError(f"{share} images a process and step cannot be taken in {training.accumulate} equal parts")
        self._part = share // training.accumulate
        self._update = Update(model.network, training, self.processes)
        self._evaluated = replace(model, network=self._update.network, precision=PRECISIONS[training.precision])
        self.ema = EMA(model.network, training.ema)
        self.power_emas = [PowerEMA(model.network, width) for width in training.power_ema]
        self._dropout = KeyedDropout(model.network, training.seed)
        self._draws: dict[int, KeyedDraws] = {}
        self.steps_done, self.gradient_norm = 0, 0.0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def takes_labels(self) -> bool:
        """Whether the network, or the loss, is told classes."""
        classes = getattr(getattr(self.model.network, "config", None), "classes", 0)
        return classes > 0 or getattr(self.loss, "labelled", False)

    def fingerprint(self) -> str:
        """SHA-256 of what is learned from: the images, and their labels where classes are told."""
        return self.images.fingerprint(labelled=self.takes_labels)

    @property
    def finished(self) -> bool:
        """Whether all steps have been made."""
        return self.steps_done >= self.training.steps

    def step(self) -> float:
        """One update; returns the loss. Raises TrainingDiverged where it is not finite; weights are then as before."""
        step, parts, total = self.steps_done, self.training.accumulate, 0.0
        self.model.network.train()
        self._update.clear()
        for part in range(parts):
            with self._update.part(last=part == parts - 1):
                loss = self._loss(step, self._first + part * self._part) / parts
                self._update.add(loss)
            total += float(loss.detach())
        total = self.processes.add_up(total) / self.processes.size
        self.gradient_norm = self._update.make(step, total)
        for average in (self.ema, *self.power_emas):
            average.update(self.model.network)
        self.steps_done += 1
        return total

    def _loss(self, step: int, first: int) -> Tensor:
        """The mean loss of one part, which begins with the `first` sample of the step's batch."""
        n, device, training = self._part, self.model.device, self.training
        draws = self._draws.setdefault(first, KeyedDraws(training.seed, first))
        places = self._places(step)[first : first + n]
        levels = self.images.images[places].to(device, non_blocking=True)
        if training.flip:
            mirrored = draws.uniform(Purpose.DATA, step, (n,), torch.float32, device, part=_FLIP) < 0.5
            levels = torch.where(mirrored[:, None, None, None], levels.flip(-1), levels)
        x0 = self.model.data_range.enter(self.dequantisation(levels, self.images.levels, draws, step))
        u = spread(training.times, training.seed, step, first, n, training.batch, device)
        z = draws.normal(Purpose.PATH, step, tuple(x0.shape), x0.dtype, device)
        signs = None
        if getattr(self.loss, "directed", False):
            signs = draws.sign(Purpose.PROBE, step, tuple(x0.shape), x0.dtype, device)
        with self._dropout.at(step, first, device):
            return self.loss(self._conditioned(places, step, draws), x0, u, z, signs).mean()

    def _conditioned(self, places: Tensor, step: int, draws: KeyedDraws) -> ScoreModel:
        """The model told the classes of these images, but for those of which it is not to know."""
        if self.images.labels is None or not self.takes_labels:
            return self._evaluated
        device = self.model.device
        labels = self.images.labels[places].to(device)
        untold = draws.uniform(Purpose.DATA, step, (len(labels),), torch.float32, device, part=_LABEL)
        return self._evaluated.conditional(torch.where(untold < self.training.label_dropout, -1, labels))

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
        """All that `restore` needs. Where the weights are split, all processes must ask together."""
        weights = {name: whole(value).contiguous() for name, value in self.model.network.state_dict().items()}
        tensors = {"model": weights, "ema": _gathered(self.ema.averages), "optimizer": self._update.moments()}
        state = {"steps_done": self.steps_done, "ema_updates": self.ema.updates, **self._update.state()}
        return Checkpoint(tensors | self.snapshot(), state)

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """The power-function averages as groups of tensors."""
        return {f"power-{average.width:g}": _gathered(average.averages) for average in self.power_emas}

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this same recipe. Raises CheckpointError where the tensors do not fit."""
        copy_into(self.model.network.state_dict(), checkpoint.tensors["model"], "model")
        copy_into(self.ema.averages, checkpoint.tensors["ema"], "ema")
        self._update.restore(checkpoint.tensors["optimizer"], checkpoint.state)
        self.steps_done = _count(checkpoint.state, "steps_done")
        self.ema.updates = _count(checkpoint.state, "ema_updates")
        for average in self.power_emas:
            group = f"power-{average.width:g}"
            copy_into(average.averages, checkpoint.tensors[group], group)
            average.updates = self.ema.updates


def _count(state: Mapping[str, Any], name: str) -> int:
    value = state[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r}")
    return value


def _check_labels(model: ScoreModel, images: Dataset, wanted: bool) -> None:
    """Raises DataError where classes are to be told, and the images have none or more than the network knows."""
    if not wanted:
        return
    if images.labels is None:
        raise DataError(
            "the recipe is for images with classes, and these have none; see data.classes, or network.classes"
        )
    largest, known = int(images.labels.max()), getattr(getattr(model.network, "config", None), "classes", 0)
    if known and largest >= known:
        raise DataError(f"the images have classes up to {largest}; set network.classes to {largest + 1}, not {known}")


def _gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(value).contiguous() for name, value in tensors.items()}


@torch.no_grad()
def copy_into(target: Mapping[str, Tensor], source: Mapping[str, Tensor], group: str) -> None:
    """Copy tensors by name. Raises CheckpointError that names what is missing, left over or of another shape."""
    for name in sorted(set(target) ^ set(source)):
        raise CheckpointError(
            f"{group}.safetensors: {name} is {'missing' if name in target else 'not part of the network'}"
        )
    for name, value in sorted(source.items()):  # in one order in all processes, where weights are split
        if value.shape != target[name].shape:
            raise CheckpointError(
                f"{group}.safetensors: {name} has shape {tuple(value.shape)}, expected {tuple(target[name].shape)}"
            )
        target[name].copy_(like(value, target[name]))
