"""A run from its first step, or its last checkpoint, to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .data import Dataset
from .errors import CheckpointError, RecipeError, RunError, TrainingDiverged
from .recipes import Recipe, decode, differences, encode
from .run import Run
from .training import Stop, Trainer

Report = Callable[[int, float], None]
"""Called after every step with (steps done, loss)."""

_MAY_CHANGE = ("training.steps", "training.save_every", "training.keep")  # they change no step that was already made


@dataclass(frozen=True)
class Job:
    """A trainer with the run it writes to."""

    run: Run
    recipe: Recipe
    trainer: Trainer
    fingerprint: str
    threads: int | None = None
    """Torch threads that the run was begun with, where it goes on."""

    def save(self) -> Path:
        return self.run.save(self.trainer, self.recipe, self.fingerprint)

    def train(self, stop: Stop, report: Report) -> None:
        """Train to the end, or until asked to stop; a checkpoint is saved either way, and every `save_every` steps.

        Raises TrainingDiverged where the loss is not finite; the checkpoints made so far stay.
        """
        trainer, training = self.trainer, self.recipe.training
        with self.run.locked(), self.run.logging(after=trainer.steps_done) as log:
            last = self.save()  # so that there is something to go on from, however soon the first interruption
            while not (trainer.finished or stop):
                rate = training.rate(trainer.steps_done)
                try:
                    loss = trainer.step()
                except TrainingDiverged as problem:
                    raise TrainingDiverged(f"{problem}; the last good checkpoint is {last}") from None
                log.row(step=trainer.steps_done, loss=loss, learning_rate=rate)
                report(trainer.steps_done, loss)
                if trainer.steps_done % training.save_every == 0:
                    last = self.save()
            self.save()


def load_images(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """(train, held-out) images of a recipe."""
    return recipe.data.load().split()


def begin(folder: Path, recipe: Recipe, device: torch.device | str = "cpu") -> Job:
    """A new run in a vacant folder. Nothing is written before the images have been read."""
    images, _ = load_images(recipe)
    model = recipe.build(images.shape, images.levels)
    model.network.to(device)
    trainer = Trainer(model, images, recipe.loss, recipe.training)
    return Job(Run.create(folder, recipe), recipe, trainer, images.fingerprint())


def resume(folder: Path, change: Callable[[Recipe], Recipe], device: torch.device | str = "cpu") -> Job:
    """Go on with a run from its newest checkpoint, or from the start where it was stopped before the first.

    change: what to change in its recipe; of what a step computes, nothing may be changed.
    Raises RunError where the images are not those of the run, RecipeError for a change that cannot be made half-way.
    """
    run = Run.open(folder)
    saved = run.newest()[1] if run.begun() else None
    try:
        before = run.recipe() if saved is None else decode(saved.state["recipe"], Recipe)
        seen, threads = (None, None) if saved is None else (saved.state["images"], int(saved.state["threads"]))
    except (KeyError, RecipeError) as problem:
        raise CheckpointError(f"{folder}: not the checkpoint of a run ({problem})") from None
    recipe = change(before)
    refuse_changes(before, recipe)
    images, _ = load_images(recipe)
    fingerprint = images.fingerprint()
    if seen not in (None, fingerprint):
        raise RunError(f"{folder}: the images have changed since the run was begun; put them back, or begin a new run")
    model = recipe.build(images.shape, images.levels)
    model.network.to(device)
    trainer = Trainer(model, images, recipe.loss, recipe.training)
    if saved is not None:
        trainer.restore(saved)
    return Job(run, recipe, trainer, fingerprint, threads)


def refuse_changes(before: Recipe, after: Recipe) -> None:
    """Raises RecipeError where a run that goes on would not be the run that was begun."""
    changed = differences(encode(before), encode(after))
    if before.training.cooldown > 0:
        allowed: tuple[str, ...] = _MAY_CHANGE[1:]  # the learning rate then depends on the number of steps
    else:
        allowed = _MAY_CHANGE
    for place, (old, new) in changed.items():
        if place not in allowed:
            raise RecipeError(
                f"{place} is {old} in this run and cannot become {new} half-way; begin a new run with --out"
            )
