"""Images on their way in: sources (`Digits`, `Folder`), the `Dataset` they load, and dequantisation."""

from .dataset import Dataset, permutation
from .dequantize import DataRange, Dequantisation, TruncatedNormalNoise, UniformNoise, dequantise, quantise, shown
from .digits import Digits
from .images import Folder

__all__ = [
    "DataRange",
    "Dataset",
    "Dequantisation",
    "Digits",
    "Folder",
    "TruncatedNormalNoise",
    "UniformNoise",
    "dequantise",
    "permutation",
    "quantise",
    "shown",
]
