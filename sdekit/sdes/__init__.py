"""SDEs: from plain functions, linear with exact transitions, diffusion processes, and classics."""

from .checks import check_noise, measured_noise
from .classics import CIR, BrownianBridge, GeometricBrownianMotion
from .convert import to_ito, to_stratonovich
from .critically_damped import CriticallyDamped
from .diffusion import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from .discrete import DDPM, SMLD
from .functions import ODE, ItoSDE, StratonovichSDE
from .linear import LinearSDE
from .ornstein_uhlenbeck import OrnsteinUhlenbeck
from .potentials import DoubleWell, OverdampedLangevin, UnderdampedLangevin
from .prior import IsotropicGaussian
from .process import AffineProcess, DiffusionProcess
from .semilinear import Semilinear
from .systems import FitzHughNagumo, Lorenz, LotkaVolterra
from .transition import ElementwiseTransition, MatrixTransition

__all__ = [
    "CIR",
    "DDPM",
    "EDM",
    "ODE",
    "SMLD",
    "VE",
    "VP",
    "AffineProcess",
    "BrownianBridge",
    "Cosine",
    "CriticallyDamped",
    "DiffusionProcess",
    "DoubleWell",
    "ElementwiseTransition",
    "FitzHughNagumo",
    "GeometricBrownianMotion",
    "IsotropicGaussian",
    "ItoSDE",
    "LinearSDE",
    "Lorenz",
    "LotkaVolterra",
    "MatrixTransition",
    "OrnsteinUhlenbeck",
    "OverdampedLangevin",
    "RectifiedFlow",
    "Semilinear",
    "StratonovichSDE",
    "SubVP",
    "UnderdampedLangevin",
    "check_noise",
    "measured_noise",
    "to_ito",
    "to_stratonovich",
]
