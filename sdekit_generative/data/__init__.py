"""Images on their way in: sources (`Digits`, `Folder`, `Cifar10`, `Parquet`), the `Dataset` they load, dequantisation."""

from .cifar import Cifar10
from .dataset import Dataset, permutation
from .dequantize import DataRange, Dequantisation, TruncatedNormalNoise, UniformNoise, dequantise, quantise, shown
from .digits import Digits
from .images import Folder
from .parquet import Parquet
from .survey import Survey, source_of, survey

__all__ = [
    "Cifar10",
    "DataRange",
    "Dataset",
    "Dequantisation",
    "Digits",
    "Folder",
    "Parquet",
    "Survey",
    "TruncatedNormalNoise",
    "UniformNoise",
    "dequantise",
    "permutation",
    "quantise",
    "shown",
    "source_of",
    "survey",
]
