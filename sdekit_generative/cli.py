"""The command line. Parsing needs no torch: each command imports what it needs when it runs.

Exit status: 0 done (or stopped by SIGTERM, with everything saved), 2 and one line for anything the user can mend, 130
after SIGINT. `--debug` anywhere shows the traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, validators

from .errors import UserError

if TYPE_CHECKING:
    from .sampling import Sampler
    from .train import Job

USER_ERROR, INTERRUPTED = 2, 130

app = App(
    name="sdekit-generative",
    help="Score-based generative models of images: train, sample, and measure. `--debug` shows tracebacks.",
    version=lambda: _version(),
)
data_app = App(name="data", help="Look at images before training on them.")
app.command(data_app)

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Changes = Annotated[list[str] | None, Parameter(name="--set", negative="")]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sdekit")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _use_threads(given: int | None, recorded: int | None = None) -> None:
    """Fix the number of torch threads; results are the same bit for bit only for the same number.

    Two by default: more gain little on networks of this size, and where other processes are busy they cost a lot.
    """
    import torch

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    default = min(2, available, int(os.environ.get("OMP_NUM_THREADS", available)))
    threads = given or recorded or default
    if recorded is not None and threads != recorded:
        print(  # noqa: T201
            f"note: begun with {recorded} threads, going on with {threads}: the results will agree to rounding only",
            file=sys.stderr,
        )
    torch.set_num_threads(threads)


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device: {name} is not a device this torch can use; try auto or cpu") from None
    return device


def _changes(assignments: Sequence[str] | None, **named: object) -> dict[str, str]:
    """`--set place=value` and the options that are short for one, as {place: value}."""
    changes: dict[str, str] = {}
    for assignment in assignments or ():
        place, equals, value = assignment.partition("=")
        if not (place and equals):
            raise UserError(f"--set: expected place=value such as training.steps=200, got {assignment}")
        changes[place] = value
    changes.update({f"training.{name}": str(value) for name, value in named.items() if value is not None})
    return changes


@contextmanager
def _blaming(run: Path) -> Iterator[None]:
    """Says of a solve that fails whose fault it is: a trained score that is not finite."""
    from sdekit.errors import SolveFailed, Status

    try:
        yield
    except SolveFailed as problem:
        failed = int((problem.solution.status > Status.EVENT).sum())
        raise UserError(
            f"{run}: the model gives no finite result for {failed} images; was its training unstable?"
        ) from problem


# --- training ---------------------------------------------------------------------------------------------------------


def _train(job: Job, threads: int | None) -> tuple[int | None, float]:
    """Train a job to its end: (None, seconds), or (exit status, seconds) where it was asked to stop."""
    import time

    from .progress import training_bar
    from .training import listening

    _use_threads(threads, job.threads)
    start, trainer = time.perf_counter(), job.trainer
    with listening() as stop, training_bar(job.recipe.training.steps, trainer.steps_done) as report:
        job.train(stop, report)
    seconds = time.perf_counter() - start
    if stop:
        _say(f"stopped at step {trainer.steps_done}, saved; go on: sdekit-generative train --resume {job.run.folder}")
        return stop.exit_status, seconds
    return None, seconds


def _resume(folder: Path, changes: dict[str, str], device: str) -> Job:
    from .recipes import override
    from .train import resume

    job = resume(folder, lambda recipe: override(recipe, changes), _device(device))
    _say(f"going on with {folder} from step {job.trainer.steps_done} of {job.recipe.training.steps}")
    return job


@app.command
def train(
    recipe: str | None = None,
    *,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
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
    from . import recipes
    from .train import begin

    changes = _changes(set, steps=steps, batch=batch, seed=seed)
    if resume:
        folder = out or (Path(recipe) if recipe else None)
        if folder is None:
            raise UserError("--resume: say which run, e.g. train --resume runs/digits")
        job = _resume(folder, changes, device)
    else:
        if recipe is None:
            raise UserError(
                f"say what to train: one of {', '.join(recipes.RECIPES)}, e.g. train digits --out runs/digits"
            )
        job = begin(out or Path("runs") / recipe, recipes.override(recipes.find(recipe), changes), _device(device))
    status, _ = _train(job, threads)
    if status is None:
        _say(f"trained for {job.trainer.steps_done} steps: {job.run.folder}")
    return status or 0


@app.command
def demo(
    *,
    out: Path = Path("runs/demo"),
    resume: Annotated[bool, Parameter(negative="")] = False,
    steps: int | None = None,
    seed: int | None = None,
    threads: Count | None = None,
) -> int:
    """Everything in one go on the bundled digits: train, sample in two ways, measure, draw.

    Parameters
    ----------
    out
        Folder for the run and its results. It must not hold anything yet.
    resume
        Go on with an interrupted demo.
    steps
        Training steps. [default: as many as reach the figures in the README]
    seed
        Seed of the training.
    threads
        Torch threads. [default: 2 at most]
    """
    from . import recipes
    from .demo import finish
    from .progress import work_bar
    from .train import begin

    changes = _changes(None, steps=steps, seed=seed)
    job = _resume(out, changes, "cpu") if resume else begin(out, recipes.override(recipes.DIGITS, changes))
    status, seconds = _train(job, threads)
    if status is not None:
        return status
    with _blaming(out):
        metrics = finish(job.run, work_bar, seconds)
    bits, base, frechet = metrics["bits_per_dim"], metrics["baselines"], metrics["frechet"]
    _say(f"held-out bits/dim  {bits['mean']:.3f} ± {bits['standard_error']:.3f}")
    _say(f"                   Gaussian {base['gaussian']:.3f}, best Gaussian mixture {base['gaussian_mixture']:.3f}")
    _say(f"Fréchet distance   PC {frechet['pc']:.2f}, ODE {frechet['ode']:.2f}, real digits {frechet['floor']:.2f}")
    _say(f"pictures and metrics.json are in {out}")
    return 0


# --- using a run ------------------------------------------------------------------------------------------------------


def _sampler(name: str, steps: int | None, tolerance: float | None) -> Sampler:
    from .sampling import ODE, PC

    if name == "pc":
        if tolerance is not None:
            raise UserError("--tolerance: is for --sampler ode; the predictor–corrector takes --steps")
        return PC() if steps is None else PC(steps=steps)
    if steps is not None:
        raise UserError("--steps: is for --sampler pc; the ODE sampler takes --tolerance")
    return ODE() if tolerance is None else ODE(rtol=tolerance, atol=tolerance)


@app.command
def sample(
    run: Path,
    *,
    n: Count = 64,
    sampler: Literal["pc", "ode"] = "pc",
    steps: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    first: int = 0,
    out: Path | None = None,
    batch: Count = 256,
    threads: Count | None = None,
    device: str = "auto",
) -> int:
    """Draw images from a run: a grid as PNG, and the images themselves as NPZ beside it.

    Parameters
    ----------
    run
        Folder of the run.
    n
        Number of images.
    sampler
        pc (predictor–corrector) or ode (probability flow).
    steps
        Steps of the predictor–corrector. [default: 500]
    tolerance
        Tolerance of the ODE sampler. [default: 1e-3]
    seed, first
        Which images: image i of a seed is always the same one; these are first … first + n − 1.
    out
        The PNG to write. It must not exist yet. [default: RUN/samples-SAMPLER-seedSEED-FIRST-LAST.png]
    batch
        Images made at a time.
    threads
        Torch threads. [default: 2 at most]
    device
        auto, cpu, cuda, …
    """
    import numpy as np

    from .data import quantise, shown
    from .pictures import grid
    from .progress import work_bar
    from .run import load
    from .sampling import draw

    way = _sampler(sampler, steps, tolerance)
    _use_threads(threads)
    model = load(run, _device(device))
    file = out or run / f"samples-{sampler}-seed{seed}-{first}-{first + n - 1}.png"
    arrays = file.with_suffix(".npz")
    for taken in (file, arrays):
        if taken.exists():
            raise UserError(f"{taken}: exists already; choose another --out")
    if file.suffix.lower() != ".png":
        raise UserError(f"--out: expected a name ending in .png, got {file}")
    with _blaming(run), work_bar("sampling") as progress:
        samples = draw(model, n, way, seed=seed, first=first, batch=batch, progress=progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    levels = quantise(samples.images, model.levels)
    grid(shown(levels, model.levels)).save(file)
    np.savez_compressed(arrays, images=levels.cpu().numpy(), levels=model.levels, seed=seed, first=first)
    _say(f"{n} images, {samples.network_evaluations} network evaluations each: {file}")
    return 0


@app.command
def likelihood(
    run: Path,
    *,
    data: Path | None = None,
    tolerance: float = 1e-3,
    probes: Count = 1,
    seed: int = 0,
    batch: Count = 100,
    threads: Count | None = None,
    device: str = "auto",
) -> int:
    """Bits per dimension of images under a run's model, by the probability-flow ODE; prints one line of JSON.

    Parameters
    ----------
    run
        Folder of the run.
    data
        A folder of images, .npz or .npy. [default: the held-out images of the run's own data]
    tolerance
        Relative and absolute tolerance of the ODE.
    probes
        Random probes of the divergence for each image.
    seed
        Of dequantisation and probes.
    batch
        Images solved at a time.
    threads
        Torch threads. [default: 2 at most]
    device
        auto, cpu, cuda, …
    """
    import json

    from sdekit.scores.divergence import Hutchinson
    from sdekit.steps import Adaptive

    from .data import Folder
    from .likelihood import bits_per_dim
    from .progress import work_bar
    from .run import Run, load
    from .train import load_images

    if not tolerance > 0:
        raise UserError(f"--tolerance: expected a number above 0, got {tolerance}")
    _use_threads(threads)
    model = load(run, _device(device))
    images = (
        load_images(Run.open(run).recipe())[1] if data is None else Folder(str(data), channels=model.shape[0]).load()
    )
    if images.shape != model.shape or (data is not None and int(images.images.max()) >= model.levels):
        raise UserError(
            f"{data}: images of shape {images.shape}; the model is of {model.shape} with {model.levels} levels"
        )
    with _blaming(run), work_bar("likelihood") as progress:
        bits = bits_per_dim(
            model,
            images.images,
            steps=Adaptive(rtol=tolerance, atol=tolerance),
            divergence=Hutchinson(probes=probes),
            seed=seed,
            batch=batch,
            progress=progress,
        )
    figures = {"bits_per_dim": bits.mean, "standard_error": bits.standard_error, "images": len(images)}
    _say(json.dumps({**figures, "network_evaluations": bits.network_evaluations}))
    return 0


@data_app.command
def check(path: Path, *, size: int | None = None, channels: Literal[1, 3] = 3) -> int:
    """Say what is in a folder of images (or a .npz or .npy file), and name the first file that cannot be used.

    Parameters
    ----------
    path
        The folder or file.
    size
        Crop and resize to this many pixels, as the recipe's data.size would.
    channels
        3 for colour, 1 for grey.
    """
    from .data import Folder

    found = Folder(str(path), size=size, channels=channels).load()
    training, held_out = found.split()
    _say(
        f"{len(found)} images of {found.shape[2]}×{found.shape[1]} pixels, "
        f"{found.shape[0]} channels, {found.levels} levels"
    )
    _say(f"{len(training)} for training, {len(held_out)} held out; labels: {'none' if found.labels is None else 'yes'}")
    return 0


# --- entry ------------------------------------------------------------------------------------------------------------


def _one_line(problem: BaseException) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit status, and raises what is not the user's to mend."""
    try:
        result = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as problem:
        raise UserError(_one_line(problem)) from problem
    return result if isinstance(result, int) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: turns every error of use into one line on stderr and status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        return run([a for a in given if a != "--debug"])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError, ValueError) as problem:
        if debug:
            raise
        print(f"sdekit-generative: error: {_one_line(problem)}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
