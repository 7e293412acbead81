"""Diffusion processes that are known at numbered steps only, as those of DDPM and its descendants are.

Notation: ᾱ_k, k = 0 … N − 1, the share of the image's variance that is left after k + 1 steps: step 0 has noise already.

    s = √ᾱ,   std = √(1 − ᾱ),   σ_k = √(1/ᾱ_k − 1);   time is k, and between steps ln σ is linear in it

Reference: Ho, Jain, Abbeel (2020), §2; Nichol, Dhariwal (2021), §3.2 (the cosine schedule).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.sdes.process import DiffusionProcess


@dataclass(frozen=True)
class Tabulated(DiffusionProcess):
    """The variance-preserving process through `log_sigmas`, ln σ at times 0, 1, 2, ….

    Raises ValueError unless there are two or more, finite and increasing.
    """

    log_sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.log_sigmas, self.log_sigmas[1:], strict=False))
        if len(self.log_sigmas) < 2 or not rising or not all(map(math.isfinite, self.log_sigmas)):
            raise ValueError("log_sigmas: expected two or more finite numbers, increasing")

    @classmethod
    def of_betas(cls, betas: Sequence[float] | Tensor) -> Tabulated:
        """From β_k, the share of the variance that step k replaces: `ᾱ_k = Π_{j ≤ k} (1 − β_j)`.

        A last step that leaves nothing of the image (β = 1) has no σ, and is left out.
        Raises ValueError unless 0 < β < 1 for all others.
        """
        values = torch.as_tensor(betas, dtype=torch.float64)
        if len(values) > 2 and float(values[-1]) == 1.0:
            values = values[:-1]
        if values.ndim != 1 or not bool(((values > 0) & (values < 1)).all()):
            raise ValueError("betas: expected a row of numbers between 0 and 1")
        log_kept = torch.log1p(-values).cumsum(0)
        # ln(1/ᾱ − 1)/2 without loss where ᾱ is near 1, and where it is near 0
        return cls(tuple((0.5 * (torch.log(-torch.expm1(log_kept)) - log_kept)).tolist()))

    @property
    def t_min(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.0

    @property
    def t_max(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return float(len(self.log_sigmas) - 1)

    def _table(self, like: Tensor) -> Tensor:
        return torch.tensor(self.log_sigmas, dtype=torch.float64, device=like.device)

    def log_sigma_formula(self, t: Tensor) -> Tensor:
        table = self._table(t)
        k = t.detach().floor().clamp(0, len(table) - 2).long()
        return table[k] + (t - k) * (table[k + 1] - table[k])

    def time_formula(self, log_sigma: Tensor) -> Tensor:
        table = self._table(log_sigma)
        k = (torch.searchsorted(table, log_sigma.detach().contiguous(), right=True) - 1).clamp(0, len(table) - 2)
        return k + (log_sigma - table[k]) / (table[k + 1] - table[k])

    def log_scale_formula(self, t: Tensor) -> Tensor:
        return 0.5 * torch.nn.functional.logsigmoid(-2.0 * self.log_sigma_formula(t))

    def std_formula(self, t: Tensor) -> Tensor:
        return torch.exp(0.5 * torch.nn.functional.logsigmoid(2.0 * self.log_sigma_formula(t)))

    def prior_std(self) -> float:
        """1."""
        return 1.0


def scheduler_betas(config: Any) -> Tensor:
    """β_k of a diffusers scheduler configuration: a mapping with `num_train_timesteps`, `beta_schedule`, ….

    Raises ValueError for schedules that are not known.
    """
    if config.get("trained_betas") is not None:
        betas = torch.as_tensor(config["trained_betas"], dtype=torch.float64)
    else:
        betas = _schedule(config)
    return _without_signal_at_the_end(betas) if config.get("rescale_betas_zero_snr") else betas


def _schedule(config: Any) -> Tensor:
    n, kind = int(config.get("num_train_timesteps", 1000)), config.get("beta_schedule", "linear")
    first, last = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 2e-2))
    if kind == "linear":
        return torch.linspace(first, last, n, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, n, dtype=torch.float64).square()
    if kind == "sigmoid":
        return torch.linspace(-6.0, 6.0, n, dtype=torch.float64).sigmoid() * (last - first) + first
    if kind == "squaredcos_cap_v2":
        angle = (torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64) + 0.008) / 1.008 * (math.pi / 2)
        kept = angle.cos().square()
        return (1.0 - kept[1:] / kept[:-1]).clamp_max(0.999)
    raise ValueError(f"beta_schedule: expected linear, scaled_linear, sigmoid or squaredcos_cap_v2, got {kind!r}")


def _without_signal_at_the_end(betas: Tensor) -> Tensor:
    """The schedule with √ᾱ moved and stretched so that it ends at 0 and begins where it began.

    Reference: Lin, Liu, Li, Yang (2024), "Common diffusion noise schedules and sample steps are flawed", algorithm 1.
    """
    root = (1.0 - betas).cumprod(0).sqrt()
    kept = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
    return torch.cat([1.0 - kept[:1], 1.0 - kept[1:] / kept[:-1]])
