"""Score networks: torch modules `(x, c) → image`, which know nothing of processes, data or training."""

from .ncsnpp import DDPMConfig, DDPMppConfig, NCSNpp, NCSNppConfig
from .options import NetworkConfig
from .unet import UNet, UNetConfig

__all__ = ["DDPMConfig", "DDPMppConfig", "NCSNpp", "NCSNppConfig", "NetworkConfig", "UNet", "UNetConfig"]
