"""How like real images generated ones are: features of a network, and distances between sets of them."""

from .classifier import digit_features
from .frechet import feature_moments, frechet_distance
from .inception_score import InceptionScore, inception_score
from .kernel import KernelDistance, kernel_distance
from .precision_recall import PrecisionRecall, precision_recall

__all__ = [
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "digit_features",
    "feature_moments",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "precision_recall",
]
