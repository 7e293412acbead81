"""Arguments looked at before they are used, so that what is wrong is said in the words of the caller.

Every function takes what the argument is called, and raises TypeError or ValueError with what was given and what is
accepted. `what` reads like "VP: beta_min".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

_LARGEST = 1e100


def check_number(what: str, value: object, *, above: float = -math.inf, least: float = -math.inf) -> None:
    """Raise unless value is a real number, or a tensor of one, > above and ≥ least; never larger than 10¹⁰⁰."""
    real = (int, float, np.integer, np.floating)
    if isinstance(value, Tensor):
        fits = value.ndim == 0 and not value.is_complex() and value.dtype != torch.bool
    else:
        fits = isinstance(value, real) and not isinstance(value, bool)
    if not fits:
        raise TypeError(f"{what} must be a number, got {value!r}")
    number = float(value.detach() if isinstance(value, Tensor) else cast(float, value))
    if not abs(number) <= _LARGEST:
        raise ValueError(f"{what} must be finite, and not as large as to overflow; got {value!r}")
    if not number > above:
        raise ValueError(f"{what} must be {'positive' if above == 0 else f'above {above:g}'}, got {value!r}")
    if not number >= least:
        raise ValueError(f"{what} must be {'not negative' if least == 0 else f'at least {least:g}'}, got {value!r}")


def check_numbers(owner: object, *names: str, above: float = -math.inf, least: float = -math.inf) -> None:
    """`check_number` for fields of an object."""
    for name in names:
        check_number(f"{type(owner).__name__}: {name}", getattr(owner, name), above=above, least=least)


def check_integer(what: str, value: object, least: int) -> None:
    """Raise unless value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} must be an integer of {least} or more, got {value!r}")
    if value < least:
        raise ValueError(f"{what} must be an integer of {least} or more, got {value!r}")


def check_has(what: str, value: object, names: Sequence[str], expected: str) -> None:
    """Raise unless value is an object, not a class, that has these attributes."""
    if isinstance(value, type):
        raise TypeError(f"{what}: expected {expected}, got the class {value.__name__}; write {value.__name__}(…)")
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise TypeError(f"{what}: expected {expected}, got {value!r}, which has no `{missing[0]}`")


def check_state(what: str, x: object, valued: bool = True) -> None:
    """Raise unless x is a batch of states `(B, *shape)` that can be computed with; valued: with more than their shapes."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: expected a tensor (B, *shape), got {type(x).__name__}; use torch.as_tensor({what})")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{what}: a state needs float32 or float64, got {x.dtype}; use {what}.float()")
    if x.ndim < 2:
        raise ValueError(
            f"{what}: expected (B, *shape) with at least one dimension after the batch, got {tuple(x.shape)}; "
            f"use {what}[:, None]"
        )
    if x.numel() == 0:
        raise ValueError(f"{what}: the batch is empty, shape {tuple(x.shape)}")
    if x.layout is not torch.strided:
        raise TypeError(f"{what}: expected a dense tensor, got layout {x.layout}; use {what}.to_dense()")
    if valued and x.device.type == "meta":
        raise ValueError(f"{what} is on the meta device and has no values")


def spreads(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Whether a tensor of this shape broadcasts to the other, and leaves that as it is."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to)))  # noqa: B905


def check_like(what: str, value: object, like_what: str, like: Tensor, spread: bool = False) -> None:
    """Raise unless value is a floating tensor of the shape of `like`, beside which it stands, or one that spreads to it."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{what}: expected a tensor shaped like {like_what}, got {type(value).__name__}")
    if value.shape != like.shape and not (spread and spreads(value.shape, like.shape)):
        raise ValueError(
            f"{what}: expected the shape of {like_what}, {tuple(like.shape)}, got shape {tuple(value.shape)}"
        )
    if not value.is_floating_point() or value.device != like.device:
        raise TypeError(
            f"{what}: expected real floating numbers on {like.device}, as {like_what}, got {value.dtype} on {value.device}"
        )


def check_time(what: str, t: object) -> None:
    """Raise for a tensor that is no time: complex, or without values."""
    if isinstance(t, Tensor) and (t.is_complex() or t.device.type == "meta"):
        raise TypeError(f"{what}: expected a time, a number or a tensor of real numbers, got {t.dtype} on {t.device}")


def check_shape(what: str, shape: object, least: int = 1) -> None:
    """Raise unless shape is a sequence of at least `least` sizes."""
    sizes = cast(Sequence[object], shape) if isinstance(shape, (tuple, list)) else (None,)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes)
    if not whole or len(sizes) < least:
        raise ValueError(f"{what} must be a tuple of sizes (B, …), got {shape!r}")


def check_dtype(what: str, dtype: object) -> None:
    """Raise unless dtype is torch.float32 or torch.float64."""
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{what} must be torch.float32 or torch.float64, got {dtype!r}")


def floating(what: str, value: object) -> Tensor:
    """A real floating tensor of numbers, from anything that is one."""
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} must be a tensor or numbers to make one, got {value!r}") from error
    if found.is_complex() or found.device.type == "meta":
        raise TypeError(f"{what} must hold real numbers, got {found.dtype} on {found.device}")
    if found.numel() == 0:
        raise ValueError(f"{what} is empty, shape {tuple(found.shape)}")
    return found if found.is_floating_point() else found.to(torch.get_default_dtype())
