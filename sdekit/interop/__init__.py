"""Both neighbours: objects of torchsde and torchdiffeq usable here, and ours there.

Not imported by `sdekit` itself: `from sdekit.interop import to_torchsde`.
"""

from .torchdiffeq import TorchdiffeqSolver, to_torchdiffeq
from .torchsde import from_torchsde, to_torchsde
from .torchsde_paths import BrownianTree, TorchsdeBrownian, TorchsdePath, brownian_for_torchsde

__all__ = [
    "BrownianTree",
    "TorchdiffeqSolver",
    "TorchsdeBrownian",
    "TorchsdePath",
    "brownian_for_torchsde",
    "from_torchsde",
    "to_torchdiffeq",
    "to_torchsde",
]
