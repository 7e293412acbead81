"""Methods that differentiate the denoiser. Notation as in `guided`; r = y − A D.

    p(y | x̃) ≈ N(y; A D, A V Aᵀ + σ_y²),     ∇_x̃ log p(y | x̃) ≈ Jᵀ Aᵀ (A V Aᵀ + σ_y²)⁻¹ r

They differ in the covariance V of the clean image that they assume. With the true one, σ² J, the formula is exact for
Gaussian data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.protocols import expand, match
from sdekit.sdes.diffusion import VP

from .guided import Estimate, Guidance
from .krylov import gmres
from .measurement import Measurement, per_sample

_DDPM = VP(beta_min=0.1, beta_max=20.0)
_DDPM_STEPS = 1000
_PAPER_SIZE = 3 * 256 * 256


def _positive(owner: object, name: str) -> None:
    value: Any = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
        raise ValueError(f"{type(owner).__name__}: {name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class DPS(Guidance):
    """Diffusion posterior sampling: moves down the misfit at a fixed speed. Any operator; one gradient a call.

        ∇_x̃ log p(y | x̃) ≈ −ζ (1000/β(σ)) √(M/M₀) ∇_x̃ ‖y − A(D)‖

    zeta: ζ of the paper, where every one of 1000 steps moves x by −ζ ∇‖y − A(D)‖; the factor 1000/β, β of DDPM's schedule
    at the noise level σ, makes that a score, which any sampler and process may use. The norm is each sample's own.
    √(M/M₀), M₀ = 3 · 256², carries ζ over from the paper's images to observations of M numbers, whose misfit is
    smaller in that proportion. The noise level σ_y is not used.

    Reference: Chung, Kim, Mccann, Klasky, Ye (2023), arXiv 2209.14687, algorithm 1 and appendix D.
    """

    zeta: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "zeta")

    def gradient(self, estimate: Estimate, measurement: Measurement) -> Tensor:
        residual, pull = measurement.residual(estimate.denoised)
        norm = expand(residual.flatten(1).norm(dim=1), residual)
        unit = residual / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        speed = self.zeta * _DDPM_STEPS * math.sqrt(measurement.count / _PAPER_SIZE)
        rate = speed / _DDPM.beta(_DDPM.time(estimate.sigma.log()))
        return match(rate, estimate.score) * estimate.pull(pull(unit))


@dataclass(frozen=True)
class PiGDM(Guidance):
    """Pseudo-inverse guidance: V = r², r² = σ² v/(σ² + v), as if the data were N(0, v). Linear; one gradient a call.

        ∇_x̃ log p(y | x̃) ≈ Jᵀ Aᵀ (r² A Aᵀ + σ_y²)⁻¹ r

    data_std: √v; 1 in the paper.

    Reference: Song, Vahdat, Mardani, Kautz (2023), ICLR, "Pseudoinverse-guided diffusion models for inverse problems", §3.
    """

    data_std: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "data_std")

    def check(self, measurement: Measurement) -> None:
        measurement.require_linear("PiGDM")

    def gradient(self, estimate: Estimate, measurement: Measurement) -> Tensor:
        residual, adjoint = measurement.residual(estimate.denoised)
        weighted = measurement.solve(residual, estimate.assumed_variance(self.data_std), measurement.noise**2)
        return estimate.pull(adjoint(weighted))


@dataclass(frozen=True)
class TMPD(Guidance):
    """Tweedie moment projection: A σ² J Aᵀ replaced by the diagonal matrix of its row sums. Linear; two gradients a call.

    A row sum that is not positive, as anticorrelated pixels can make it, is taken as `floor` times r², r² as in `PiGDM`.
    Rows of an operator whose signs vary have sums that mean little: with a floor of 0.001 the method was seen to run away
    in compressed sensing.

    Reference: Boys, Girolami, Pidstrigach, Reich, Mosca, Akyildiz (2023), arXiv 2310.06721, equation 12.
    """

    floor: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "floor")

    def check(self, measurement: Measurement) -> None:
        measurement.require_linear("TMPD")

    def gradient(self, estimate: Estimate, measurement: Measurement) -> Tensor:
        residual, adjoint = measurement.residual(estimate.denoised)
        operator: Any = measurement.operator
        ones = operator.keep(torch.ones_like(residual))
        rows = per_sample(estimate.sigma.square(), residual) * operator.forward(estimate.pull(adjoint(ones)))
        least = self.floor * per_sample(estimate.assumed_variance(1.0), residual)
        total = torch.maximum(rows, torch.as_tensor(least).to(rows)) + measurement.noise**2
        return estimate.pull(adjoint(residual / total))


@dataclass(frozen=True)
class MMPS(Guidance):
    """Moment matching posterior sampling: V = σ² J, the covariance that the model itself knows. Linear.

        (A σ² J Aᵀ + σ_y²) u = r,     ∇_x̃ log p(y | x̃) ≈ Jᵀ Aᵀ u

    Solved by GMRES, whose products are gradients of the denoiser: as many a call as there are steps, fewer where all
    samples have converged. Exact for Gaussian data. A network's J is neither quite symmetric nor quite positive; GMRES
    does not mind, where conjugate gradients, which need both, were seen to diverge.

    steps: at most so many.  tolerance: by which the residual of the linear system is to shrink.

    Raises ValueError unless steps ≥ 1 and tolerance > 0.

    Reference: Rozet, Andry, Lanusse, Louppe (2024), arXiv 2405.13712, equations 12 to 15.
    """

    steps: int = 5
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"MMPS: steps must be 1 or more, got {self.steps!r}")
        _positive(self, "tolerance")

    def check(self, measurement: Measurement) -> None:
        measurement.require_linear("MMPS")

    def gradient(self, estimate: Estimate, measurement: Measurement) -> Tensor:
        residual, adjoint = measurement.residual(estimate.denoised)
        operator: Any = measurement.operator
        variance = per_sample(estimate.sigma.square(), residual)

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            pulled = estimate.pull(adjoint(p))
            return variance * operator.forward(pulled) + measurement.noise**2 * p, pulled

        return gmres(product, residual, self.steps, self.tolerance)[1]


__all__ = ["DPS", "MMPS", "TMPD", "PiGDM"]
