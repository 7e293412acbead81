"""Torch's own random layers (initialisation, dropout) made a function of keys, the global generator left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sdekit.counters import fold


@contextmanager
def scoped_seed(*words: int) -> Iterator[None]:
    """Inside, torch's CPU generator starts from the key of the words; afterwards it is where it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(*words) >> 1)
        yield
