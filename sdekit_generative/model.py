"""The only bridge from networks to sdekit: a network, what it predicts, and the process, together are a score.

Notation: x(t) = s(t) (x₀ + σ(t) z), std = s σ; ε̂ the estimate of z; y a class.

    score(t, x) = ∇ₓ log p_t(x) ≈ −ε̂(t, x)/std(t)

With labels it is that of p_t(x | y); with guidance w, of p_t(x) (p_t(x | y)/p_t(x))^w up to a constant.

Reference: Ho, Salimans (2021), "Classifier-free diffusion guidance", equation 6 (there 1 + w); Dhariwal, Nichol (2021),
§4.1 (classifiers).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sdekit.arguments import check_number, check_state
from sdekit.protocols import match, time_beside
from sdekit.scores.guidance import ClassifierGuidance
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
    precision        torch.bfloat16 evaluates the network under autocast; None in that of its weights
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

    @property
    def knows_classes(self) -> bool:
        """Whether the network is called with (x, c, labels), or with whatever comes."""
        taken = inspect.signature(self.network.forward).parameters.values()
        return len(taken) >= 3 or any(parameter.kind is parameter.VAR_POSITIONAL for parameter in taken)

    def conditional(self, labels: Labels, guidance: float = 1.0) -> ScoreModel:
        """The same model as the score of images of these classes.

        labels    int64 `(B,)`, the class of each sample, or one class for all; −1, and None, for no class
        guidance  w: 1 is the conditional score, 0 the unconditional one, more than 1 overstates the classes. Other
                  values than 0 and 1 cost two evaluations of the network, taken as one of twice the batch

        Raises ValueError for a label that is not an integer.
        """
        _check_labels(labels)
        return replace(self, labels=labels, guidance=float(guidance))

    def calls_at(self, t: Tensor | float) -> int:
        """Evaluations of the network at t: two where guidance weighs one with the class against one without."""
        return 1 if self.labels is None or self.guidance in (0.0, 1.0) else 2

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
            taken = x.to(_precision(self.network))
            inputs = (taken, c) if labels is None else (taken, c, labels)
            context = nullcontext() if self.precision is None else torch.autocast(x.device.type, self.precision)
            with context:
                return self.network(*inputs).to(x.dtype)

        return evaluate

    def __call__(self, t: Tensor | float, x: Tensor) -> Tensor:
        """The score at (t, x), of the shape of x."""
        check_state("x", x, valued=False)
        t = time_beside(t, x)
        return -self.noise(t, x) / match(self.process.std(t), x)


def _precision(network: nn.Module) -> torch.dtype:
    """The dtype in which a network takes images: that of its weights."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


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

    Goes wherever a `ScoreModel` is sampled; what is not said here, such as process and shape, is that of the score.

    score       the unconditional score
    classifier  `(x/s, ln σ) → logits (B, classes)`, trained on noisy images; see `networks.classifier`
    labels      classes `(B,)`, int64, or one class for all
    guidance    w ≥ 0; 1 is Bayes' rule, more overstates the class

    Raises ValueError for labels that are not integers or that the classifier does not know, or a negative w.
    Reference: Song et al. (2021), appendix I.1; Dhariwal, Nichol (2021), algorithm 1.
    """

    score: ScoreModel
    classifier: Classifier
    labels: Tensor | int
    guidance: float = 1.0

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        check_number("ClassifierGuided: guidance", self.guidance, least=0.0)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "score":
            raise AttributeError(name)
        return getattr(self.score, name)

    @property
    def knows_classes(self) -> bool:
        """The classifier does, whatever the score knows."""
        return True

    def conditional(self, labels: Tensor | int, guidance: float = 1.0) -> ClassifierGuided:
        """The same guided to other classes, as `ScoreModel.conditional`."""
        return replace(self, labels=labels, guidance=guidance)

    def log_prob(self, t: Tensor, x: Tensor) -> Tensor:
        """ln p_t(y | x), `(B,)`."""
        process: DiffusionProcess = self.score.process
        y = (x / match(process.scale(t), x)).to(torch.float32)
        logits = self.classifier(y, told(process.log_sigma(t), x))
        given = torch.as_tensor(self.labels)
        # looked at only where no device has to wait for it
        if given.device.type == "cpu" and bool(((given < 0) | (given >= logits.shape[1])).any()):
            raise ValueError(f"labels: the classifier knows classes 0 to {logits.shape[1] - 1}, got {self.labels}")
        return logits.log_softmax(1).gather(1, _one_each(self.labels, x)[:, None])[:, 0].to(x.dtype)

    def __call__(self, t: Tensor | float, x: Tensor) -> Tensor:
        """The guided score at (t, x), of the shape of x."""
        check_state("x", x, valued=False)
        return self._guidance(time_beside(t, x), x)

    def calls_at(self, t: Tensor | float) -> int:
        """Networks asked at t, the classifier being one."""
        return self._guidance.calls_at(t)

    @property
    def _guidance(self) -> ClassifierGuidance:
        return ClassifierGuidance(self.score, self.log_prob, self.guidance)


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
