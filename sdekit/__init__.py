"""sdekit: stochastic differential equations on PyTorch, every claim measured against a closed form.

`solve(sde, x0, t0, t1, solver=…, steps=…)` is the one entry to stepping through time; `reverse`, `probability_flow` and
`log_likelihood` are built on it. The vocabulary is in `sdekit.protocols`.
"""

from .analytic import GaussianData, GaussianMixture
from .brownian import *  # noqa: F403
from .errors import Incompatible, SolveFailed, Status
from .events import Event
from .protocols import (
    SDE,
    Affine,
    BrownianMotion,
    Calculus,
    Corrector,
    Dense,
    Direction,
    Divergence,
    Increment,
    Law,
    Levy,
    Noise,
    Order,
    Score,
    Solver,
    Span,
    Step,
    StepControl,
)
from .random import KeyedDraws, Purpose, Replay
from .save import SaveAt
from .scores import *  # noqa: F403
from .sdes import *  # noqa: F403
from .solution import Solution, Stats
from .solve import solve
from .solvers import *  # noqa: F403
from .steps import *  # noqa: F403
