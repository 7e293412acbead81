"""`likelihood`: bits per dimension of images under a run's model."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .app import app
from .options import Count, blaming, find_device, say, use_threads


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

    from ..data import Folder
    from ..likelihood import bits_per_dim
    from ..progress import work_bar
    from ..run import Run, load
    from ..train import load_images

    if not tolerance > 0:
        raise UserError(f"--tolerance: expected a number above 0, got {tolerance}")
    use_threads(threads)
    model = load(run, find_device(device))
    images = (
        load_images(Run.open(run).recipe())[1] if data is None else Folder(str(data), channels=model.shape[0]).load()
    )
    if images.shape != model.shape or (data is not None and int(images.images.max()) >= model.levels):
        raise UserError(
            f"{data}: images of shape {images.shape}; the model is of {model.shape} with {model.levels} levels"
        )
    with blaming(run), work_bar("likelihood") as progress:
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
    say(json.dumps({**figures, "network_evaluations": bits.network_evaluations}))
    return 0
