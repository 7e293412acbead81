"""How time is cut into steps."""

from .adaptive import Adaptive
from .fixed import FixedSteps, TimeGrid
from .grids import (
    angle_grid,
    density_grid,
    karras_grid,
    log_snr_grid,
    polyexponential_grid,
    quadratic_grid,
    sigma_grid,
    uniform_grid,
)

__all__ = [
    "Adaptive",
    "FixedSteps",
    "TimeGrid",
    "angle_grid",
    "density_grid",
    "karras_grid",
    "log_snr_grid",
    "polyexponential_grid",
    "quadratic_grid",
    "sigma_grid",
    "uniform_grid",
]
