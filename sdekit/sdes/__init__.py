"""SDEs: from plain functions, linear with exact transitions, diffusion processes, and classics."""

from .diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from .functions import ODE, ItoSDE, StratonovichSDE
from .linear import LinearSDE
from .ornstein_uhlenbeck import OrnsteinUhlenbeck
from .process import AffineProcess, DiffusionProcess, IsotropicGaussian
from .transition import ElementwiseTransition, MatrixTransition

__all__ = [
    "EDM",
    "ODE",
    "VE",
    "VP",
    "AffineProcess",
    "Cosine",
    "DiffusionProcess",
    "ElementwiseTransition",
    "IsotropicGaussian",
    "ItoSDE",
    "LinearSDE",
    "MatrixTransition",
    "OrnsteinUhlenbeck",
    "RectifiedFlow",
    "StratonovichSDE",
    "SubVP",
]
