"""Methods that take one step. `ALL` lists them for guards, tests, benchmarks and the order table.

`ALL` begins with what an error message is to recommend: the first solver in it that fits.
"""

from typing import Any

from .euler import EulerMaruyama
from .euler_heun import EulerHeun
from .exponential_sde import ExponentialEuler
from .implicit import DriftImplicitEuler, SplitStepEuler
from .milstein import ItoGeneralMilstein, ItoMilstein, StratonovichGeneralMilstein, StratonovichMilstein
from .reversible import ReversibleHeun
from .rosenbrock import Rodas5P
from .runge_kutta import RK4, Bosh3, Dopri5, Dopri8, Euler, Heun, Midpoint, Tsit5
from .stochastic_rk import SRA1, SRA3, SRI, SRIW1, ShARK
from .tamed import TamedEuler
from .underdamped import BAOAB, QUICSORT
from .weak import DRI1, PlatenWeak2

ALL: tuple[type[Any], ...] = (
    # recommended for ODEs, additive, commutative and general noise, in this order
    Dopri5,
    SRA1,
    ItoMilstein,
    StratonovichMilstein,
    ItoGeneralMilstein,
    StratonovichGeneralMilstein,
    # the others
    EulerMaruyama,
    EulerHeun,
    TamedEuler,
    SRA3,
    ShARK,
    SRI,
    SRIW1,
    Euler,
    Heun,
    Midpoint,
    RK4,
    Bosh3,
    Tsit5,
    Dopri8,
    Rodas5P,
    DriftImplicitEuler,
    SplitStepEuler,
    PlatenWeak2,
    DRI1,
    ReversibleHeun,
)

# for SDEs of a form of their own, which `ALL` is not tried on: their orders are measured on such SDEs
STRUCTURED: tuple[type[Any], ...] = (
    BAOAB,
    QUICSORT,
    ExponentialEuler,
)

__all__ = [
    "ALL",
    "BAOAB",
    "DRI1",
    "QUICSORT",
    "RK4",
    "SRA1",
    "SRA3",
    "SRI",
    "SRIW1",
    "STRUCTURED",
    "Bosh3",
    "Dopri5",
    "Dopri8",
    "DriftImplicitEuler",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "ExponentialEuler",
    "Heun",
    "ItoGeneralMilstein",
    "ItoMilstein",
    "Midpoint",
    "PlatenWeak2",
    "ReversibleHeun",
    "Rodas5P",
    "ShARK",
    "SplitStepEuler",
    "StratonovichGeneralMilstein",
    "StratonovichMilstein",
    "TamedEuler",
    "Tsit5",
]
