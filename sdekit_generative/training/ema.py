"""The exponential moving average of the weights, which samples better than the weights themselves.

Notation: p the parameter, s its average, n the number of updates so far; d the decay.

    s ← d s + (1 − d) p,     d = min(decay, (1 + n)/(10 + n))

The second term is the warm-up: early on the average spans the last tenth or so of training, not its random start.

Reference: Polyak, Juditsky (1992); Song et al. (2021), appendix G.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """The averaged parameters of a network. `averages` maps names to tensors; `updates` counts the updates."""

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the network's present parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, parameter in zip(self.averages.values(), network.parameters(), strict=True):
            average.lerp_(parameter, 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Give the averages to a network of the same architecture."""
        for name, p in network.named_parameters():
            p.copy_(self.averages[name])
