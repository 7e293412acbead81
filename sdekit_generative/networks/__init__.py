"""Score networks: torch modules `(x, c) → image`, which know nothing of processes, data or training."""

from .unet import UNet, UNetConfig

__all__ = ["UNet", "UNetConfig"]
