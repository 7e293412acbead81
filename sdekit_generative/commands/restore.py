"""`restore`: images from what was observed of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

from ..errors import UserError
from .app import app
from .options import Count, Flag, Machine, Model, Picture, Taken, say

if TYPE_CHECKING:
    from torch import Tensor

    from ..inverse import Method, Operator
    from ..model import ScoreModel

Task = Literal["inpaint", "colorize", "sr", "deblur", "motion", "cs", "mri", "ct", "phase", "jpeg"]
MethodName = Literal["mmps", "pigdm", "tmpd", "dps", "ddnm", "diffpir", "replacement", "projection", "repaint", "smc"]


@Parameter(name="*")
@dataclass(frozen=True)
class Settings:
    """What is observed, in detail.

    Parameters
    ----------
    mask
        inpaint: what is kept: left, right, top, bottom, border, random (half of the pixels), or an image file whose
        white pixels are kept.
    factor
        sr: how many times fewer pixels each way.
    kernel
        sr: average or bicubic.
    blur
        deblur: standard deviation in pixels; motion: length of the line in pixels.
    angle
        motion: degrees from the horizontal.
    fraction
        cs: share of the numbers that are measured.
    acceleration
        mri: columns of k-space over measured columns.
    angles
        ct: number of directions.
    step
        jpeg: step of the quantisation at frequency 0.
    """

    mask: str = "left"
    factor: Count = 2
    kernel: Literal["average", "bicubic"] = "average"
    blur: float = 1.0
    angle: float = 0.0
    fraction: float = 0.25
    acceleration: float = 2.0
    angles: Count = 6
    step: float = 0.1


def _mask(name: str, shape: tuple[int, int, int], seed: int) -> Tensor:
    import torch

    _, height, width = shape
    mask = torch.zeros(height, width)
    if name == "random":
        chance = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
        return (chance < 0.5).float()
    parts = {
        "left": (slice(None), slice(0, width // 2)),
        "right": (slice(None), slice(width - width // 2, None)),
        "top": (slice(0, height // 2), slice(None)),
        "bottom": (slice(height - height // 2, None), slice(None)),
    }
    if name in parts:
        mask[parts[name]] = 1.0
        return mask
    if name == "border":
        mask += 1.0
        mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = 0.0
        return mask
    import numpy as np
    from PIL import Image

    try:
        with Image.open(name) as picture:
            return torch.from_numpy(np.asarray(picture.convert("L")) > 127).float()
    except OSError:
        expected = f"{', '.join(parts)}, border, random or an image file"
        raise UserError(f"--mask: expected {expected}, got {name}") from None


def _operator(task: Task, settings: Settings, shape: tuple[int, int, int], seed: int) -> Operator:
    from .. import inverse

    channels, height, width = shape
    if task == "colorize" and channels != 3:
        raise UserError(f"--task colorize: the model makes images of {channels} channel, which have no colour")
    if task == "ct" and height != width:
        raise UserError(f"--task ct: needs square images, the model's are {width}×{height}")
    makers: dict[str, Any] = {
        "inpaint": lambda: inverse.Inpaint(_mask(settings.mask, shape, seed)),
        "colorize": inverse.Colorize,
        "sr": lambda: inverse.Downsample(settings.factor, settings.kernel),
        "deblur": lambda: inverse.GaussianBlur(settings.blur),
        "motion": lambda: inverse.MotionBlur(settings.blur, settings.angle),
        "cs": lambda: inverse.CompressedSensing(shape, settings.fraction, seed),
        "mri": lambda: inverse.MRI(inverse.mri_mask((height, width), settings.acceleration, seed=seed)),
        "ct": lambda: inverse.CT(height, settings.angles),
        "phase": inverse.PhaseRetrieval,
        "jpeg": lambda: inverse.Quantise(settings.step, min(8, height, width)),
    }
    return makers[task]()


def _method(name: MethodName | None, operator: Operator, model: ScoreModel, n: int) -> Method:
    from .. import inverse
    from ..inverse.posterior import default_method

    if name is None:
        return default_method(operator)
    spread = getattr(model.parametrisation, "data_std", 1.0)
    makers: dict[str, Any] = {
        "mmps": inverse.MMPS,
        "pigdm": lambda: inverse.PiGDM(spread),
        "tmpd": inverse.TMPD,
        "dps": inverse.DPS,
        "ddnm": inverse.DDNM,
        "diffpir": inverse.DiffPIR,
        "replacement": inverse.Replacement,
        "projection": inverse.Projection,
        "repaint": inverse.RePaint,
        "smc": lambda: inverse.TwistedSMC(particles=max(64, n), data_std=spread),
    }
    return makers[name]()


def read_images(run: Path, file: Path | None, model: ScoreModel, span: range) -> Tensor:
    """Images of the run's held-out data, or of a folder, cut and resized for the model, or an array, as floats in [0, 1]."""
    from ..data import source_of
    from ..run import Run
    from ..train import load_images

    if file is None:
        data = load_images(Run.open(run).recipe())[1]
    else:
        channels, height, width = model.shape
        size = height if height == width and file.is_dir() else None
        data = source_of(file, size, channels, broken="skip" if file.is_dir() else "stop").load()
    if data.shape != model.shape:
        raise UserError(f"{file}: images of shape {data.shape}; the model makes {model.shape}")
    levels = (
        model.levels
        if file is None
        else max(model.levels, data.levels if int(data.images.max()) >= model.levels else 0)
    )
    chosen = data.images[span.start : span.stop]
    if len(chosen) == 0:
        raise UserError(f"--images, --first: there are images 0 to {len(data.images) - 1}, got {span.start}")
    # the middle of the interval that a level stands for, as the model sees it
    return (chosen.float() + 0.5) / levels


@app.command
def restore(
    run: Path,
    images: Path | None = None,
    /,
    *,
    task: Task,
    settings: Settings = Settings(),
    observed: Flag = False,
    method: MethodName | None = None,
    noise: float = 0.05,
    n: Count = 8,
    which: Taken = Taken(),
    steps: Count = 100,
    seed: int = 0,
    batch: Count = 256,
    picture: Picture = Picture(),
    weights: Model = Model(),
    on: Machine = Machine(),
) -> int:
    """Restore images from a part, a blur, a projection, … of them: `restore runs/digits --task inpaint`.

    Writes a picture (truth, observation, samples, their mean and standard deviation), a JSON file with figures and an NPZ
    with the samples.

    Parameters
    ----------
    run
        Folder of the run.
    images
        Images to observe and restore: a folder, .npz or .npy. [default: the held-out images of the run's own data]
    task
        inpaint, colorize, sr (fewer pixels), deblur, motion (blur), cs (compressed sensing), mri, ct, phase (amplitudes
        of Fourier transforms), jpeg.
    observed
        IMAGES is a .npy file with the observations themselves, floats (N, …) in the task's own shape: no truth is known.
    method
        How the model is conditioned. [default: mmps; dps for phase and jpeg]
    noise
        Standard deviation of the observation's noise, for images in [0, 1]. Added to it unless --observed.
    n
        Samples of every image.
    steps
        Steps of the sampler.
    seed
        Of noise, masks and samples.
    batch
        Samples made at a time.
    """
    from sdekit.solvers import DPMSolverPP

    from ..describe import describe
    from ..inverse import observe, restorations
    from ..inverse.page import STD_SHOWN, as_images, page
    from ..metrics.image_quality import psnr, ssim
    from ..samplers import Fast
    from .work import Work

    if not noise >= 0:
        raise UserError(f"--noise: expected 0 or more, got {noise}")
    span = which.span(6)
    work = Work(run, weights, on)
    model = work.model
    operator = _operator(task, settings, model.shape, seed)
    chosen = _method(method, operator, model, n)
    files = picture.files(run / f"restore-{task}-{type(chosen).__name__.lower()}-seed{seed}.png")
    truth = None
    if observed:
        y = _observations(images)[span.start : span.stop].to(model.device)
    else:
        truth = read_images(run, images, model, span).to(model.device)
        y = observe(operator, truth, noise, seed=seed, first=span.start)
    sampler = Fast(DPMSolverPP(2), steps, churn=1.0)
    with work.bar("restoring", len(y) * n, "sample") as progress:
        found = restorations(model, operator, y, chosen, noise, n, sampler, seed, span.start, batch, progress)
    figures: dict[str, Any] = {
        "task": task,
        "operator": describe(operator),
        "sampler": describe(sampler),
        "first": span.start,
        "method": repr(chosen),
        "noise": noise,
        "images": len(y),
        "samples": n,
        "seed": seed,
        "network_evaluations": found.network_evaluations,
        "gradients": found.gradients,
        "std_shown_times": STD_SHOWN,
        "mean_std": float(found.std.mean()),
        "residual": _residual(operator, found.samples, y),
    }
    if truth is not None:
        figures["psnr_mean"] = float(psnr(found.mean, truth).mean())
        figures["psnr_sample"] = float(psnr(found.samples[:, 0], truth).mean())
        figures["ssim_mean"] = float(ssim(found.mean, truth).mean())
    shown = page(truth, as_images(operator, y, model.shape), found.samples)
    arrays = {"samples": found.samples.cpu().numpy(), "observed": y.cpu().numpy()}
    files.write(shown, arrays, work.record(**figures))
    quality = f", PSNR of the mean {figures['psnr_mean']:.2f} dB" if truth is not None else ""
    say(
        f"{len(y)} images, {n} samples each, {found.network_evaluations} network evaluations and {found.gradients} "
        f"gradients a sample{quality}: {files.file}"
    )
    return 0


def _observations(file: Path | None) -> Tensor:
    import numpy as np
    import torch

    if file is None or file.suffix != ".npy":
        raise UserError(
            "--observed: give the observations as a .npy file of floats, e.g. restore RUN y.npy --task sr --observed"
        )
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as problem:
        raise UserError(f"{file}: not a readable .npy file ({problem})") from None
    if array.dtype.kind != "f" or array.ndim < 2:
        raise UserError(f"{file}: expected floats (N, …), got {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.float32))


def _residual(operator: Operator, samples: Tensor, y: Tensor) -> float:
    """RMS of y − A(sample) over what was measured: the noise level, where samples are right."""
    again = operator(samples.flatten(0, 1)) - operator.keep(y).repeat_interleave(samples.shape[1], 0)
    measured = operator.keep(again.new_ones(again.shape))
    return float((again.square().sum() / measured.sum()).sqrt())
