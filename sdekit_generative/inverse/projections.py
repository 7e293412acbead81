"""Methods that correct the denoised image by linear algebra alone, without a derivative. Notation as in `guided`.

    D ← D + Aᵀ φ(A Aᵀ) (y − A D),     ∇_x̃ log p(y | x̃) = (change of D)/σ²

The methods differ in φ.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .gradients import _positive
from .guided import Estimate, Guidance
from .measurement import Measurement, per_sample
from .operator import inverted


class _Denoising(Guidance):
    """A method that changes D."""

    differentiates = False

    def change(self, estimate: Estimate, measurement: Measurement, residual: Tensor) -> Tensor:
        """u of the change Aᵀ u of D."""
        raise NotImplementedError

    def gradient(self, estimate: Estimate, measurement: Measurement) -> Tensor:
        residual, adjoint = measurement.residual(estimate.denoised)
        change = adjoint(self.change(estimate, measurement, residual))
        return change * per_sample(estimate.sigma.pow(-2.0), change)


@dataclass(frozen=True)
class DDNM(_Denoising):
    """Denoising diffusion null-space model: what was measured is put into D, the rest of D stays. Linear, with an SVD.

        φ(s²) = λ/s²,     λ = min(1, σ s/σ_y)

    Without noise λ = 1: D ← A⁺ y + (1 − A⁺A) D. With it, every singular direction is trusted only as far as its noise
    σ_y/s stays below σ (DDNM+). The paper also takes the noise that y brings off the noise of the step; a score cannot,
    so the sampler's own noise is left whole.

    Reference: Wang, Yu, Zhang (2023), arXiv 2212.00490, equations 10 and 17 to 19.
    """

    def check(self, measurement: Measurement) -> None:
        measurement.require_svd("DDNM")

    def change(self, estimate: Estimate, measurement: Measurement, residual: Tensor) -> Tensor:
        def weight(squares: Tensor) -> Tensor:
            if measurement.noise == 0.0:
                return inverted(squares)
            trust = per_sample(estimate.sigma, squares) * squares.sqrt() / measurement.noise
            return (trust.clamp_max(1.0) * inverted(squares)).to(squares)

        return measurement.require_svd("DDNM").apply(weight, residual)


@dataclass(frozen=True)
class DiffPIR(_Denoising):
    """Plug-and-play restoration: D ← argmin ‖y − A x‖²/σ_y² + ‖x − D‖²/(σ²/λ). Linear.

        D ← D + Aᵀ (A Aᵀ + λ σ_y²/σ²)⁻¹ (y − A D)

    weight: λ of the paper. Its ζ, the share of fresh noise, is the churn of the SDE that is solved.

    Reference: Zhu et al. (2023), arXiv 2305.08995, equations 12 and 13.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "weight")

    def check(self, measurement: Measurement) -> None:
        measurement.require_linear("DiffPIR")

    def change(self, estimate: Estimate, measurement: Measurement, residual: Tensor) -> Tensor:
        noise = self.weight * measurement.noise**2 * estimate.sigma.pow(-2.0)
        return measurement.solve(residual, 1.0, noise)


__all__ = ["DDNM", "DiffPIR"]
