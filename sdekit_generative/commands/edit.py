"""`edit`: images reworked, passed between, drawn cooler or towards a class. Each writes a picture and the images."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from ..errors import UserError
from .app import app
from .options import Count, blaming, find_device, say, use_threads

if TYPE_CHECKING:
    from torch import Tensor

edit_app = App(name="edit", help="Rework images, pass between two, sample cooler or towards a class.")
app.command(edit_app)


def _outputs(out: Path | None, default: Path) -> Path:
    file = out or default
    if file.suffix.lower() != ".png":
        raise UserError(f"--out: expected a name ending in .png, got {file}")
    for taken in (file, file.with_suffix(".npz")):
        if taken.exists():
            raise UserError(f"{taken}: exists already; choose another --out")
    return file


def _write(images: Tensor, file: Path, columns: int | None, what: str) -> int:
    import numpy as np

    from ..pictures import grid

    file.parent.mkdir(parents=True, exist_ok=True)
    grid(images, columns).save(file)
    np.savez_compressed(file.with_suffix(".npz"), images=images.cpu().numpy())
    say(f"{what}: {file}")
    return 0


@edit_app.command
def rework(
    run: Path,
    images: Path | None = None,
    *,
    noise: float = 0.3,
    steps: Count = 100,
    count: Count = 8,
    first: int = 0,
    seed: int = 0,
    out: Path | None = None,
    threads: Count | None = None,
    device: str = "auto",
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
    count, first
        How many images, and the first of them.
    seed
        Of the noise.
    out
        The PNG to write. It must not exist yet. [default: RUN/rework-NOISE-seedSEED.png]
    threads
        Torch threads. [default: 2 at most]
    device
        auto, cpu, cuda, …
    """
    import torch

    from ..editing import rework as rework_images
    from ..editing import stochastic
    from ..progress import work_bar
    from ..run import load
    from .restore import read_images

    use_threads(threads)
    model = load(run, find_device(device))
    file = _outputs(out, run / f"rework-{noise:g}-seed{seed}.png")
    before = read_images(run, images, model, first, count)
    with blaming(run), work_bar("reworking") as progress:
        after = rework_images(model, before, noise, stochastic(steps), seed, first, progress)
    shown = torch.cat((before, after.cpu()))
    return _write(shown, file, len(before), f"{len(before)} images reworked at noise {noise:g}")


@edit_app.command
def interpolate(
    run: Path,
    images: Path | None = None,
    *,
    frames: Count = 9,
    count: Count = 4,
    first: int = 0,
    tolerance: float = 1e-4,
    out: Path | None = None,
    threads: Count | None = None,
    device: str = "auto",
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
    count, first
        How many images, and the first of them; one row fewer.
    tolerance
        Of the probability flow.
    out
        The PNG to write. It must not exist yet. [default: RUN/interpolate-FIRST.png]
    threads
        Torch threads. [default: 2 at most]
    device
        auto, cpu, cuda, …
    """
    import torch

    from ..editing import between, decode, encode
    from ..run import load
    from .restore import read_images

    if frames < 2 or count < 2:
        raise UserError(f"--frames and --count: 2 or more are needed, got {frames} and {count}")
    use_threads(threads)
    model = load(run, find_device(device))
    file = _outputs(out, run / f"interpolate-{first}.png")
    ends = read_images(run, images, model, first, count)
    with blaming(run):
        latents = encode(model, ends, tolerance)
        ways = [between(a, b, frames) for a, b in pairwise(latents)]
        found = decode(model, torch.cat(ways), tolerance)
    return _write(found, file, frames, f"{len(ways)} passages of {frames} images")


@edit_app.command
def temper(
    run: Path,
    *,
    temperature: float = 0.8,
    n: Count = 64,
    seed: int = 0,
    out: Path | None = None,
    threads: Count | None = None,
    device: str = "auto",
) -> int:
    """Draw images from shorter latents: cleaner and less various below temperature 1.

    Parameters
    ----------
    run
        Folder of the run.
    temperature
        What latents are multiplied by; 1 gives plain samples.
    n
        Number of images.
    seed
        Of the latents.
    out
        The PNG to write. It must not exist yet. [default: RUN/temper-TEMPERATURE-seedSEED.png]
    threads
        Torch threads. [default: 2 at most]
    device
        auto, cpu, cuda, …
    """
    from ..editing import temper as temper_images
    from ..run import load

    use_threads(threads)
    model = load(run, find_device(device))
    file = _outputs(out, run / f"temper-{temperature:g}-seed{seed}.png")
    with blaming(run):
        images = temper_images(model, n, temperature, seed)
    return _write(images, file, None, f"{n} images at temperature {temperature:g}")


@edit_app.command
def towards(
    run: Path,
    *,
    label: int,
    weight: float = 1.0,
    n: Count = 64,
    steps: Count = 100,
    training: Count = 500,
    seed: int = 0,
    out: Path | None = None,
    threads: Count | None = None,
    device: str = "auto",
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
    n
        Number of images.
    steps
        Steps of the sampler, DPM-Solver++ 2M on the reverse SDE.
    training
        Training steps of the classifier of noisy images.
    seed
        Of the samples and of the classifier.
    out
        The PNG to write. It must not exist yet. [default: RUN/towards-LABEL-WEIGHT-seedSEED.png]
    threads
        Torch threads. [default: 2 at most]
    device
        auto, cpu, cuda, …
    """
    from ..editing import stochastic, train_classifier
    from ..editing import towards as draw_towards
    from ..progress import work_bar
    from ..run import Run, load
    from ..train import load_images

    use_threads(threads)
    model = load(run, find_device(device))
    file = _outputs(out, run / f"towards-{label}-{weight:g}-seed{seed}.png")
    data = load_images(Run.open(run).recipe())[0]
    if data.labels is not None and not 0 <= label <= int(data.labels.max()):
        raise UserError(f"--label: the classes are 0 to {int(data.labels.max())}, got {label}")
    with work_bar("classifier") as progress:
        classifier = train_classifier(data, model.process, model.data_range, training, seed=seed, progress=progress)
    with blaming(run), work_bar("sampling") as progress:
        images = draw_towards(model, classifier.to(model.device), label, n, weight, stochastic(steps), seed, progress)
    return _write(images, file, None, f"{n} images towards class {label}")
