"""`train`: a network from a recipe, or a run that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .app import app
from .options import Changes, Count, Flag, changes, find_device, say, use_threads

if TYPE_CHECKING:
    from ..train import Job


def train_job(job: Job, threads: int | None) -> tuple[int | None, float]:
    """Train a job to its end: (None, seconds), or (exit status, seconds) where it was asked to stop."""
    import time

    from ..progress import training_bar
    from ..training import listening

    use_threads(threads, job.threads)
    start, trainer = time.perf_counter(), job.trainer
    with listening() as stop, training_bar(job.recipe.training.steps, trainer.steps_done) as report:
        job.train(stop, report)
    seconds = time.perf_counter() - start
    if stop:
        say(f"stopped at step {trainer.steps_done}, saved; go on: sdekit-generative train --resume {job.run.folder}")
        return stop.exit_status, seconds
    return None, seconds


def resume_job(folder: Path, asked: dict[str, str], device: str) -> Job:
    """The job that goes on with a run, announced."""
    from ..recipes import override
    from ..train import resume

    job = resume(folder, lambda recipe: override(recipe, asked), find_device(device))
    say(f"going on with {folder} from step {job.trainer.steps_done} of {job.recipe.training.steps}")
    return job


@app.command
def train(
    recipe: str | None = None,
    *,
    out: Path | None = None,
    resume: Flag = False,
    steps: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    set: Changes = None,
    threads: Count | None = None,
    device: str = "auto",
) -> int:
    """Train a network: `train digits --out runs/digits`, or go on with a run: `train --resume runs/digits`.

    Parameters
    ----------
    recipe
        Name of a recipe: digits, or folder for one's own images. With --resume, the run folder may stand here.
    out
        Folder of the run. It must not hold anything yet. [default: runs/RECIPE]
    resume
        Go on with the run from its last checkpoint; the result is that of a run without interruption.
    steps
        Short for --set training.steps=…
    batch
        Short for --set training.batch=…
    seed
        Short for --set training.seed=…
    set
        Change any part of the recipe, e.g. --set process=VE --set process.sigma_max=20 --set data.path=images/
    threads
        Torch threads. [default: 2 at most; on resuming, as before]
    device
        auto, cpu, cuda, …
    """
    from .. import recipes
    from ..train import begin

    asked = changes(set, steps=steps, batch=batch, seed=seed)
    if resume:
        folder = out or (Path(recipe) if recipe else None)
        if folder is None:
            raise UserError("--resume: say which run, e.g. train --resume runs/digits")
        job = resume_job(folder, asked, device)
    else:
        if recipe is None:
            raise UserError(
                f"say what to train: one of {', '.join(recipes.RECIPES)}, e.g. train digits --out runs/digits"
            )
        job = begin(out or Path("runs") / recipe, recipes.override(recipes.find(recipe), asked), find_device(device))
    status, _ = train_job(job, threads)
    if status is None:
        say(f"trained for {job.trainer.steps_done} steps: {job.run.folder}")
    return status or 0
