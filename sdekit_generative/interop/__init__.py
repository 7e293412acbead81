"""Networks and weights from elsewhere, and ours for elsewhere."""

from . import diffusers, score_sde
from .adapters import from_denoiser, from_function
from .diffusers_folder import to_diffusers
from .export import to_safetensors
from .tabulated import Tabulated

__all__ = ["Tabulated", "diffusers", "from_denoiser", "from_function", "score_sde", "to_diffusers", "to_safetensors"]
