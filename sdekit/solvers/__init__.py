"""Methods that take one step. `ALL` lists them for guards, tests, benchmarks and the order table."""

from ..protocols import Solver
from .euler import EulerMaruyama
from .runge_kutta import RK4, Bosh3, Dopri5, Dopri8, Euler, Heun, Midpoint, Tsit5

ALL: tuple[type[Solver], ...] = (EulerMaruyama, Euler, Heun, Midpoint, RK4, Bosh3, Dopri5, Tsit5, Dopri8)

__all__ = ["ALL", "RK4", "Bosh3", "Dopri5", "Dopri8", "Euler", "EulerMaruyama", "Heun", "Midpoint", "Tsit5"]
