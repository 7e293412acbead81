"""What a score is good for: reversing laws, sampling, densities."""

from .coordinates import Angle, Clock
from .correctors import AnnealedLangevin, Langevin
from .divergence import Exact, Hutchinson, HutchPlusPlus
from .likelihood import LogLikelihood, log_likelihood
from .predictor_corrector import PredictorCorrector
from .predictors import Ancestral, ReverseDiffusion
from .reverse import ReverseSDE, probability_flow, reverse

__all__ = [
    "Ancestral",
    "Angle",
    "AnnealedLangevin",
    "Clock",
    "Exact",
    "HutchPlusPlus",
    "Hutchinson",
    "Langevin",
    "LogLikelihood",
    "PredictorCorrector",
    "ReverseDiffusion",
    "ReverseSDE",
    "log_likelihood",
    "probability_flow",
    "reverse",
]
