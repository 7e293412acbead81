"""Inverse problems: name the operator, give the observation, get samples of the posterior.

    import sdekit_generative as sg
    images = sg.restore(model, sg.inverse.Inpaint(mask), observed, method=sg.inverse.PiGDM(), n=8, seed=0)

Operators say what is observed, methods how the model is conditioned on it; any sampler does the stepping.
"""

from .exact import exact_posterior
from .filters import CT, Downsample, GaussianBlur, MotionBlur
from .gradients import DPS, MMPS, TMPD, PiGDM
from .guided import Guidance, Guided, Method, Tally
from .measurement import Measurement, observe
from .nonlinear import Nonlinear, PhaseRetrieval, Quantise
from .operator import SVD, Composed, FromFunction, Linear, Matrix, MeasurementError, Operator, adjoint_error, as_matrix
from .operators import MRI, Colorize, CompressedSensing, Inpaint, MixChannels, mri_mask
from .particles import TwistedSMC
from .posterior import Posterior, restorations, restore, sample_posterior
from .projections import DDNM, DiffPIR
from .replacement import Projection, RePaint, Replacement

__all__ = [
    "CT",
    "Colorize",
    "Composed",
    "CompressedSensing",
    "DDNM",
    "DPS",
    "DiffPIR",
    "Downsample",
    "FromFunction",
    "GaussianBlur",
    "Guidance",
    "Guided",
    "Inpaint",
    "Linear",
    "MMPS",
    "MRI",
    "Matrix",
    "Measurement",
    "MeasurementError",
    "Method",
    "MixChannels",
    "MotionBlur",
    "Nonlinear",
    "Operator",
    "PhaseRetrieval",
    "PiGDM",
    "Posterior",
    "Projection",
    "Quantise",
    "RePaint",
    "Replacement",
    "SVD",
    "TMPD",
    "Tally",
    "TwistedSMC",
    "adjoint_error",
    "as_matrix",
    "exact_posterior",
    "mri_mask",
    "observe",
    "restorations",
    "restore",
    "sample_posterior",
]
