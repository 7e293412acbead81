"""`edit`: images reworked, passed between, drawn cooler or towards a class. Each writes a picture and the images."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from ..errors import UserError
from .app import app
from .options import Count, Drawn, Machine, Picture, Taken, blaming, say

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import ScoreModel
    from ..results import Calls, Result

edit_app = App(name="edit", help="Rework images, pass between two, sample cooler or towards a class.")
app.command(edit_app)


def _finish(files: Result, images: Tensor, columns: int | None, said: str, about: dict[str, Any]) -> int:
    from ..pictures import grid

    files.write(grid(images, columns), {"images": images.cpu().numpy()}, about)
    say(f"{said}: {files.file}")
    return 0


def _about(run: Path, model: ScoreModel, calls: Calls, start: float, **more: Any) -> dict[str, Any]:
    from ..results import made_with
    from ..run import Run

    seconds = round(time.perf_counter() - start, 2)
    more = {name: str(value) if isinstance(value, Path) else value for name, value in more.items()}
    return made_with(
        model, Run.open(run).recipe(), run=str(run), **more, network_evaluations=calls.count, seconds=seconds
    )


@edit_app.command
def rework(
    run: Path,
    images: Path | None = None,
    /,
    *,
    noise: float = 0.3,
    steps: Count = 100,
    which: Taken = Taken(),
    seed: int = 0,
    picture: Picture = Picture(),
    on: Machine = Machine(),
) -> int:
    """Add noise to images and take it out again (SDEdit): details below the noise are made anew. Originals on top.

    Parameters
    ----------
    run
        Folder of the run.
    images
        A folder of images, .npz or .npy. [default: the held-out images of the run's own data]
    noise
        Standard deviation of the noise, for images in [0, 1].
    steps
        Steps of the sampler, DPM-Solver++ 2M on the reverse SDE.
    seed
        Of the noise.
    """
    import torch

    from ..editing import rework as rework_images
    from ..editing import stochastic
    from ..progress import work_bar
    from ..results import counting
    from ..run import load
    from .restore import read_images

    span = which.span(8)
    model = load(run, on.start())
    files = picture.files(run / f"rework-{noise:g}-seed{seed}.png")
    before = read_images(run, images, model, span)
    start = time.perf_counter()
    with blaming(run), work_bar("reworking", len(before)) as progress, counting(model.network) as calls:
        after = rework_images(model, before, noise, stochastic(steps), seed, span.start, progress)
    about = _about(
        run, model, calls, start, first=span.start, n=len(before), noise=noise, steps=steps, seed=seed, images=images
    )
    shown = torch.cat((before, after.cpu()))
    return _finish(files, shown, len(before), f"{len(before)} images reworked at noise {noise:g}", about)


@edit_app.command
def interpolate(
    run: Path,
    images: Path | None = None,
    /,
    *,
    frames: Count = 9,
    which: Taken = Taken(),
    tolerance: float = 1e-4,
    picture: Picture = Picture(),
    on: Machine = Machine(),
) -> int:
    """Pass from image to image by way of their latents: a row for each pair of neighbours.

    Parameters
    ----------
    run
        Folder of the run.
    images
        A folder of images, .npz or .npy. [default: the held-out images of the run's own data]
    frames
        Images in a row, both ends included.
    tolerance
        Of the probability flow.
    """
    import torch

    from ..editing import between, decode, encode
    from ..results import counting
    from ..run import load
    from .restore import read_images

    span = which.span(4)
    if frames < 2 or len(span) < 2:
        raise UserError(f"--frames and --images: 2 or more are needed, got {frames} and {len(span)}")
    model = load(run, on.start())
    files = picture.files(run / f"interpolate-{span.start}.png")
    ends = read_images(run, images, model, span)
    start = time.perf_counter()
    with blaming(run), counting(model.network) as calls:
        latents = encode(model, ends, tolerance)
        ways = [between(a, b, frames) for a, b in pairwise(latents)]
        found = decode(model, torch.cat(ways), tolerance)
    about = _about(
        run, model, calls, start, first=span.start, n=len(ends), frames=frames, tolerance=tolerance, images=images
    )
    return _finish(files, found, frames, f"{len(ways)} passages of {frames} images", about)


@edit_app.command
def temper(
    run: Path,
    *,
    temperature: float = 0.8,
    which: Drawn = Drawn(),
    picture: Picture = Picture(),
    on: Machine = Machine(),
) -> int:
    """Draw images from shorter latents: cleaner and less various below temperature 1.

    Parameters
    ----------
    run
        Folder of the run.
    temperature
        What latents are multiplied by; 1 gives plain samples.
    """
    from ..editing import temper as temper_images
    from ..results import counting
    from ..run import load

    span, seed = which.span(64), which.seed
    model = load(run, on.start())
    files = picture.files(run / f"temper-{temperature:g}-seed{seed}.png")
    start = time.perf_counter()
    with blaming(run), counting(model.network) as calls:
        images = temper_images(model, len(span), temperature, seed, span.start)
    about = _about(run, model, calls, start, first=span.start, n=len(span), temperature=temperature, seed=seed)
    return _finish(files, images, None, f"{len(span)} images at temperature {temperature:g}", about)


@edit_app.command
def towards(
    run: Path,
    *,
    label: int,
    weight: float = 1.0,
    which: Drawn = Drawn(),
    steps: Count = 100,
    training: Count = 500,
    picture: Picture = Picture(),
    on: Machine = Machine(),
) -> int:
    """Draw images of one class from a model that knows none, by a classifier trained on the spot on the run's own data.

    Parameters
    ----------
    run
        Folder of the run, whose data have labels.
    label
        The class.
    weight
        How much the classifier counts: 1 as Bayes' rule has it.
    steps
        Steps of the sampler, DPM-Solver++ 2M on the reverse SDE.
    training
        Training steps of the classifier of noisy images, which is made with the same seed.
    """
    from ..editing import stochastic, train_classifier
    from ..editing import towards as draw_towards
    from ..progress import work_bar
    from ..results import counting
    from ..run import Run, load
    from ..train import load_images

    span, seed = which.span(64), which.seed
    model = load(run, on.start())
    files = picture.files(run / f"towards-{label}-{weight:g}-seed{seed}.png")
    data = load_images(Run.open(run).recipe())[0]
    if data.labels is not None and not 0 <= label <= int(data.labels.max()):
        raise UserError(f"--label: the classes are 0 to {int(data.labels.max())}, got {label}")
    start = time.perf_counter()
    with work_bar("classifier", training, "step") as progress:
        classifier = train_classifier(data, model.process, model.data_range, training, seed=seed, progress=progress)
    classifier.to(model.device)
    with blaming(run), work_bar("sampling", len(span)) as progress, counting(model.network) as calls:
        images = draw_towards(
            model, classifier, label, len(span), weight, stochastic(steps), seed, progress, span.start
        )
    about = _about(
        run,
        model,
        calls,
        start,
        first=span.start,
        n=len(span),
        label=label,
        weight=weight,
        steps=steps,
        training=training,
        seed=seed,
    )
    return _finish(files, images, None, f"{len(span)} images towards class {label}", about)
