"""`film`: noise turning into images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from .app import app
from .options import Drawn, Machine, Model, say
from .samplers import SamplerOptions


@app.command
def film(
    run: Path,
    *,
    which: Drawn = Drawn(),
    frames: Annotated[int, Parameter(validator=validators.Number(gte=3))] = 24,
    how: SamplerOptions = SamplerOptions(),
    weights: Model = Model(),
    out: Path | None = None,
    on: Machine = Machine(),
) -> int:
    """Show noise turning into images: an animated GIF, or a strip of film with a row for each image (PNG).

    Every frame is shown in its own range, since noise is many times brighter than an image. The images are those that
    `sample` draws with the same options.

    Parameters
    ----------
    run
        Folder of the run.
    frames
        Frames of each image, from the prior to the image itself; even steps of the logarithm of the noise.
    out
        A name in .gif for the animation or in .png for the strip. Beside it go the states (.npz) and what they were made
        with (.json); none may exist yet. [default: RUN/film-SAMPLER-seedSEED-FIRST-LAST.gif]
    """
    from ..describe import describe
    from ..pictures import animation, grid
    from ..pictures import film as shown
    from ..results import Result
    from ..sampling import trajectory
    from .work import Work

    span, seed, sampler = which.span(8), which.seed, how.build()
    first, n = span.start, len(span)
    work = Work(run, weights, on)
    usual = run / f"film-{how.sampler}-seed{seed}-{first}-{first + n - 1}.gif"
    files = Result.vacant(out or usual, (".gif", ".png"))
    with work.bar("sampling", n) as progress:
        states, levels = trajectory(work.model, n, frames, sampler, seed, first, progress)
    states = states.cpu()
    moves = files.file.suffix.lower() == ".gif"
    picture = animation(states) if moves else grid(shown(states), columns=frames)
    about = work.record(n=n, seed=seed, first=first, frames=frames, sampler=describe(sampler))
    files.write(picture, {"states": states.numpy(), "log_sigma": levels.numpy()}, about)
    say(f"{n} images in {frames} frames, {work.evaluations} network evaluations each: {files.file}")
    return 0
