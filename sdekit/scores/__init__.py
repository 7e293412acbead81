"""What a score is good for: reversing laws, sampling, densities; and where scores come from."""

from .coordinates import Angle, Clock
from .correctors import AnnealedLangevin, Langevin, langevin_dynamics
from .divergence import Exact, Hutchinson, HutchPlusPlus
from .energy import EnergyScore
from .fokker_planck import fokker_planck_residual
from .guidance import ClassifierGuidance, Guided, SigmaInterval, autoguidance, classifier_free
from .latent import decode, encode, interpolate
from .likelihood import LogLikelihood, log_likelihood
from .matching import (
    denoising_score_matching,
    implicit_score_matching,
    score_regression,
    sliced_score_matching,
)
from .parametrize import (
    Converted,
    Parametrization,
    PredictsDenoiser,
    PredictsF,
    PredictsFlow,
    PredictsNoise,
    PredictsScore,
    PredictsVelocity,
    as_score,
    convert_prediction,
)
from .pilot import Pilots
from .predictor_corrector import PredictorCorrector
from .predictors import Ancestral, ReverseDiffusion
from .reverse import ReverseSDE, probability_flow, reverse
from .tune import Trial, Tuned, optimal_grid, tune

__all__ = [
    "Ancestral",
    "Angle",
    "AnnealedLangevin",
    "ClassifierGuidance",
    "Clock",
    "Converted",
    "EnergyScore",
    "Exact",
    "Guided",
    "HutchPlusPlus",
    "Hutchinson",
    "Langevin",
    "LogLikelihood",
    "Parametrization",
    "Pilots",
    "PredictorCorrector",
    "PredictsDenoiser",
    "PredictsF",
    "PredictsFlow",
    "PredictsNoise",
    "PredictsScore",
    "PredictsVelocity",
    "ReverseDiffusion",
    "ReverseSDE",
    "SigmaInterval",
    "Trial",
    "Tuned",
    "as_score",
    "autoguidance",
    "classifier_free",
    "convert_prediction",
    "decode",
    "denoising_score_matching",
    "encode",
    "fokker_planck_residual",
    "implicit_score_matching",
    "interpolate",
    "langevin_dynamics",
    "log_likelihood",
    "optimal_grid",
    "probability_flow",
    "reverse",
    "score_regression",
    "sliced_score_matching",
    "tune",
]
