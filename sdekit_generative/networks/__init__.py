"""Score networks: torch modules `(x, c) → image`, which know nothing of processes, data or training; and classifiers."""

from .classifier import SmallClassifier, SmallClassifierConfig, WideResNet, WideResNetConfig
from .ncsnpp import DDPMConfig, DDPMppConfig, NCSNpp, NCSNppConfig
from .ncsnv2 import NCSNv2, NCSNv2Config
from .options import NetworkConfig
from .unet import UNet, UNetConfig

__all__ = [
    "DDPMConfig",
    "DDPMppConfig",
    "NCSNpp",
    "NCSNppConfig",
    "NCSNv2",
    "NCSNv2Config",
    "NetworkConfig",
    "SmallClassifier",
    "SmallClassifierConfig",
    "UNet",
    "UNetConfig",
    "WideResNet",
    "WideResNetConfig",
]
