"""How like real images generated ones are: features of a network, and distances between sets of them."""

from .classifier import digit_features
from .features import DigitFeatures, FeatureModule, FeatureNetwork, Features, load_inception
from .frechet import feature_moments, frechet_distance
from .image_quality import psnr, ssim
from .inception_score import InceptionScore, inception_score
from .kernel import KernelDistance, kernel_distance
from .precision_recall import PrecisionRecall, precision_recall
from .statistics import Collected, Statistics, measure_images

__all__ = [
    "Collected",
    "DigitFeatures",
    "FeatureModule",
    "FeatureNetwork",
    "Features",
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "Statistics",
    "digit_features",
    "feature_moments",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "load_inception",
    "measure_images",
    "precision_recall",
    "psnr",
    "ssim",
]
