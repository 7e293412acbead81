"""Networks and weights from elsewhere, and ours for elsewhere."""

from . import diffusers, score_sde
from .adapters import from_denoiser, from_function
from .tabulated import Tabulated

__all__ = ["Tabulated", "diffusers", "from_denoiser", "from_function", "score_sde"]
