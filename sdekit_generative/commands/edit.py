"""`edit`: images reworked, passed between, drawn cooler or towards a class. Each writes a picture and the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from ..errors import UserError
from .app import app
from .options import Count, Drawn, Machine, Model, Picture, Taken, say

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..model import ScoreModel
    from ..results import Result

edit_app = App(name="edit", help="Rework images, pass between two, sample cooler or towards a class.")
app.command(edit_app)


def _finish(files: Result, images: Tensor, columns: int | None, said: str, about: dict[str, Any]) -> int:
    from ..pictures import grid

    files.write(grid(images, columns), {"images": images.cpu().numpy()}, about)
    say(f"{said}: {files.file}")
    return 0


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
    weights: Model = Model(),
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
    from .restore import read_images
    from .work import Work

    span = which.span(8)
    work = Work(run, weights, on)
    files = picture.files(run / f"rework-{noise:g}-seed{seed}.png")
    before = read_images(run, images, work.model, span)
    with work.bar("reworking", len(before)) as progress:
        after = rework_images(work.model, before, noise, stochastic(steps), seed, span.start, progress)
    about = work.record(first=span.start, n=len(before), noise=noise, steps=steps, seed=seed, images=images)
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
    weights: Model = Model(),
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
    from ..editing import interpolate as pass_between
    from .restore import read_images
    from .work import Work

    span = which.span(4)
    if frames < 2 or len(span) < 2:
        raise UserError(f"--frames and --images: 2 or more are needed, got {frames} and {len(span)}")
    work = Work(run, weights, on)
    files = picture.files(run / f"interpolate-{span.start}.png")
    ends = read_images(run, images, work.model, span)
    passages = len(ends) - 1
    with work.bar("interpolating", passages * frames) as progress:
        found = pass_between(work.model, ends, frames, tolerance, progress).flatten(0, 1)
    about = work.record(first=span.start, n=len(ends), frames=frames, tolerance=tolerance, images=images)
    return _finish(files, found, frames, f"{passages} passages of {frames} images", about)


@edit_app.command
def temper(
    run: Path,
    *,
    temperature: float = 0.8,
    which: Drawn = Drawn(),
    picture: Picture = Picture(),
    weights: Model = Model(),
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
    from .work import Work

    span, seed = which.span(64), which.seed
    work = Work(run, weights, on)
    files = picture.files(run / f"temper-{temperature:g}-seed{seed}.png")
    with work.bar("sampling", len(span)) as progress:
        images = temper_images(work.model, len(span), temperature, seed, span.start, progress=progress)
    about = work.record(first=span.start, n=len(span), temperature=temperature, seed=seed)
    return _finish(files, images, None, f"{len(span)} images at temperature {temperature:g}", about)


@edit_app.command
def towards(
    run: Path,
    *,
    label: int,
    classifier: Path | None = None,
    weight: float = 1.0,
    which: Drawn = Drawn(),
    steps: Count = 100,
    training: Count = 500,
    picture: Picture = Picture(),
    weights: Model = Model(),
    on: Machine = Machine(),
) -> int:
    """Draw images of one class from a model that knows none, by a classifier of noisy images.

    Parameters
    ----------
    run
        Folder of the run.
    label
        The class.
    classifier
        Folder of a run of a classifier, such as one of the recipe digits-classifier. [default: a small one is trained on
        the spot on the run's own data, which must have labels]
    weight
        How much the classifier counts: 1 as Bayes' rule has it; 2 to 4 make up for one that is unsure.
    steps
        Steps of the sampler, DPM-Solver++ 2M on the reverse SDE.
    training
        Training steps of the classifier that is trained on the spot, with the same seed.
    """
    from ..editing import stochastic
    from ..editing import towards as draw_towards
    from ..run import load_classifier
    from .work import Work

    span, seed = which.span(64), which.seed
    work = Work(run, weights, on)
    model, n, first = work.model, len(span), span.start
    files = picture.files(run / f"towards-{label}-{weight:g}-seed{seed}.png")
    guide = (
        _train_classifier(run, model, label, training, seed).to(model.device)
        if classifier is None
        else load_classifier(classifier, model.device, guides=model)
    )
    with work.bar("sampling", n) as progress:
        images = draw_towards(model, guide, label, n, weight, stochastic(steps), seed, progress, first)
    trained = {"training": training} if classifier is None else {"classifier": classifier}
    about = work.record(first=first, n=n, label=label, weight=weight, steps=steps, seed=seed, **trained)
    return _finish(files, images, None, f"{n} images towards class {label}", about)


def _train_classifier(run: Path, model: ScoreModel, label: int, steps: int, seed: int) -> nn.Module:
    from ..editing import train_classifier
    from ..progress import work_bar
    from ..run import Run
    from ..train import load_images

    data = load_images(Run.open(run).recipe())[0]
    if data.labels is not None and not 0 <= label <= int(data.labels.max()):
        raise UserError(f"--label: the classes are 0 to {int(data.labels.max())}, got {label}")
    with work_bar("classifier", steps, "step") as progress:
        return train_classifier(data, model.process, model.data_range, steps, seed=seed, progress=progress)
