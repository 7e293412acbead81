"""`likelihood`: bits per dimension of images under a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from .app import app
from .evaluate import real_images
from .options import Count, Machine, Model, Taken, blaming, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..data import Dequantisation
    from ..model import ScoreModel

_FIT = 1000  # steps of learning a law


@app.command
def likelihood(
    run: Path,
    *,
    data: Path | None = None,
    which: Taken = Taken(),
    tolerance: float = 1e-3,
    probes: Count = 1,
    dequantise: Literal["uniform", "truncated", "learned"] = "uniform",
    weights: Model = Model(),
    seed: int = 0,
    batch: Count = 100,
    on: Machine = Machine(),
) -> int:
    """Bits per dimension of images under a run's model, by the probability-flow ODE; prints one line of JSON.

    Parameters
    ----------
    run
        Folder of the run.
    data
        A folder of images, an array, or an archive; cut and resized to the model's size. [default: the held-out images
        of the run's own data]
    tolerance
        Relative and absolute tolerance of the ODE.
    probes
        Random probes of the divergence for each image.
    dequantise
        Law of the noise within a level: uniform, truncated (normal), or learned on the training images for this model.
    seed
        Of dequantisation and probes.
    batch
        Images solved at a time.
    """
    import json

    from sdekit.scores.divergence import Hutchinson
    from sdekit.steps import Adaptive

    from ..likelihood import bits_per_dim
    from ..progress import work_bar
    from ..run import Run
    from ..variational import dequantised_bits_per_dim

    if not tolerance > 0:
        raise UserError(f"--tolerance: expected a number above 0, got {tolerance}")
    model = weights.load(run, on.start())
    _, images = real_images(Run.open(run).recipe(), model, data)
    if images.shape != model.shape or (data is not None and int(images.images.max()) >= model.levels):
        raise UserError(
            f"{data}: images of shape {images.shape}; the model is of {model.shape} with {model.levels} levels"
        )
    span = which.span(len(images))
    chosen = images.images[span.start : span.stop]
    if len(chosen) == 0:
        raise UserError(f"--images, --first: there are images 0 to {len(images) - 1}, got {span.start}")
    options: dict[str, Any] = {
        "steps": Adaptive(rtol=tolerance, atol=tolerance),
        "divergence": Hutchinson(probes=probes),
        "seed": seed,
        "first": span.start,
        "batch": batch,
    }
    with blaming(run), work_bar("likelihood", len(chosen)) as progress:
        if dequantise == "uniform":
            bits = bits_per_dim(model, chosen, progress=progress, **options)
        else:
            law = _law(run, model, dequantise, progress)
            bits = dequantised_bits_per_dim(model, chosen, law, **options)
    figures: dict[str, Any] = {"bits_per_dim": bits.mean, "standard_error": bits.standard_error, "images": len(chosen)}
    if dequantise != "uniform":
        figures["dequantise"] = dequantise
    say(json.dumps({**figures, "network_evaluations": bits.network_evaluations}))
    return 0


def _law(run: Path, model: ScoreModel, name: str, progress: Callable[[float], None]) -> Dequantisation:
    """The law of dequantisation that is asked for; to learn one, the run's own training images are needed."""
    from ..data import TruncatedNormalNoise
    from ..run import Run
    from ..train import load_images
    from ..variational import fit_dequantisation

    if name == "truncated":
        return TruncatedNormalNoise()
    training, _ = load_images(Run.open(run).recipe())
    return fit_dequantisation(model, training, _FIT, report=lambda step, bound: progress(step / _FIT))
