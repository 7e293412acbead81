"""SDEs: from plain functions, linear with exact transitions, diffusion processes, and classics."""

from .functions import ODE, ItoSDE, StratonovichSDE

__all__ = ["ODE", "ItoSDE", "StratonovichSDE"]
