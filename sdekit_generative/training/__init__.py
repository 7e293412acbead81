"""Training: the engine, the average of the weights, checkpoints that survive any interruption, and being stopped."""

from .checkpoint import Checkpoint
from .ema import EMA
from .engine import Trainer, Training
from .stop import Stop, listening

__all__ = ["Checkpoint", "EMA", "Stop", "Trainer", "Training", "listening"]
