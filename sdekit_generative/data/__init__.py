"""Images on their way in: sources (`Digits`, `Folder`), the `Dataset` they load, and dequantisation."""

from .dataset import Dataset, permutation
from .dequantize import DataRange, dequantise, quantise, shown
from .digits import Digits
from .images import Folder

__all__ = ["Dataset", "DataRange", "Digits", "Folder", "dequantise", "permutation", "quantise", "shown"]
