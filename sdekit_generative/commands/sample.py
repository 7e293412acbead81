"""`sample`: images from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import UserError
from .app import app
from .options import Count, blaming, find_device, say, use_threads
from .samplers import SamplerOptions

if TYPE_CHECKING:
    from ..model import ScoreModel
    from ..samplers import Sampler


@app.command
def sample(
    run: Path,
    *,
    n: Count = 64,
    how: Annotated[SamplerOptions | None, Parameter(name="*")] = None,
    seed: int = 0,
    first: int = 0,
    label: int | None = None,
    guidance: float = 1.0,
    checkpoint: Literal["newest", "best"] = "newest",
    average: float | None = None,
    out: Path | None = None,
    batch: Count = 256,
    threads: Count | None = None,
    device: str = "auto",
) -> int:
    """Draw images from a run: a grid as PNG, the images themselves as NPZ, and what they were made with as JSON.

    Parameters
    ----------
    run
        Folder of the run.
    n
        Number of images.
    seed
        Image i of a seed is always the same one.
    first
        Index of the first image; these are first … first + n − 1.
    label
        Class of the images, where the network knows classes.
    guidance
        How much the class counts; 1 is as learned.
    checkpoint
        Which checkpoint: the newest, or the best that training measured.
    average
        Width of a power-function average of the weights to put together from the run's snapshots, such as 0.08.
    out
        The PNG to write. It must not exist yet. [default: RUN/samples-SAMPLER-seedSEED-FIRST-LAST.png]
    batch
        Images made at a time.
    threads
        Torch threads. [default: 2 at most]
    device
        auto, cpu, cuda, …
    """
    import time

    from ..progress import work_bar
    from ..run import load
    from ..sampling import draw

    how = how or SamplerOptions()
    sampler = how.build()
    use_threads(threads)
    model = load(run, find_device(device), checkpoint, average)
    file = out or run / f"samples-{how.sampler}-seed{seed}-{first}-{first + n - 1}.png"
    _check_free(file)
    start = time.perf_counter()
    with blaming(run), work_bar("sampling") as progress:
        samples = draw(model, n, sampler, seed, first, batch, progress, label, guidance)
    about = {
        "run": str(run),
        "n": n,
        "seed": seed,
        "first": first,
        "batch": batch,
        "label": label,
        "guidance": guidance,
        "checkpoint": checkpoint,
        "average": average,
    }
    about |= {"network_evaluations": samples.network_evaluations, "seconds": round(time.perf_counter() - start, 2)}
    _keep(file, model, samples.images, sampler, about)
    say(f"{n} images, {samples.network_evaluations} network evaluations each: {file}")
    return 0


def _check_free(file: Path) -> None:
    if file.suffix.lower() != ".png":
        raise UserError(f"--out: expected a name ending in .png, got {file}")
    for taken in (file, file.with_suffix(".npz"), file.with_suffix(".json")):
        if taken.exists():
            raise UserError(f"{taken}: exists already; choose another --out")


def _keep(file: Path, model: ScoreModel, images: Any, sampler: Sampler, about: dict[str, Any]) -> None:
    """Write the picture, and beside it the images and what they were made with."""
    import numpy as np

    from ..data import quantise, shown
    from ..describe import describe, describe_model, versions
    from ..pictures import grid
    from ..training.files import as_json, replace_file

    file.parent.mkdir(parents=True, exist_ok=True)
    levels = quantise(images, model.levels)
    grid(shown(levels, model.levels)).save(file)
    np.savez_compressed(
        file.with_suffix(".npz"),
        images=levels.cpu().numpy(),
        levels=model.levels,
        seed=about["seed"],
        first=about["first"],
    )
    made = {**about, "sampler": describe(sampler), "model": describe_model(model), "versions": versions()}
    replace_file(file.with_suffix(".json"), as_json(made))
