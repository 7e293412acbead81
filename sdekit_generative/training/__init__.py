"""Training: the engine, averages of the weights, checkpoints that survive any interruption, and being stopped."""

from .checkpoint import Checkpoint
from .ema import EMA, PowerEMA
from .engine import Trainer
from .processes import Processes, joined
from .settings import Training
from .stop import Stop, listening

__all__ = ["Checkpoint", "EMA", "PowerEMA", "Processes", "Stop", "Trainer", "Training", "joined", "listening"]
