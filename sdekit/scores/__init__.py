"""What a score is good for: reversing laws, sampling, densities."""

from .correctors import AnnealedLangevin, Langevin
from .divergence import Exact, Hutchinson
from .likelihood import LogLikelihood, log_likelihood
from .predictor_corrector import PredictorCorrector
from .predictors import Ancestral, ReverseDiffusion
from .reverse import ReverseSDE, probability_flow, reverse

__all__ = [
    "Ancestral",
    "AnnealedLangevin",
    "Exact",
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
