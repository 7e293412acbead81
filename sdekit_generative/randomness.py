"""Torch's own random layers (initialisation, dropout) made a function of keys, the global generator left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sdekit.counters import fold


@contextmanager
def scoped_seed(*words: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, torch's generators of the CPU and the device start from the key of the words; afterwards all is as before."""
    where = torch.device(device)
    with torch.random.fork_rng(devices=[] if where.type == "cpu" else [where], device_type=_kind(where)):
        torch.manual_seed(fold(*words) >> 1)
        yield


def _kind(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type
