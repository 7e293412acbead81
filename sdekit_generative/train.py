"""A run from its first step, or its last checkpoint, to its end."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from .data import Dataset
from .errors import CheckpointError, DataWarning, RecipeError, RunError, TrainingDiverged
from .log import Seal
from .monitor import Monitor
from .recipes import Recipe, decode, differences, encode
from .run import Run, check_vacant
from .training import Checkpoint, Processes, Stop, Trainer
from .training.settings import FREE_TO_CHANGE

Report = Callable[[int, float], None]
"""Called after every step with (steps done, loss)."""


@dataclass(frozen=True)
class Before:
    """What a run that goes on was made with until now; None where it has no checkpoint yet, or is new."""

    threads: int | None = None
    processes: int | None = None
    torch: str | None = None
    log: Seal | None = None


@dataclass(frozen=True)
class Job:
    """A trainer with the run it writes to. In a run of many processes each has one; the first of them writes."""

    run: Run
    recipe: Recipe
    trainer: Trainer
    held_out: Dataset
    before: Before = Before()

    @property
    def threads(self) -> int | None:
        """Torch threads that the run was begun with, where it goes on."""
        return self.before.threads

    def save(self, measure: float | None = None) -> Path:
        """Write a checkpoint. All processes must save together."""
        return self.run.save(self.trainer, self.recipe, measure)

    def train(self, stop: Stop, report: Report, tensorboard: bool = False) -> None:
        """Train to the end, or until any process is asked to stop; a checkpoint is saved either way.

        Raises TrainingDiverged where the loss is not finite; the checkpoints made so far stay.
        """
        trainer, training, first = self.trainer, self.recipe.training, self.trainer.processes.leads
        monitor = Monitor(trainer, self.held_out)
        with self.run.training(first, trainer.steps_done, tensorboard, self.before.log) as log:
            last = self.save()  # so that there is something to go on from, however soon the first interruption
            stopped = stop.agreed(trainer.processes)
            while not (trainer.finished or stopped):
                rate = training.rate(trainer.steps_done)
                try:
                    loss = trainer.step()
                except TrainingDiverged as problem:
                    raise TrainingDiverged(f"{problem}; the last good checkpoint is {last}") from None
                done, row = trainer.steps_done, {"loss": loss, "learning_rate": rate, "gradient": trainer.gradient_norm}
                measure = monitor.measure() if _due(done, training.measure_every) else None
                if measure is not None:
                    row[training.measure if training.measure != "loss" else "held_out_loss"] = measure
                log.row(step=done, **row)
                if _due(done, training.sample_every):
                    monitor.picture(self.run.folder / "samples" / f"step-{done:08d}.png", self.recipe)
                if training.power_ema and _due(done, training.snapshot_every):
                    self.run.save_snapshot(trainer)
                if first:
                    report(done, loss)
                stopped = stop.agreed(trainer.processes)
                if _due(done, training.save_every) or measure is not None or trainer.finished or stopped:
                    last = self.save(measure)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def load_images(recipe: Recipe, aloud: bool = True) -> tuple[Dataset, Dataset]:
    """(train, held-out) images of a recipe. aloud: whether to warn (DataWarning) of what is odd about them."""
    with warnings.catch_warnings():
        if not aloud:
            warnings.simplefilter("ignore", DataWarning)
        return recipe.data.load().split()


def prepare(recipe: Recipe, processes: Processes, vacant: Path | None = None) -> tuple[Trainer, Dataset]:
    """(trainer, held-out images) of a recipe; vacant is a folder in which a run is to begin.

    Where one process fails, all do; the others say what it said.
    """
    with processes.all_or_none():
        if vacant is not None and processes.leads:
            check_vacant(vacant)
        images, held_out = load_images(recipe, aloud=processes.leads)
        model = recipe.build(images.shape, images.levels)
        model.network.to(processes.device)
    processes.check_same("the recipe", encode(recipe))
    processes.check_same("the set of images", images.fingerprint(labelled=True))
    return Trainer(model, images, recipe.loss, recipe.training, processes, recipe.dequantisation), held_out


def _processes(processes: Processes | None, device: torch.device | str) -> Processes:
    return Processes(device=torch.device(device)) if processes is None else processes


def begin(folder: Path, recipe: Recipe, device: torch.device | str = "cpu", processes: Processes | None = None) -> Job:
    """A new run in a vacant folder. Nothing is written before the images have been read."""
    trainer, held_out = prepare(recipe, _processes(processes, device), vacant=folder)
    with trainer.processes.all_or_none():
        run = Run.create(folder, recipe) if trainer.processes.leads else Run(folder)
    return Job(run, recipe, trainer, held_out)


def resume(
    folder: Path,
    change: Callable[[Recipe], Recipe],
    device: torch.device | str = "cpu",
    processes: Processes | None = None,
) -> Job:
    """Go on with a run from its newest whole checkpoint, or from the start where it was stopped before the first.

    change: what to change in its recipe; of what a step computes, nothing may be changed.
    Raises RunError where the images are not those of the run, RecipeError for a change that cannot be made half-way.
    """
    processes = _processes(processes, device)
    with processes.all_or_none():
        run = Run.open(folder)
        # what another process trains would change while it is read
        with run.locked() if processes.leads else nullcontext():
            saved = run.newest()[1] if run.begun() else None
            before, seen, made = _recorded(run, saved)
        recipe = change(before)
        refuse_changes(before, recipe)
    trainer, held_out = prepare(recipe, processes)
    if seen not in (None, now := trainer.fingerprint()):
        raise RunError(
            f"{folder}: the images have changed since the run was begun (SHA-256 {str(seen)[:12]}, now {now[:12]}); "
            "put them back, or begin a new run"
        )
    if saved is not None:
        _restore(trainer, saved, folder)
    trainer.processes.check_same("the step to go on from", trainer.steps_done)
    return Job(run, recipe, trainer, held_out, made)


def _restore(trainer: Trainer, saved: Checkpoint, folder: Path) -> None:
    try:
        trainer.restore(saved)
    except CheckpointError as problem:
        raise CheckpointError(f"{folder}: {problem}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise CheckpointError(f"{folder}: not the checkpoint of a run ({problem!r})") from None


def _recorded(run: Run, saved: Checkpoint | None) -> tuple[Recipe, str | None, Before]:
    """(recipe, fingerprint of the images, what it was made with) of a run."""
    if saved is None:
        return run.recipe(), None, Before()
    state = saved.state
    try:
        log, counts = state.get("log"), (int(state["threads"]), int(state.get("processes", 1)))
        made = Before(*counts, state.get("torch"), None if log is None else Seal(**log))
        return decode(state["recipe"], Recipe), state["images"], made
    except (KeyError, TypeError, ValueError, OverflowError, RecipeError) as problem:
        raise CheckpointError(f"{run.folder}: not the checkpoint of a run ({problem})") from None


def refuse_changes(before: Recipe, after: Recipe) -> None:
    """Raises RecipeError where a run that goes on would not be the run that was begun."""
    changed = differences(encode(before), encode(after))
    allowed = set(FREE_TO_CHANGE)
    if before.training.cooldown > 0:
        allowed.remove("training.steps")  # the learning rate then depends on it
    if before.training.measure_every > 0:
        allowed.remove("training.measure")  # of measures of two kinds, none is the best
    for place, (old, new) in changed.items():
        if place not in allowed:
            raise RecipeError(
                f"{place} is {old} in this run and cannot become {new} half-way; begin a new run with --out"
            )
