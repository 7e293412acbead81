"""`sample`: images from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import UserError
from .app import app
from .options import Count, blaming, find_device, say, use_threads

if TYPE_CHECKING:
    from ..sampling import Sampler


def _sampler(name: str, steps: int | None, tolerance: float | None) -> Sampler:
    from ..sampling import ODE, PC

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

    from ..data import quantise, shown
    from ..pictures import grid
    from ..progress import work_bar
    from ..run import load
    from ..sampling import draw

    way = _sampler(sampler, steps, tolerance)
    use_threads(threads)
    model = load(run, find_device(device))
    file = out or run / f"samples-{sampler}-seed{seed}-{first}-{first + n - 1}.png"
    arrays = file.with_suffix(".npz")
    for taken in (file, arrays):
        if taken.exists():
            raise UserError(f"{taken}: exists already; choose another --out")
    if file.suffix.lower() != ".png":
        raise UserError(f"--out: expected a name ending in .png, got {file}")
    with blaming(run), work_bar("sampling") as progress:
        samples = draw(model, n, way, seed=seed, first=first, batch=batch, progress=progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    levels = quantise(samples.images, model.levels)
    grid(shown(levels, model.levels)).save(file)
    np.savez_compressed(arrays, images=levels.cpu().numpy(), levels=model.levels, seed=seed, first=first)
    say(f"{n} images, {samples.network_evaluations} network evaluations each: {file}")
    return 0
