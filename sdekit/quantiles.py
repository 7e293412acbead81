"""Exact quantiles of samples that are spread over processes, without gathering them.

The k-th smallest of all samples is the smallest number v with at least k samples ≤ v. Floats are ordered as the integers
that share their bits (the negative ones turned round), so bisection over integers finds v exactly: every round, each
process counts its own samples and the counts are summed. 32 rounds for float32, 64 for float64, whatever the number of
samples; what travels is one count per quantile and entry.

Between two order statistics a quantile is interpolated linearly: for N samples, quantile q lies at place (N − 1) q.

Reference: Hyndman, Fan (1996), "Sample quantiles in statistical packages", definition 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import check_number
from .processes import Processes

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def quantiles(samples: Tensor, levels: Sequence[float], group: Processes | None = None) -> Tensor:
    """Quantiles `(Q, *shape)`, in the dtype of the samples, of `(N, *shape)` on every process together.

    samples: float32 or float64, without NaN; a process may hold none.  levels: in [0, 1].

    Raises ValueError for levels outside [0, 1], for NaN, and where no process holds a sample.
    """
    _check_samples(samples)
    group = Processes.current() if group is None else group
    for level in levels:
        check_number("quantiles: a level", level, least=0.0)
        if level > 1.0:
            raise ValueError(f"quantiles: a level must lie in [0, 1], got {level!r}")
    count = int(group.sum(torch.tensor(len(samples))))
    holes = int(group.sum(torch.isnan(samples).sum()))
    if count == 0 or holes:
        found = "none" if count == 0 else f"{holes} NaN among them"
        raise ValueError(f"samples: expected numbers, got {found}")
    places = [(count - 1) * float(level) for level in levels]
    ranks = sorted({k for place in places for k in (math.floor(place), math.ceil(place))})
    found = order_statistics(samples, ranks, group)
    row = {rank: i for i, rank in enumerate(ranks)}
    result: list[Tensor] = []
    for place in places:
        low, high = found[row[math.floor(place)]], found[row[math.ceil(place)]]
        share = place - math.floor(place)
        # equal ends may be infinite, and then have no difference
        result.append(low if share == 0.0 else torch.where(low == high, low, low + (high - low) * share))
    return torch.stack(result) if result else samples.new_empty((0, *samples.shape[1:]))


def _check_samples(samples: object) -> None:
    if not isinstance(samples, Tensor):
        raise TypeError(f"samples: expected a tensor (N, *shape), got {type(samples).__name__}")
    if samples.ndim == 0:
        raise ValueError("samples: expected a tensor (N, *shape), got shape ()")
    if samples.dtype not in _INTEGERS or samples.device.type == "meta":
        raise TypeError(f"samples: expected float32 or float64, got {samples.dtype} on {samples.device}")


def order_statistics(samples: Tensor, ranks: Sequence[int], group: Processes) -> Tensor:
    """The samples of the given places (0 the smallest) among those of all processes, `(len(ranks), *shape)`."""
    shape = samples.shape[1:]
    held = _as_integer(samples.reshape(len(samples), shape.numel())).mT.contiguous().sort(dim=1).values  # (S, N)
    wanted = torch.tensor(ranks, dtype=torch.int64, device=samples.device)
    bounds = torch.iinfo(held.dtype)
    low = torch.full((len(held), len(ranks)), bounds.min, dtype=held.dtype, device=held.device)
    high = torch.full_like(low, bounds.max)
    for _ in range(bounds.bits):
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, rounded down, without overflow
        enough = group.sum(torch.searchsorted(held, middle, right=True)) > wanted
        high = torch.where(enough, middle, high)
        low = torch.where(enough, low, middle + 1).minimum(high)
    return _as_float(high.mT.contiguous(), samples.dtype).reshape(len(ranks), *shape)


def _as_integer(x: Tensor) -> Tensor:
    """Integers in the order of the floats: `i` where the sign bit is clear, else i with all its other bits turned."""
    # adding 0 turns −0 into +0, which would otherwise be apart
    return _turned((x + 0.0).contiguous().view(_INTEGERS[x.dtype]))


def _as_float(i: Tensor, dtype: torch.dtype) -> Tensor:
    return _turned(i).view(dtype)


def _turned(i: Tensor) -> Tensor:
    bounds = torch.iinfo(i.dtype)
    return i ^ ((i >> (bounds.bits - 1)) & bounds.max)
