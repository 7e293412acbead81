"""Networks and weights from elsewhere, and ours for elsewhere."""

from . import score_sde

__all__ = ["score_sde"]
