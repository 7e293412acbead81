"""`evaluate`: how good a run's images are, and how many bits its data need; on one process or on many."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import UserError
from .app import app
from .options import Count, Machine, Model, blaming, numbers, say, warn
from .samplers import SamplerOptions

if TYPE_CHECKING:
    from ..data import Dataset
    from ..metrics import FeatureNetwork
    from ..model import ScoreModel
    from ..recipes import Recipe


@app.command
def evaluate(
    run: Path,
    *,
    metric: str = "fid,is,bpd",
    n: Annotated[str, Parameter(name=("--images", "--n"))] = "10000",  # torchrun takes --n for one of its own
    how: SamplerOptions = SamplerOptions(),
    seed: int = 0,
    classes: int = 0,
    label: int | None = None,
    guidance: float = 1.0,
    data: Path | None = None,
    reference: Path | None = None,
    features: Path | None = None,
    resize: Literal["tf1", "centre"] = "tf1",
    repeats: Count = 1,
    bits_tolerance: float = 1e-3,
    probes: Count = 1,
    batch: Count = 256,
    out: Path | None = None,
    weights: Model = Model(),
    on: Machine = Machine(),
) -> int:
    """Measure a run: make images and compare them with real ones, and measure the bits of data; prints one line of JSON.

    In many processes: `torchrun --nproc_per_node=8 -m sdekit_generative evaluate …`. What is done is kept: the same
    command goes on after an interruption, and with more --images or other metrics begins with what is there.

    Parameters
    ----------
    run
        Folder of the run.
    metric
        Any of fid, kid, is (Inception score), pr (precision and recall), bpd (bits per dimension), with commas.
    n
        How many images are made, 10000, or their numbers from 0 on, 0-9999. Under torchrun say --images.
    seed
        Of images, dequantisation and probes; image i of a seed is always the same one.
    classes
        Number of classes: image i is of class i mod this, where above 0.
    label
        One class for all images, in place of that.
    guidance
        How much classes count; 1 is as learned.
    data
        Images to compare with and to measure the bits of: a folder, an array, or an archive; cut and resized to the
        model's size. [default: the run's own, those trained on to compare with, those held out for the bits]
    reference
        Statistics of real images to compare with, .npz; see data statistics. [default: of the images themselves]
    features
        Weights of the feature network, pt_inception-2015-12-05.pth. [default: for digits, the bundled classifier]
    resize
        How images are brought to the feature network's size: tf1 as in the published figures, or centre.
    repeats
        Of bpd: times that every image is measured.
    bits_tolerance
        Of bpd: tolerance of the ODE.
    probes
        Of bpd: probes of the divergence.
    batch
        Images made at a time.
    out
        Folder for the work and evaluation.json. [default: RUN/evaluations/…, by what is measured]
    """
    from ..evaluation import Bits, Images
    from ..evaluation import evaluate as measure
    from ..files import as_json, replace_file
    from ..metrics import Statistics
    from ..progress import work_bar
    from ..run import Run
    from ..training import joined

    made = numbers(n, 0, 0)
    if made.start != 0:
        raise UserError(f"--images: an evaluation takes images from 0 on, such as 0-9999, got {n}")
    wanted = [name.strip() for name in metric.split(",")]
    try:
        images = Images(len(made), how.build(), seed, batch, classes, label, guidance)
        bits = Bits(repeats, bits_tolerance, probes, seed)
    except (ValueError, TypeError) as problem:
        raise UserError(str(problem)) from None
    with joined(on.start()) as group, blaming(run):
        model, recipe = weights.load(run, group.device), Run.open(run).recipe()
        needed = "bpd" in wanted or (reference is None and bool({"fid", "kid", "pr"} & set(wanted)))
        compared, measured = real_images(recipe, model, data) if needed else (None, None)
        folder = out or run / "evaluations" / f"{how.sampler}-seed{seed}-{_short(model, images)}"
        found = measure(
            model,
            measured,
            metrics=wanted,
            images=images,
            bits=bits,
            reference=compared if reference is None else Statistics.load(reference),
            features=None
            if wanted == ["bpd"]
            else find_features(features, resize, model.shape, model.levels, group.device),
            folder=folder,
            bar=work_bar if group.leads else (lambda title: nullcontext(lambda fraction: None)),
        )
        if group.leads:
            replace_file(folder / "evaluation.json", as_json({**found, "run": str(run), "recipe": _recipe(recipe)}))
            for note in found["notes"]:
                warn(f"note: {note}")
            _tell(found["metrics"], folder)
    return 0


def real_images(recipe: Recipe, model: ScoreModel, data: Path | None) -> tuple[Dataset, Dataset]:
    """(those compared with, those measured): the run's own, or all at a path, at the model's size."""
    from ..data import source_of
    from ..train import load_images

    if data is None:
        return load_images(recipe)
    channels, height, width = model.shape
    given = source_of(data, size=height if height == width else None, channels=channels).load()
    return given, given


def find_features(
    weights: Path | None, resize: Literal["tf1", "centre"], shape: tuple[int, int, int], levels: int, device: Any
) -> FeatureNetwork:
    """The feature network that the options name, or the one that images of this kind have."""
    from ..data.digits import LEVELS
    from ..metrics import DigitFeatures, load_inception

    if weights is not None:
        return load_inception(weights, resize, device)
    if shape == (1, 8, 8) and levels == LEVELS:
        return DigitFeatures()
    raise UserError(
        "--features: give the weights of FID's Inception (pt_inception-2015-12-05-6726825d.pth, as pytorch-fid and "
        "torch-fidelity use them), or measure --metric bpd alone"
    )


def _short(model: ScoreModel, images: Any) -> str:
    """What tells this evaluation from others, in a few letters."""
    import hashlib

    from ..files import as_json
    from ..workshop import plan

    return hashlib.sha256(as_json(plan(model, images))).hexdigest()[:8]


def _recipe(recipe: Recipe) -> Any:
    from ..recipes import encode

    return encode(recipe)


def _tell(metrics: dict[str, Any], folder: Path) -> None:
    import json

    say(json.dumps({**metrics, "folder": str(folder)}))
