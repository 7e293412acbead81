"""Brownian motion: independent increments, a grid with exact coarsening, and a tree for any time in any order."""

from .fresh import FreshIncrements
from .tree import BrownianTree

__all__ = ["BrownianTree", "FreshIncrements"]
