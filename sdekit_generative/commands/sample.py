"""`sample`: images from a run."""

from __future__ import annotations

from pathlib import Path

from .app import app
from .options import Count, Drawn, Machine, Model, Picture, say
from .samplers import SamplerOptions


@app.command
def sample(
    run: Path,
    *,
    which: Drawn = Drawn(),
    how: SamplerOptions = SamplerOptions(),
    label: int | None = None,
    guidance: float = 1.0,
    weights: Model = Model(),
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
    batch
        Images made at a time.
    """
    from ..data import quantise, shown
    from ..describe import describe
    from ..pictures import grid
    from ..sampling import draw
    from .work import Work

    span, seed, sampler = which.span(64), which.seed, how.build()
    first, n = span.start, len(span)
    work = Work(run, weights, on)
    files = picture.files(run / f"samples-{how.sampler}-seed{seed}-{first}-{first + n - 1}.png")
    with work.bar("sampling", n) as progress:
        samples = draw(work.model, n, sampler, seed, first, batch, progress, label, guidance)
    about = work.record(
        n=n,
        seed=seed,
        first=first,
        batch=batch,
        label=label,
        guidance=guidance,
        sampler=describe(sampler),
        network_evaluations=samples.network_evaluations,
    )
    count = work.model.levels
    levels = quantise(samples.images, count)
    arrays = {"images": levels.cpu().numpy(), "levels": count, "seed": seed, "first": first}
    files.write(grid(shown(levels, count)), arrays, about)
    say(f"{n} images, {samples.network_evaluations} network evaluations each: {files.file}")
    return 0
