"""Brownian motion: independent increments, a grid with exact coarsening, and a tree for any time in any order."""

from .fresh import FreshIncrements

__all__ = ["FreshIncrements"]
