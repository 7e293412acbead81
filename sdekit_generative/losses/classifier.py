"""The objective of classifiers of noisy images, which guide a score towards a class.

    −log p(y | x/s, ln σ),   x = s x₀ + std z

Reference: Song et al. (2021), appendix I.1; Dhariwal, Nichol (2021), §4.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sdekit.protocols import expand, match

from ..errors import DataError
from ..model import ScoreModel
from .denoising import diffused
from .loss import check_batch
from .times import Times, UniformNoiseLevel


@dataclass(frozen=True)
class ClassifierLoss:
    """Cross-entropy of the classes that the model is told of, at levels of the given density; one value a sample."""

    times: Times = field(default_factory=UniformNoiseLevel)
    labelled: ClassVar[bool] = True

    def __call__(self, model: ScoreModel, x0: Tensor, u: Tensor, z: Tensor, signs: Tensor | None = None) -> Tensor:
        """`(B,)`; see `Loss`. The network is the classifier. Raises DataError where the images have no classes."""
        if not isinstance(model.labels, Tensor):
            raise DataError("a classifier needs images with classes; give data that has labels")
        process = model.process
        check_batch(x0, u, z)
        t, _ = self.times.sample(process, u)
        x = diffused(process, x0, t, z) / match(process.scale(expand(t, x0)), x0)
        context = nullcontext() if model.precision is None else torch.autocast(x.device.type, model.precision)
        with context:
            logits = model.network(x, process.log_sigma(t).to(torch.float32))
        return F.cross_entropy(logits.to(torch.float32), model.labels, reduction="none")
