"""`sample`: images from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .app import app
from .options import Count, Drawn, Machine, Picture, blaming, say
from .samplers import SamplerOptions


@app.command
def sample(
    run: Path,
    *,
    which: Drawn = Drawn(),
    how: SamplerOptions = SamplerOptions(),
    label: int | None = None,
    guidance: float = 1.0,
    checkpoint: Literal["newest", "best"] = "newest",
    average: float | None = None,
    batch: Count = 256,
    picture: Picture = Picture(),
    on: Machine = Machine(),
) -> int:
    """Draw images from a run: a grid as PNG, the images themselves as NPZ, and what they were made with as JSON.

    Parameters
    ----------
    run
        Folder of the run.
    label
        Class of the images, where the network knows classes.
    guidance
        How much the class counts; 1 is as learned.
    checkpoint
        Which checkpoint: the newest, or the best that training measured.
    average
        Width of a power-function average of the weights to put together from the run's snapshots, such as 0.08.
    batch
        Images made at a time.
    """
    import time

    from ..data import quantise, shown
    from ..describe import describe
    from ..pictures import grid
    from ..progress import work_bar
    from ..results import made_with
    from ..run import Run, load
    from ..sampling import draw

    span, seed, sampler = which.span(64), which.seed, how.build()
    first, n = span.start, len(span)
    model = load(run, on.start(), checkpoint, average)
    files = picture.files(run / f"samples-{how.sampler}-seed{seed}-{first}-{first + n - 1}.png")
    start = time.perf_counter()
    with blaming(run), work_bar("sampling", n) as progress:
        samples = draw(model, n, sampler, seed, first, batch, progress, label, guidance)
    about = made_with(
        model,
        Run.open(run).recipe(),
        run=str(run),
        n=n,
        seed=seed,
        first=first,
        batch=batch,
        label=label,
        guidance=guidance,
        checkpoint=checkpoint,
        average=average,
        sampler=describe(sampler),
        network_evaluations=samples.network_evaluations,
        seconds=round(time.perf_counter() - start, 2),
    )
    levels = quantise(samples.images, model.levels)
    arrays = {"images": levels.cpu().numpy(), "levels": model.levels, "seed": seed, "first": first}
    files.write(grid(shown(levels, model.levels)), arrays, about)
    say(f"{n} images, {samples.network_evaluations} network evaluations each: {files.file}")
    return 0
