"""Dropout as a function of (seed, step, layer, sample): the same for a sample in whatever batch and process it sits.

torch draws the masks of a batch in one go, so that two processes with half a batch each would drop other features than
one process with the whole. On a CPU each sample's mask is keyed here; on other devices, where keying by sample is slow,
torch's own generator is keyed by (seed, step, first sample), so that a run repeats itself on the same split.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdekit.random import KeyedDraws, Purpose

from ..randomness import scoped_seed

_DROPOUT = 1  # keeps the key of dropout apart from that of initialisation


class KeyedDropout:
    """Makes the `nn.Dropout` layers of a network draw by key."""

    def __init__(self, network: nn.Module, seed: int) -> None:
        self._seed, self._step, self._first = seed, 0, 0
        self._draws: dict[int, KeyedDraws] = {}
        for place, layer in enumerate(m for m in network.modules() if isinstance(m, nn.Dropout) and m.p > 0.0):
            # in place of the layer's own, so that the network keeps its modules and the names of its weights
            cast(Any, layer).forward = partial(self._drop, layer, place)

    @contextmanager
    def at(self, step: int, first: int, device: torch.device) -> Iterator[None]:
        """Inside, the network is evaluated on samples first, first + 1, … of a step."""
        self._step, self._first = step, first
        with scoped_seed(self._seed, _DROPOUT, step, first, device=device):
            yield

    def _drop(self, layer: nn.Dropout, place: int, h: Tensor) -> Tensor:
        if not layer.training or h.device.type != "cpu":
            return functional.dropout(h, layer.p, layer.training)
        draws = self._draws.setdefault(self._first, KeyedDraws(self._seed, self._first))
        u = draws.uniform(Purpose.USER, self._step, tuple(h.shape), torch.float32, h.device, part=place)
        return h * (u >= layer.p).to(h.dtype).mul_(1.0 / (1.0 - layer.p))
