"""How time is cut into steps."""

from .adaptive import Adaptive
from .fixed import FixedSteps, TimeGrid

__all__ = ["Adaptive", "FixedSteps", "TimeGrid"]
