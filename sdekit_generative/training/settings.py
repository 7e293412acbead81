"""How a network is trained, as one record."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..losses import SPREADS

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
MEASURES = ("loss", "frechet")


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    steps, batch             number of updates, and images in each, over all processes
    learning_rate, warmup    Adam's rate, reached linearly over `warmup` steps
    cooldown                 share of the steps, at the end, over which the rate falls linearly to zero
    clip                     largest norm of the gradient; a larger one is scaled down to it. None: as it is
    ema                      decay of the average of the weights
    power_ema                widths (σ_rel) of the power-function averages to keep besides, for reconstruction afterwards
    snapshot_every           steps between the snapshots of those
    save_every, keep         steps between checkpoints, and how many are kept
    seed                     of everything random in the run
    times                    how the times of a batch are spread: stratified, antithetic or independent
    flip                     whether half of the images, drawn anew at each step, are mirrored left to right
    label_dropout            for classes: how often the network is not told the class, for guidance without a classifier
    accumulate               parts in which a process takes its share of a batch, one after another, to save memory
    precision                float32, bfloat16 or float16: what the network is evaluated in; weights stay float32
    processes                how many processes there must be; None: any number
    shard                    whether weights and moments are split over the processes (FSDP) and not copied (DDP)
    measure_every, measure   steps between measurements of the averaged weights, and of what: the loss of held-out
                             images, or the Fréchet distance of samples (digits); the best checkpoint is kept. 0: never
    sample_every             steps between pictures of samples, samples/step-….png. 0: never

    Raises ValueError for values that make no sense.
    """

    steps: int = 1000
    batch: int = 128
    learning_rate: float = 2e-4
    warmup: int = 100
    cooldown: float = 0.0
    clip: float | None = 1.0
    ema: float = 0.999
    power_ema: tuple[float, ...] = ()
    snapshot_every: int = 1000
    save_every: int = 100
    keep: int = 3
    seed: int = 0
    times: str = "stratified"
    flip: bool = False
    label_dropout: float = 0.0
    accumulate: int = 1
    precision: str = "float32"
    processes: int | None = None
    shard: bool = False
    measure_every: int = 0
    measure: str = "loss"
    sample_every: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every", "snapshot_every", "keep", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        for name in ("warmup", "measure_every", "sample_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not self.learning_rate > 0 or (self.clip is not None and not self.clip > 0):
            raise ValueError(f"learning_rate and clip: expected above 0, got {self.learning_rate} and {self.clip}")
        if not (0 <= self.cooldown <= 1 and 0 <= self.ema < 1 and 0 <= self.label_dropout <= 1):
            raise ValueError("cooldown, ema and label_dropout: expected a number from 0 to 1")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes: expected 1 or more, or null for any number, got {self.processes}")
        if any(not 0.0 < width < 0.28 for width in self.power_ema):
            raise ValueError(f"power_ema: expected widths above 0 and below 0.28, such as 0.05, got {self.power_ema}")
        for name, known in (("times", SPREADS), ("precision", PRECISIONS), ("measure", MEASURES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, …: `learning_rate · min(1, (k+1)/warmup, (steps−k)/(cooldown steps))`."""
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        fall = (self.steps - step) / (self.cooldown * self.steps) if self.cooldown else 1.0
        return self.learning_rate * min(1.0, rise, fall)


FREE_TO_CHANGE = (
    "data.path",
    "training.steps",
    "training.save_every",
    "training.keep",
    "training.snapshot_every",
    "training.processes",
    "training.shard",
    "training.measure_every",
    "training.measure",
    "training.sample_every",
)
"""What of a recipe may be changed half-way, since it changes no step that was already made.

Not so the steps where there is a cooldown. Images may lie elsewhere than they did, if they are the same.
"""
