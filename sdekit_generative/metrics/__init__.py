"""How like real images generated ones are: features of a network trained to tell the images apart, and distances."""

from .classifier import digit_features
from .frechet import frechet_distance

__all__ = ["digit_features", "frechet_distance"]
