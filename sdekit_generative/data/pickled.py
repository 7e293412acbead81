"""Python pickles of arrays, read without running anything that they say.

A pickle is a program: it may call whatever it can name. Here it can name four things, each of which is replaced by a
record that only keeps what it is given; arrays are made of those records afterwards, and only of plain numbers.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from ..errors import DataError


class _Dtype:
    """What a pickle says of a numpy dtype: its name and byte order."""

    def __init__(self, *arguments: Any) -> None:
        self.name, self.order = arguments[0] if arguments else None, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])


class _Array:
    """What a pickle says of a numpy array: shape, dtype, order and bytes."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ArrayType:
    """Stands for `numpy.ndarray` where it is an argument."""


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """How old pickles write bytes: as text that is to be encoded."""
    if not isinstance(text, str):
        raise pickle.UnpicklingError("only text can be encoded")
    return text.encode("latin1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _KNOWN[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is not data") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside itself")


def read_pickle(content: bytes, name: str) -> dict[str, Any]:
    """The dictionary that a pickle holds: numbers, text, bytes, lists, and arrays of numbers.

    Raises DataError that names the file for anything else.
    """
    try:
        value = _Reader(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(value, dict):
            raise pickle.UnpicklingError(f"it holds a {type(value).__name__} and no dictionary")
        return {_text(key): _plain(item) for key, item in value.items()}
    except Exception as problem:  # a broken pickle may raise anything
        raise DataError(f"{name}: not a pickle of arrays ({' '.join(str(problem).split())})") from None


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return _array(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (int, float, bytes, str, type(None))):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")


def _array(found: _Array) -> np.ndarray:
    _, shape, dtype, fortran, content = found.state
    code = _text(dtype.name)
    if not isinstance(dtype, _Dtype) or code[:1] not in "biuf" or dtype.order not in "|<>=":
        raise pickle.UnpicklingError("its arrays are not of numbers")
    if not isinstance(content, bytes) or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError("its arrays are not written as bytes")
    flat = np.frombuffer(content, dtype=np.dtype(("" if dtype.order == "|" else dtype.order) + code))
    return flat.reshape(tuple(shape), order="F" if fortran else "C")
