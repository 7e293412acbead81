"""The main job in one go: train on the digits, sample them in two ways, measure, and show.

samples_pc.png, samples_ode.png   100 images each, by predictor–corrector and by the probability-flow ODE
trajectory.png                    images on their way to noise, and noise on its way to images
loss.png                          the loss of every step
metrics.json                      the figures

Beside each picture, under its name in .json, stands what it was made with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdekit.random import KeyedDraws
from sdekit.steps import Adaptive

from .data import Dataset, dequantise, quantise, shown
from .describe import describe
from .files import as_json, replace_file
from .likelihood import bits_per_dim
from .metrics import digit_features, frechet_distance
from .model import ScoreModel
from .pictures import grid, loss_curve, trajectories
from .results import counting, made_with, sidecar
from .run import Run, load
from .sampling import ODE, PC, Sampler, draw, forward_trajectory, trajectory
from .train import load_images

IMAGES = 100
SAMPLERS: dict[str, Sampler] = {"pc": PC(steps=250), "ode": ODE()}
FILM = PC(steps=250, corrections=0)
TOLERANCE = 1e-3  # of the likelihood's ODE
_SEED = 0
_SHOWN, _FRAMES = 4, 12

Bar = Callable[[str], Any]
"""`(title) -> context manager of a Progress`: how the caller shows long work."""


def baselines() -> dict[str, float]:
    """bits/dim of a Gaussian and of the best Gaussian mixture, as benchmarks/digits_baselines.py found them."""
    return json.loads((files("sdekit_generative.data") / "digits_baselines.json").read_text())


def frechet_floor(training: Dataset, held_out: Dataset, n: int) -> float:
    """Distance of n real held-out digits to the training set, the mean over as many disjoint n as there are."""
    reference = digit_features(training.images)
    groups = digit_features(held_out.images).split(n)
    distances = [frechet_distance(group, reference) for group in groups if len(group) == n]
    return sum(distances) / len(distances)


class Stopwatch:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


def finish(run: Run, bar: Bar, training_seconds: float, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Everything after training; writes the pictures and metrics.json into the run's folder and returns the metrics."""
    model, recipe, watch = load(run.folder, device), run.recipe(), Stopwatch()
    training, held_out = load_images(recipe)
    made = made_with(model, recipe, seed=_SEED)
    reference = digit_features(training.images)
    frechet, evaluations = {}, {}
    for name, sampler in SAMPLERS.items():
        with watch(f"sample_{name}"), bar(f"sampling ({name.upper()})") as progress:
            samples = draw(model, IMAGES, sampler, seed=_SEED, progress=progress)
        images, picture = samples.images.cpu(), run.folder / f"samples_{name}.png"
        grid(shown(quantise(images, model.levels), model.levels)).save(picture)
        work = {"network_evaluations": samples.network_evaluations, "seconds": watch.seconds[f"sample_{name}"]}
        sidecar(picture, {**made, **work, "n": IMAGES, "sampler": describe(sampler)})
        frechet[name] = round(frechet_distance(digit_features(images), reference), 3)
        evaluations[f"sample_{name}"] = samples.network_evaluations
    frechet["floor"] = round(frechet_floor(training, held_out, IMAGES), 3)
    with watch("likelihood"), bar("likelihood") as progress:
        bits = bits_per_dim(
            model, held_out.images, steps=Adaptive(TOLERANCE, TOLERANCE), seed=_SEED, batch=100, progress=progress
        )
    evaluations["likelihood"] = bits.network_evaluations
    with watch("pictures"):
        _show_trajectories(model, held_out.images[:_SHOWN], run.folder / "trajectory.png", made)
        loss_curve(run.log(), run.folder / "loss.png")
        sidecar(run.folder / "loss.png", {**made, "seconds": round(training_seconds, 1), "log": "log.jsonl"})
    metrics = {
        "bits_per_dim": {"mean": round(bits.mean, 4), "standard_error": round(bits.standard_error, 4)},
        "baselines": baselines(),
        "frechet": frechet,
        "seconds": {"train": round(training_seconds, 1), **watch.seconds},
        "network_evaluations": evaluations,
    }
    replace_file(run.folder / "metrics.json", as_json(metrics))
    return metrics


def _show_trajectories(model: ScoreModel, images: Tensor, file: Path, made: dict[str, Any]) -> None:
    start = time.perf_counter()
    with counting(model.network) as calls:
        states, levels = trajectory(model, len(images), _FRAMES, FILM, seed=_SEED)
    x0 = model.data_range.enter(dequantise(images, model.levels, KeyedDraws(_SEED))).to(model.device)
    trajectories(forward_trajectory(model, x0, levels, seed=_SEED), states).save(file)
    work = {"network_evaluations": calls.count, "seconds": round(time.perf_counter() - start, 2)}
    sidecar(file, {**made, **work, "n": len(images), "frames": _FRAMES, "sampler": describe(FILM)})
