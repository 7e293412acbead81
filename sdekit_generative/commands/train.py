"""`train`: a network from a recipe, or a run that goes on; in one process, or in as many as torchrun starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..errors import UserError, counted
from .app import app
from .options import Changes, Count, Flag, Machine, changes, find_device, say, use_threads, warn

if TYPE_CHECKING:
    from ..recipes import Recipe
    from ..train import Job
    from ..training import Processes


def train_job(job: Job, threads: int | None, tensorboard: bool = False) -> tuple[int | None, float]:
    """Train a job to its end: (None, seconds), or (exit status, seconds) where it was asked to stop."""
    import time
    from contextlib import nullcontext

    import torch

    from ..progress import training_bar
    from ..training import listening

    trainer, processes, training = job.trainer, job.trainer.processes, job.recipe.training
    use_threads(threads, job.threads)
    if processes.leads:
        each = training.batch // processes.size
        say(f"training in {processes}{f', {each} images each' if processes.size > 1 else ''}")
        if job.before.processes not in (None, processes.size):
            warn(f"note: begun with {job.before.processes} processes: the results will agree to rounding only")
        if job.before.torch not in (None, torch.__version__):
            warn(f"note: begun with torch {job.before.torch}, going on with {torch.__version__}: to rounding only")
    bar = training_bar(training.steps, trainer.steps_done) if processes.leads else nullcontext(_unheard)
    start = time.perf_counter()
    with listening() as stop, bar as report:
        job.train(stop, report, tensorboard)
    seconds = time.perf_counter() - start
    if trainer.finished:
        return None, seconds
    if processes.leads:
        say(f"stopped at step {trainer.steps_done}, saved; go on: sdekit-generative train --resume {job.run.folder}")
    return stop.exit_status, seconds


def _unheard(step: int, loss: float) -> None:
    """What is said in all processes but the first."""


def resume_job(folder: Path, asked: dict[str, str], processes: Processes) -> Job:
    """The job that goes on with a run, announced."""
    from ..recipes import override
    from ..train import resume

    job = resume(folder, lambda recipe: _checked(override(recipe, asked)), processes=processes)
    if processes.leads:
        say(f"going on with {folder} from step {job.trainer.steps_done} of {job.recipe.training.steps}")
    return job


def _checked(recipe: Recipe) -> Recipe:
    """The recipe, where as many processes were started as it asks for."""
    from ..training.processes import check_count

    check_count(recipe.training.processes)
    return recipe


def _try_out(recipe: Recipe, processes: Processes) -> None:
    """One step that is not kept, and what there is to say about it."""
    import time

    from ..train import prepare

    trainer, _ = prepare(recipe, processes)
    start = time.perf_counter()
    loss = trainer.step()
    seconds = time.perf_counter() - start
    weights = sum(p.numel() for p in trainer.model.network.parameters())
    channels, height, width = trainer.model.shape
    if processes.leads:
        depth = f"{counted(channels, 'channel')}, {trainer.model.levels} levels"
        say(f"{len(trainer.images)} images of {width}×{height} pixels, {depth}")
        say(f"{type(trainer.model.network).__name__} of {weights:,} weights, in {processes}")
        say(f"one step of {recipe.training.batch} images: loss {loss:.4f}, {seconds:.2f} s")
        steps, warmup = recipe.training.steps, recipe.training.warmup
        if 2 * warmup > steps:
            say(
                f"the learning rate rises over {warmup} of {steps} steps; a shorter rise: --set training.warmup={steps // 10}"
            )
        say(f"{steps:,} steps at that rate: {_spoken(seconds * steps)}; nothing was written")


def _spoken(seconds: float) -> str:
    """A time for people: 40 s, 12 minutes, 5.5 hours, 15 days."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2.0 * length:
            return f"{seconds / length:.{0 if seconds >= 10.0 * length else 1}f} {unit}"
    return f"{seconds:.0f} s"


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
    processes: Count | None = None,
    on: Machine = Machine(),
    tensorboard: Flag = False,
    print_config: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Flag = False,
) -> int:
    """Train a network: `train digits --out runs/digits`, or go on with a run: `train --resume runs/digits`.

    In many processes: `torchrun --nproc_per_node=8 -m sdekit_generative train …`; the batch is shared by all of them.

    Parameters
    ----------
    recipe
        Name of a recipe (see `recipes`), or a recipe file. With --resume, the run folder may stand here.
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
    processes
        How many processes there must be; another number is refused. [default: as many as were started]
    tensorboard
        Log for TensorBoard as well, into RUN/tensorboard.
    print_config
        Print the recipe with all changes, and do nothing else.
    dry_run
        Read the images, build the network, make one step, and write nothing.
    """
    from .. import recipes

    asked = changes(set, steps=steps, batch=batch, seed=seed, processes=processes)
    if recipe is None and not (resume and out):
        if resume:
            raise UserError("--resume: say which run, e.g. train --resume runs/digits")
        raise UserError(f"say what to train: one of {', '.join(recipes.RECIPES)}, e.g. train digits --out runs/digits")
    wanted = None if resume or recipe is None else recipes.override(recipes.find(recipe), asked)
    if print_config:
        return _print_config(wanted, out or Path(recipe or ""), asked)
    return _train(
        wanted,
        out or (Path("runs") / Path(recipe or "").stem if wanted else Path(recipe or "")),
        asked,
        on,
        tensorboard,
        dry_run,
    )


def _print_config(wanted: Recipe | None, folder: Path, asked: dict[str, str]) -> int:
    from ..files import as_json
    from ..recipes import encode, override
    from ..run import Run

    chosen = override(Run.open(folder).recipe(), asked) if wanted is None else wanted
    say(as_json(encode(chosen)).decode().rstrip())
    return 0


def _train(
    wanted: Recipe | None,
    folder: Path,
    asked: dict[str, str],
    on: Machine,
    tensorboard: bool,
    dry_run: bool,
) -> int:
    """Begin a run of the recipe wanted, or go on with the one in the folder."""
    from ..train import begin
    from ..training import joined

    if wanted is not None:
        _checked(wanted)
    with joined(find_device(on.device)) as processes:
        if dry_run:
            if wanted is None:
                raise UserError("--dry-run: is for new runs; leave out --resume")
            use_threads(on.threads)
            _try_out(wanted, processes)
            return 0
        job = resume_job(folder, asked, processes) if wanted is None else begin(folder, wanted, processes=processes)
        status, _ = train_job(job, on.threads, tensorboard)
        if status is None and processes.leads:
            say(f"trained for {job.trainer.steps_done} steps: {job.run.folder}")
    return status or 0
