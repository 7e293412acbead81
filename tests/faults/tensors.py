"""Sixteen ways in which a tensor can be other than expected, and what a public function may answer to them.

A function is given, in place of an ordinary tensor, one of the kinds below. Good answers are

* the result of the ordinary tensor that holds the same numbers, where there is one, to rounding; else a finite result, or
  for NaN a result (or a status) that says so; or
* a TypeError or ValueError, raised by a `raise` statement of the packages, that names the argument, and says what was
  expected and what was given.

Anything else is a complaint: an error from the depths of torch, numbers that are wrong or NaN without a word.
"""

from __future__ import annotations

import dataclasses
import linecache
import math
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import sdekit as sk
import sdekit_generative as sg

Change = Callable[[Tensor], Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """make: the strange tensor, of an ordinary one.  plain: the ordinary tensor with the same numbers, if there is one."""

    name: str
    make: Change
    plain: Change | None = None
    rounding: float = 1e-5


def _spoiled(x: Tensor) -> Tensor:
    x = x.clone() if x.is_floating_point() else x.float()
    x.view(-1)[0] = math.nan
    return x


def _numbers(x: Tensor) -> Tensor:
    """Whole numbers, not all alike."""
    return (2 * x).round() if x.is_floating_point() else x


KINDS = (
    Kind("zero batch", lambda x: x[:0]),
    Kind("zero feature", lambda x: x[..., :0]),
    Kind("0-d", lambda x: x.reshape(-1)[0]),
    Kind("non-contiguous", lambda x: torch.stack((x, x), -1)[..., 0], lambda x: x),
    Kind("expanded", lambda x: x[:1].expand_as(x), lambda x: x[:1].repeat(len(x), *(1,) * (x.ndim - 1))),
    Kind("requires_grad", lambda x: x.clone().requires_grad_(x.is_floating_point()), lambda x: x),
    Kind("int64", lambda x: _numbers(x).long(), _numbers),
    Kind("bool", lambda x: x > 0, lambda x: (x > 0).to(x.dtype)),
    Kind("complex64", lambda x: x.to(torch.complex64)),
    Kind("float16", lambda x: x.half(), lambda x: x.half().to(x.dtype), 4e-3),
    Kind("bfloat16", lambda x: x.bfloat16(), lambda x: x.bfloat16().to(x.dtype), 3e-2),
    Kind("float64", lambda x: x.double(), lambda x: x),
    Kind("meta device", lambda x: x.to("meta")),
    Kind("numpy array", lambda x: x.numpy(), lambda x: x),
    Kind("list", lambda x: x.tolist(), lambda x: x),
    Kind("NaN", _spoiled),
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One argument of a public function.

    call: the function of it.  make: an ordinary tensor for it.  constant: whether the result is the same for all numbers.
    traced: whether tensors without numbers may go through, as they do where the shapes of a network are found by them.
    """

    owner: str
    argument: str
    call: Callable[[Any], Any]
    make: Callable[[], Tensor]
    constant: bool = False
    traced: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.owner}({self.argument}=…)"


def parts(value: Any) -> Iterator[Tensor]:
    """The numbers in a result, as tensors."""
    if isinstance(value, Tensor):
        yield value.detach()
    elif isinstance(value, (bool, int, float)):
        yield torch.tensor(value, dtype=torch.float64)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from parts(item)


def _finite(value: Any) -> bool:
    return all(bool(torch.isfinite(part).all()) for part in parts(value))


def _close(found: Any, expected: Any, rounding: float) -> str | None:
    ours, theirs = list(parts(found)), list(parts(expected))
    if len(ours) != len(theirs):
        return f"gave {len(ours)} results, not {len(theirs)}"
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return f"gave shape {tuple(a.shape)}, not {tuple(b.shape)}"
        if a.is_complex() or a.device.type == "meta":
            return f"gave {a.dtype} on {a.device}"
        scale = max(1.0, float(b.double().nan_to_num(posinf=0.0).abs().max()) if b.numel() else 1.0)
        same = (a.double() == b.double()) | (a.isnan() & b.isnan())
        gap = float(torch.where(same, 0.0, (a.double() - b.double()).abs()).max()) if a.numel() else 0.0
        if not gap <= rounding * scale:
            return f"gave numbers {gap / scale:.1e} away from those of the ordinary tensor"
    return None


TIMES = ("t", "t0", "t1", "ta", "tb", "times", "weight")
PACKAGES = tuple(os.path.dirname(os.path.abspath(package.__file__)) + os.sep for package in (sk, sg))
_GIVEN = re.compile(
    r"got|given|asked at|returned|float|half|int64|bool|complex|uint8|ndarray|list|meta|empty|\(\)|\(0|, 0|shape|nan",
    re.I,
)


def _raised_by_us(error: BaseException) -> bool:
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    assert tb is not None
    file, line = tb.tb_frame.f_code.co_filename, linecache.getline(tb.tb_frame.f_code.co_filename, tb.tb_lineno)
    return os.path.abspath(file).startswith(PACKAGES) and line.strip().startswith("raise ")


def _judge_error(entry: Entry, error: Exception) -> str | None:
    said = f"{type(error).__name__}: {str(error)[:160]}"
    if isinstance(error, sk.SolveFailed):
        return None if "NONFINITE" in str(error) else said
    if not isinstance(error, (TypeError, ValueError, sg.UserError)) or not _raised_by_us(error):
        return said + _where(error)
    if not re.search(rf"\b{re.escape(entry.argument)}\b", str(error)):
        return f"{said} — does not name {entry.argument}"
    return None if _GIVEN.search(str(error)) else f"{said} — does not say what was given"


def _where(error: BaseException) -> str:
    tb, place = error.__traceback__, ""
    while tb is not None:
        name = os.path.abspath(tb.tb_frame.f_code.co_filename)
        if name.startswith(PACKAGES):
            place = f" [{name.split(os.sep + 'main' + os.sep)[-1]}:{tb.tb_lineno}]"
        tb = tb.tb_next
    return place


def complaint(entry: Entry, kind: Kind) -> str | None:
    """What is wrong with the answer to one kind of tensor, if anything is."""
    ordinary = entry.make()
    try:
        found = entry.call(kind.make(ordinary))
    except Exception as error:
        return _judge_error(entry, error)
    # noise in float64 is other noise
    if kind.plain is not None and (kind.name != "float64" or entry.argument in TIMES):
        return _close(found, entry.call(kind.plain(ordinary)), kind.rounding)
    tensors = list(parts(found))
    if entry.traced and all(part.device.type == "meta" for part in tensors):
        return None
    if any(part.is_complex() or part.device.type == "meta" for part in tensors):
        return f"gave {[(part.dtype, part.device.type) for part in tensors]}"
    if kind.name == "NaN":
        return "hid a NaN" if _finite(found) and found is not None and not entry.constant else None
    return None if _finite(found) else "gave numbers that are not finite, without a word"
