"""The only bridge from networks to sdekit: a network, what it predicts, and the process, together are a score.

Notation: x(t) = s(t) (x₀ + σ(t) z), std = s σ; ε̂ the estimate of z; y a class.

    score(t, x) = ∇ₓ log p_t(x) ≈ −ε̂(t, x)/std(t)

With labels it is that of p_t(x | y); with guidance w, of p_t(x) (p_t(x | y)/p_t(x))^w up to a constant.

Reference: Ho, Salimans (2021), "Classifier-free diffusion guidance", equation 6 (there 1 + w); Dhariwal, Nichol (2021),
§4.1 (classifiers).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sdekit.arguments import check_state
from sdekit.protocols import match, time_beside
from sdekit.sdes.process import DiffusionProcess

from .data.dequantize import DataRange
from .parametrisation import EDMPreconditioning, Network, Parametrisation, Predict, PredictNoise, PredictVelocity, told
from .song2021 import Song2021

Labels = Tensor | int | None


@dataclass(frozen=True, eq=False)
class ScoreModel:
    """A trained (or training) score: call it as `model(t, x)` wherever sdekit takes a score.

    network          torch module `(x, c) → image`, or `(x, c, labels) → image` where it has classes
    process          the forward process: `sdekit.VP`, `SubVP`, `VE`, …
    parametrisation  what the network is told and predicts
    data_range       the range of x that stands for [0, 1]
    shape, levels    the images it was made for: (C, H, W) and grey levels
    labels, guidance the classes it is the score of, and how much they count; see `conditional`
    precision        torch.bfloat16 evaluates the network under autocast; None in the precision of its weights
    """

    network: nn.Module
    process: DiffusionProcess
    parametrisation: Parametrisation
    data_range: DataRange
    shape: tuple[int, int, int]
    levels: int
    labels: Labels = None
    guidance: float = 1.0
    precision: torch.dtype | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found = next(self.network.parameters(), None)
        return torch.device("cpu") if found is None else found.device

    def conditional(self, labels: Labels, guidance: float = 1.0) -> ScoreModel:
        """The same model as the score of images of these classes.

        labels    int64 `(B,)`, the class of each sample, or one class for all; −1, and None, for no class
        guidance  w: 1 is the conditional score, 0 the unconditional one, more than 1 overstates the classes. Other
                  values than 0 and 1 cost two evaluations of the network, taken as one of twice the batch

        Raises ValueError for a label that is not an integer.
        """
        _check_labels(labels)
        return replace(self, labels=labels, guidance=float(guidance))

    def noise(self, t: Tensor | float, x: Tensor) -> Tensor:
        """ε̂(t, x), the estimate of z; t is 0-d or `(B, 1, …, 1)`, x is `(B, C, H, W)`."""
        check_state("x", x, valued=False)
        t = time_beside(t, x)  # 0-d times stay on the CPU: a copy would make the device wait
        if self.labels is None:
            return self._noise(t, x, None)
        labels = self._labels(x)
        if self.guidance == 1.0:
            return self._noise(t, x, labels)
        none = torch.full_like(labels, -1)
        if self.guidance == 0.0:
            return self._noise(t, x, none)
        twice = torch.cat([t, t]) if t.ndim else t
        with_class, without = self._noise(twice, torch.cat([x, x]), torch.cat([labels, none])).chunk(2)
        return torch.lerp(without, with_class, self.guidance)

    def _noise(self, t: Tensor, x: Tensor, labels: Tensor | None) -> Tensor:
        return self.parametrisation.noise(self._network(labels), self.process, t, x)

    def _labels(self, x: Tensor) -> Tensor:
        return _one_each(self.labels, x)

    def _network(self, labels: Tensor | None) -> Network:
        def evaluate(x: Tensor, c: Tensor) -> Tensor:
            # a float64 state may surround a float32 network: its rounding then does not add up along a solve
            inputs = (x.to(torch.float32), c) if labels is None else (x.to(torch.float32), c, labels)
            context = nullcontext() if self.precision is None else torch.autocast(x.device.type, self.precision)
            with context:
                return self.network(*inputs).to(x.dtype)

        return evaluate

    def __call__(self, t: Tensor | float, x: Tensor) -> Tensor:
        """The score at (t, x), of the shape of x."""
        check_state("x", x, valued=False)
        t = time_beside(t, x)
        return -self.noise(t, x) / match(self.process.std(t), x)


def _check_labels(labels: object) -> None:
    if isinstance(labels, Tensor) and (labels.ndim > 1 or labels.dtype != torch.int64 or labels.device.type == "meta"):
        raise ValueError(
            f"labels: expected int64 (B,), got {labels.dtype} {tuple(labels.shape)} on {labels.device}; use labels.long()"
        )
    if isinstance(labels, bool) or not isinstance(labels, (Tensor, int, type(None))):
        raise ValueError(f"labels: expected a tensor of classes, or one class, got {labels!r}")


def _one_each(labels: Labels, x: Tensor) -> Tensor:
    """Labels `(B,)` of the samples x."""
    found = torch.as_tensor(labels, dtype=torch.int64, device=x.device)
    if found.ndim and len(found) != len(x):
        raise ValueError(f"labels: got {len(found)} for {len(x)} samples; give one for each, or one class for all")
    return found.expand(len(x))


Classifier = Callable[[Tensor, Tensor], Tensor]
"""`(x, c) → logits (B, classes)`, c = ln σ `(B,)`."""


@dataclass(frozen=True, eq=False)
class ClassifierGuided:
    """A score and a classifier of noisy images: `score(t, x) + w ∇ₓ log p_t(y | x)`, a score of images of class y.

    score       the unconditional score
    classifier  `(x/s, ln σ) → logits (B, classes)`, trained on noisy images; see `networks.classifier`
    labels      classes `(B,)`, int64, or one class for all
    scale       w; 1 is Bayes' rule

    Reference: Song et al. (2021), appendix I.1; Dhariwal, Nichol (2021), algorithm 1.
    """

    score: ScoreModel
    classifier: Classifier
    labels: Tensor | int
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_labels(self.labels)

    @property
    def process(self) -> DiffusionProcess:
        """The score's."""
        return self.score.process

    def __call__(self, t: Tensor | float, x: Tensor) -> Tensor:
        """The guided score at (t, x), of the shape of x."""
        check_state("x", x, valued=False)
        t = time_beside(t, x)
        keep_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = x if keep_graph and x.requires_grad else x.detach().requires_grad_(True)
            c = told(self.process.log_sigma(t), x)
            logits = self.classifier((leaf / match(self.process.scale(t), leaf)).to(torch.float32), c)
            labels = _one_each(self.labels, x)
            chosen = logits.log_softmax(1).gather(1, labels[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, leaf, create_graph=keep_graph)
        return self.score(t, x) + self.scale * gradient.to(x.dtype)


__all__ = [
    "Classifier",
    "ClassifierGuided",
    "EDMPreconditioning",
    "Network",
    "Parametrisation",
    "Predict",
    "PredictNoise",
    "PredictVelocity",
    "ScoreModel",
    "Song2021",
]
