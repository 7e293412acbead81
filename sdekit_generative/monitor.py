"""A look at a network while it trains: the averaged weights measured and sampled, without disturbing a step.

loss      the training objective on held-out images, times and noise being the same at every look
frechet   distance of samples to the training images, in features of the digits' classifier
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from sdekit.counters import fold
from sdekit.random import KeyedDraws, Purpose

from .data import Dataset, quantise, shown
from .describe import describe
from .errors import RecipeError
from .files import aside
from .losses import spread
from .pictures import grid
from .recipes import Recipe
from .results import made_with, sidecar
from .samplers import Fast
from .sampling import draw
from .training import Trainer

_HELD_OUT, _BATCH = 1024, 128  # images that are looked at, and at a time
_DRAWN, _PICTURED = 256, 64
_SAMPLER = Fast(steps=18)


class Monitor:
    """Measures and pictures of a trainer's averaged weights.

    Raises RecipeError for a measure that these images do not allow.
    """

    def __init__(self, trainer: Trainer, held_out: Dataset) -> None:
        self._trainer, self._held_out = trainer, held_out
        if trainer.training.sample_every and getattr(trainer.loss, "labelled", False):
            raise RecipeError("training.sample_every: a classifier cannot be sampled; set it to 0")
        digits = held_out.shape == (1, 8, 8) and held_out.levels == 17
        if trainer.training.measure_every and trainer.training.measure == "frechet" and not digits:
            raise RecipeError("training.measure: the Fréchet distance has features for the digits only; take loss")

    @torch.no_grad()
    def measure(self) -> float:
        """The measure that the recipe asks for; smaller is better. All processes must ask together."""
        trainer = self._trainer
        with trainer.ema.lent_to(trainer.model.network):
            trainer.model.network.eval()
            return self._frechet() if trainer.training.measure == "frechet" else self._loss()

    @torch.no_grad()
    def picture(self, file: Path, recipe: Recipe | None = None) -> None:
        """Write a grid of samples, and what they were made with beside it. All processes must ask together."""
        trainer = self._trainer
        if not (trainer.processes.leads or trainer.training.shard):
            return
        with trainer.ema.lent_to(trainer.model.network):
            trainer.model.network.eval()
            start, seed = time.perf_counter(), trainer.training.seed
            found = draw(trainer.model, _PICTURED, _SAMPLER, seed=seed, batch=_PICTURED)
            seconds, levels = round(time.perf_counter() - start, 2), trainer.model.levels
            about = {"step": trainer.steps_done, "n": _PICTURED, "seed": seed, "sampler": describe(_SAMPLER)}
            about |= {"network_evaluations": found.network_evaluations, "seconds": seconds}
            about = made_with(trainer.model, recipe, **about)
            if not trainer.processes.leads:
                return
            file.parent.mkdir(exist_ok=True)
            with aside(file) as hidden:
                grid(shown(quantise(found.images, levels), levels).cpu()).save(hidden)
            sidecar(file, about)

    def _loss(self) -> float:
        """Each process takes every so-manieth batch; all of them where weights are split, since these need all."""
        trainer, images = self._trainer, self._held_out
        seed, count = fold(trainer.training.seed, _HELD_OUT), min(_HELD_OUT, len(images))
        alone = trainer.training.shard or trainer.processes.size == 1
        rank, step = (0, 1) if alone else (trainer.processes.rank, trainer.processes.size)
        total = 0.0
        for first in list(range(0, count, _BATCH))[rank::step]:
            total += self._loss_of(first, min(_BATCH, count - first), count, seed)
        return (total if alone else trainer.processes.add_up(total)) / count

    def _loss_of(self, first: int, n: int, total: int, seed: int) -> float:
        trainer, device, draws = self._trainer, self._trainer.model.device, KeyedDraws(seed, first)
        levels = self._held_out.images[first : first + n].to(device)
        x0 = trainer.model.data_range.enter(trainer.dequantisation(levels, self._held_out.levels, draws))
        u = spread("stratified", seed, 0, first, n, total, device)
        z = draws.normal(Purpose.PATH, 0, tuple(x0.shape), x0.dtype, device)
        signs = draws.sign(Purpose.PROBE, 0, tuple(x0.shape), x0.dtype, device)
        model = trainer.model
        if self._held_out.labels is not None and trainer.takes_labels:
            model = replace(model, labels=self._held_out.labels[first : first + n].to(device))
        return float(trainer.loss(model, x0, u, z, signs).double().sum())

    def _frechet(self) -> float:
        from .metrics import digit_features, frechet_distance

        trainer = self._trainer
        images = draw(trainer.model, _DRAWN, _SAMPLER, seed=trainer.training.seed, batch=_DRAWN).images
        levels = quantise(images, trainer.model.levels).cpu()
        return frechet_distance(digit_features(levels), digit_features(trainer.images.images))
