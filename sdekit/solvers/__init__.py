"""Methods that take one step. `ALL` lists them for guards, tests, benchmarks and the order table."""

from ..protocols import Solver
from .euler import EulerMaruyama
from .runge_kutta import RK4, Bosh3, Dopri5, Euler, Heun, Midpoint

ALL: tuple[type[Solver], ...] = (EulerMaruyama, Euler, Heun, Midpoint, RK4, Bosh3, Dopri5)

__all__ = ["ALL", "RK4", "Bosh3", "Dopri5", "Euler", "EulerMaruyama", "Heun", "Midpoint"]
