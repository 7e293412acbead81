"""Exponential moving averages of the weights, which sample better than the weights themselves.

Notation: p the parameter, s its average, n the number of updates so far; d the decay.

    s ← d s + (1 − d) p

`EMA`       d = min(decay, (1 + n)/(10 + n)). The second term is the warm-up: early on the average spans the last tenth
            or so of training, not its random start.
`PowerEMA`  d = (1 − 1/n)^(γ+1): the weight of the parameters at time τ ≤ n is proportional to τ^γ, so that the average
            spans the same share of training at every n. Its width σ_rel, the standard deviation of τ/n, fixes γ.

Reference: Polyak, Juditsky (1992); Song et al. (2021), appendix G; Karras et al. (2024), "Analyzing and improving the
training dynamics of diffusion models", §3.1 and appendix C.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


class _Average:
    """The averaged parameters of a network. `averages` maps names to tensors; `updates` counts the updates."""

    def __init__(self, network: nn.Module) -> None:
        self.updates = 0
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in network.named_parameters()}

    def present_decay(self) -> float:
        """The decay d of the update that is being made."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the network's present parameters."""
        self.updates += 1
        towards = 1.0 - self.present_decay()
        for average, parameter in zip(self.averages.values(), network.parameters(), strict=True):
            average.lerp_(parameter, towards)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Give the averages to a network of the same architecture."""
        for name, p in network.named_parameters():
            p.copy_(self.averages[name])

    @contextmanager
    def lent_to(self, network: nn.Module) -> Iterator[None]:
        """Inside, the network has the averages for parameters; afterwards its own, bit for bit."""
        own = [p.detach().clone() for p in network.parameters()]
        self.copy_to(network)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(network.parameters(), own, strict=True):
                    p.copy_(value)


class EMA(_Average):
    """The average of constant decay with a warm-up. Raises ValueError for a decay outside [0, 1)."""

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
        super().__init__(network)
        self.decay = decay

    def present_decay(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates))


class PowerEMA(_Average):
    """The average of power-function profile. `width` is σ_rel, between 0 and about 0.28."""

    def __init__(self, network: nn.Module, width: float) -> None:
        super().__init__(network)
        self.width, self.power = width, power_of(width)

    def present_decay(self) -> float:
        return (1.0 - 1.0 / self.updates) ** (self.power + 1.0)


def power_of(width: float) -> float:
    """γ of the profile τ^γ of a given width σ_rel: `(γ + 2)² (γ + 3) = (γ + 1)/σ_rel²`.

    Raises ValueError unless 0 < σ_rel < 1/√12, the width of the plain mean.
    Reference: Karras et al. (2024), algorithm 2.
    """
    if not 0.0 < width < 12.0**-0.5:
        raise ValueError(f"width: expected a number above 0 and below {12.0**-0.5:.4f}, got {width}")
    inverse = width**-2.0
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots.real.max())


def combination(powers: list[float], updates: list[int], power: float, at: int) -> np.ndarray:
    """Weights of stored averages, of these powers after these updates, whose sum is nearest to a wanted average.

    Nearest in the sense of least squares between profiles, whose inner products have the closed form

        ⟨a, b⟩ = (γ_a + 1)(γ_b + 1)/(γ_a + γ_b + 1) · m^(γ_a+γ_b+1)/(t_a^(γ_a+1) t_b^(γ_b+1)),   m = min(t_a, t_b)

    Reference: Karras et al. (2024), appendix C.2.
    """
    gammas, times = np.array(powers, dtype=np.float64), np.array(updates, dtype=np.float64)
    products = _inner(gammas[:, None], times[:, None], gammas[None], times[None])
    wanted = _inner(gammas, times, np.array(power, dtype=np.float64), np.array(at, dtype=np.float64))
    # in units of each profile's own norm, so that short and long ones are solved for alike
    norms = np.sqrt(np.diag(products))
    solution = np.linalg.lstsq(products / np.outer(norms, norms), wanted / norms, rcond=1e-12)[0]
    return solution / norms


def _inner(a: np.ndarray, t_a: np.ndarray, b: np.ndarray, t_b: np.ndarray) -> np.ndarray:
    shorter = np.minimum(t_a, t_b)
    logs = (a + b + 1) * np.log(shorter) - (a + 1) * np.log(t_a) - (b + 1) * np.log(t_b)
    return (a + 1) * (b + 1) / (a + b + 1) * np.exp(logs)
