"""Brownian motion: independent increments, a grid with exact coarsening, and a tree for any time in any order."""

from .fresh import FreshIncrements
from .grid import BrownianGrid
from .halves import HalvedPath
from .tree import BrownianTree

__all__ = ["BrownianGrid", "BrownianTree", "FreshIncrements", "HalvedPath"]
