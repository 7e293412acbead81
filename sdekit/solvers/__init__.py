"""Methods that take one step. `ALL` lists them for guards, tests, benchmarks and the order table.

`ALL` begins with what an error message is to recommend: the first solver in it that fits.
"""

from typing import Any

from .adams import Adams
from .euler import EulerMaruyama
from .euler_heun import EulerHeun
from .exponential import denoise
from .exponential_multistep import DEIS, AngularAdams, DPMSolverPP, SASolver, UniPC
from .exponential_sde import ExponentialEuler
from .exponential_single import DDIM, SEEDS, DPMSolver
from .halving import Halving
from .heun_samplers import EDMHeun, GottaGoFast
from .implicit import DriftImplicitEuler, SplitStepEuler
from .milstein import ItoGeneralMilstein, ItoMilstein, StratonovichGeneralMilstein, StratonovichMilstein
from .restart import Restart
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
    Adams,
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

# for probability_flow(process, score) and reverse(process, score) of an affine process, in every order they come in
SAMPLERS: tuple[Any, ...] = (
    DDIM(),
    *(DPMSolver(p) for p in (1, 2, 3)),
    *(DPMSolverPP(p) for p in (1, 2, 3)),
    *(DEIS(p) for p in (1, 2, 3, 4)),
    *(UniPC(p) for p in (1, 2, 3)),
    *(SASolver(p, c) for p, c in ((2, 3), (3, 4))),
    *(AngularAdams(p) for p in (1, 2, 3, 4)),
    *(SEEDS(p) for p in (1, 2)),
    EDMHeun(),
    GottaGoFast(),
)

__all__ = [
    "ALL",
    "BAOAB",
    "DDIM",
    "DEIS",
    "DRI1",
    "QUICSORT",
    "RK4",
    "SAMPLERS",
    "SEEDS",
    "SRA1",
    "SRA3",
    "SRI",
    "SRIW1",
    "STRUCTURED",
    "Adams",
    "AngularAdams",
    "Bosh3",
    "DPMSolver",
    "DPMSolverPP",
    "Dopri5",
    "Dopri8",
    "DriftImplicitEuler",
    "EDMHeun",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "ExponentialEuler",
    "GottaGoFast",
    "Halving",
    "Heun",
    "ItoGeneralMilstein",
    "ItoMilstein",
    "Midpoint",
    "PlatenWeak2",
    "Restart",
    "ReversibleHeun",
    "Rodas5P",
    "SASolver",
    "ShARK",
    "SplitStepEuler",
    "StratonovichGeneralMilstein",
    "StratonovichMilstein",
    "TamedEuler",
    "Tsit5",
    "UniPC",
    "denoise",
]
