"""Inverse problems on held-out digits: `python -m benchmarks.inverse_digits RUN [--images 24] [--steps 100] [--out DIR]`.

RUN is a run of the digits recipe. Half an image, 4× fewer pixels, and compressed sensing at 25 %, each with noise of
standard deviation 0.05, are restored by MMPS; the mean of 32 samples is compared with the posterior mean of the Gaussian
with the training images' mean and full covariance (64 pixels), which is the best linear estimate there is.

Truths are dequantised as the model's training images are. Writes inverse_digits.json and inverse_digits_TASK.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdekit.random import KeyedDraws
from sdekit.solvers import DPMSolverPP
from sdekit_generative import load
from sdekit_generative.data import Digits, dequantise
from sdekit_generative.inverse import (
    MMPS,
    CompressedSensing,
    Downsample,
    Inpaint,
    Linear,
    exact_posterior,
    observe,
    restorations,
)
from sdekit_generative.inverse.page import as_images, page
from sdekit_generative.metrics.image_quality import psnr, ssim
from sdekit_generative.samplers import Fast

RESULTS = Path(__file__).parent / "results"
SHAPE, NOISE, SAMPLES = (1, 8, 8), 0.05, 32
_COPIES = 4  # dequantisations of every training image


def tasks() -> dict[str, Linear]:
    """The operators."""
    mask = torch.zeros(8, 8)
    mask[:, :4] = 1.0
    return {"inpaint": Inpaint(mask), "sr": Downsample(2), "cs": CompressedSensing(SHAPE, 0.25)}


def gaussian_means(train: Tensor, operator: Linear, y: Tensor) -> Tensor:
    """Posterior means of the Gaussian fitted to the training images `(N, 1, 8, 8)`."""
    flat = train.flatten(1).double()
    prior = (flat.mean(0).reshape(1, *SHAPE), flat.T.cov()[None], torch.ones(1))
    return torch.stack([exact_posterior(*prior, operator, row, NOISE).mean for row in y]).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", choices=tasks(), help="one task, put beside those that inverse_digits.json holds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model, (training, held_out) = load(arguments.run), Digits().load().split()
    train = torch.cat([dequantise(training.images, training.levels, KeyedDraws(1000 + c)) for c in range(_COPIES)])
    truth = dequantise(held_out.images, held_out.levels, KeyedDraws(0))[: arguments.images]
    method, sampler = MMPS(), Fast(DPMSolverPP(2), arguments.steps, churn=1.0)
    file = arguments.out / "inverse_digits.json"
    record: dict[str, Any] = json.loads(file.read_text()) if arguments.only else {"samples": SAMPLES, "tasks": {}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, operator in tasks().items():
        if arguments.only not in (None, name):
            continue
        y, start = observe(operator, truth, NOISE, seed=1), time.perf_counter()
        found = restorations(model, operator, y, method, NOISE, SAMPLES, sampler, seed=0, batch=768)
        base = gaussian_means(train, operator, y).clamp(0.0, 1.0)
        gain = psnr(found.mean, truth) - psnr(base, truth)
        again = operator.keep(operator(found.samples.flatten(0, 1)) - operator.keep(y).repeat_interleave(SAMPLES, 0))
        measured = operator.keep(torch.ones_like(again))
        record["tasks"][name] = {
            "method": repr(method),
            "noise": NOISE,
            "images": len(truth),
            "steps": arguments.steps,
            "psnr_mean": float(psnr(found.mean, truth).mean()),
            "psnr_gaussian": float(psnr(base, truth).mean()),
            "gain": float(gain.mean()),
            "gain_standard_error": float(gain.std() / len(gain) ** 0.5),
            "psnr_sample": float(psnr(found.samples[:, 0], truth).mean()),
            "ssim_mean": float(ssim(found.mean, truth).mean()),
            "ssim_gaussian": float(ssim(base, truth).mean()),
            "residual": float((again.square().sum() / measured.sum()).sqrt()),
            "spread": float(found.std.mean()),
            "calls": found.network_evaluations,
            "gradients": found.gradients,
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(name, record["tasks"][name], flush=True)
        file.write_text(json.dumps(record, indent=1) + "\n")
        shown = page(truth[:6], as_images(operator, y[:6], SHAPE), found.samples[:6])
        shown.save(arguments.out / f"inverse_digits_{name}.png")


if __name__ == "__main__":
    main()
