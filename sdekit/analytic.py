"""Data laws whose density, samples and score are known exactly under every linear SDE.

A mixture of Gaussians stays one when a linear SDE carries it along, so its score at every time is a formula. Every
sampler, likelihood and solver can so be tested against closed forms, with no network.

Notation and shapes
    x       state `(B, *shape)`, S = number of entries of a sample
    K       number of components
    t       time; 0-d, or `(B, 1, …, 1)` where every sample has its own
    x(0)    clean data: σ = 0 for the diffusion processes, t = 0 for other linear SDEs

All is computed in float64 and returned in the dtype of x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor

from .arguments import check_state, floating
from .protocols import Denoiser, Score, time_beside
from .random import Draws, Purpose, as_draws
from .sdes.mixture import Components, Posterior, carry, diagonalise, posterior
from .sdes.transition import ElementwiseTransition, Transition


class LinearProcess(Protocol):
    """A process with Gaussian transitions: any diffusion process, `OrnsteinUhlenbeck`, `LinearSDE`."""

    def marginal(self, t: Tensor | float) -> Transition:
        """The law of x(t) given clean data x(0)."""
        ...


_AT_REST = ElementwiseTransition(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


class _MixtureLaw:
    """What `GaussianData` and `GaussianMixture` can do."""

    _components: Components  # flattened, float64
    _shape: torch.Size
    _dtype: torch.dtype

    def log_prob(self, x: Tensor, process: LinearProcess | None = None, t: Tensor | float | None = None) -> Tensor:
        """Log-density `(B,)` of the data, or with a process and t of the state at time t."""
        return self._posterior(x, process, t).log_prob().to(x.dtype)

    def responsibilities(
        self, x: Tensor, process: LinearProcess | None = None, t: Tensor | float | None = None
    ) -> Tensor:
        """The probability `(B, K)` of every component given the state."""
        return self._posterior(x, process, t).weights().mT.to(x.dtype)

    def score(self, process: LinearProcess) -> Score:
        """`(t, x) -> ∇ₓ log p_t(x)`, exact."""

        def score(t: Tensor, x: Tensor) -> Tensor:
            return self._posterior(x, process, t).score().reshape(x.shape).to(x.dtype)

        return score

    def denoiser(self, process: LinearProcess) -> Denoiser:
        """`(t, x) -> E[x(0) | x(t) = x]`, exact; without a detour by the score, which loses digits at small noise."""

        def denoiser(t: Tensor, x: Tensor) -> Tensor:
            return self._posterior(x, process, t).denoised().reshape(x.shape).to(x.dtype)

        return denoiser

    def at(self, process: LinearProcess, t: float | Tensor) -> GaussianMixture:
        """The law of the state at one time t: a mixture again."""
        c = carry(self._components, process.marginal(t), self._shape)
        if c.mean.ndim > 2:
            raise ValueError(f"at(process, t) takes one time, got t of shape {tuple(torch.as_tensor(t).shape)}")
        means = c.mean.reshape(-1, *self._shape)
        if c.basis is not None:
            return GaussianMixture(means, covs=c.covariance(), weights=c.log_weight.exp())
        return GaussianMixture(means, c.variance.sqrt().expand(c.mean.shape).reshape(means.shape), c.log_weight.exp())

    def sample(
        self,
        n: int,
        seed: int | Draws = 0,
        first: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """States `(n, *shape)` drawn from the data law; sample i depends on (seed, first + i) only."""
        where = torch.device("cpu" if device is None else device)
        c, draws = self._components.to(where), as_draws(seed, first)
        z = draws.normal(Purpose.DATA, 0, (n, c.mean.shape[-1]), torch.float64, where, part=1)
        u = draws.uniform(Purpose.DATA, 0, (n,), torch.float64, where)
        chosen = torch.searchsorted(c.log_weight.exp().cumsum(0)[:-1].contiguous(), u, right=True)
        z = z * c.variance.sqrt()[chosen]
        if c.basis is not None:
            z = torch.einsum("bsj,bj->bs", c.basis[chosen], z)
        return (c.mean[chosen] + z).reshape(n, *self._shape).to(self._dtype if dtype is None else dtype)

    @property
    def covariance(self) -> Tensor:
        """The covariance `(S, S)` of flattened samples, float64."""
        c = self._components
        weight = c.log_weight.exp()
        off = c.mean - weight @ c.mean
        return torch.einsum("k,kij->ij", weight, c.covariance()) + torch.einsum("k,ki,kj->ij", weight, off, off)

    def _posterior(self, x: Tensor, process: LinearProcess | None, t: Tensor | float | None) -> Posterior:
        if (process is None) != (t is None):
            given, missing = ("a time t", "a process") if process is None else ("a process", "a time t")
            raise ValueError(f"{given} was given without {missing}: call log_prob(x) or log_prob(x, process, t)")
        points = self._points(x)
        law = _AT_REST
        if process is not None and t is not None:
            law = process.marginal(t if isinstance(t, float) else time_beside(t, x))
        return posterior(self._components.to(x.device), law, points, self._shape)

    def _points(self, x: Tensor) -> Tensor:
        check_state("x", x)
        if x.shape[1:] != self._shape:
            raise ValueError(
                f"x: expected states of shape (B, {', '.join(map(str, self._shape))}), got {tuple(x.shape)}"
            )
        return x.reshape(x.shape[0], -1).to(torch.float64)

    def _set(self, log_weight: Tensor, mean: Tensor, variance: Tensor | None, covariance: Tensor | None) -> None:
        """Fix the components from means `(K, *shape)` and variances `(K, 1 or S)` or covariances `(K, S, S)`."""
        flat = mean.reshape(mean.shape[0], -1).to(torch.float64)
        if covariance is not None:
            components = diagonalise(log_weight, flat, _checked(covariance.to(torch.float64), flat))
        else:
            components = Components(log_weight, flat, torch.as_tensor(variance), None)
        object.__setattr__(self, "_components", components)
        object.__setattr__(self, "_shape", mean.shape[1:])
        object.__setattr__(self, "_dtype", mean.dtype)


@dataclass(frozen=True, eq=False)
class GaussianMixture(_MixtureLaw):
    """The law Σ_k w_k N(μ_k, Σ_k).

    Args:
        means: `(K, *shape)`.
        stds: standard deviations: a float, `(K,)`, or `(K, *shape)` for diagonal covariances. 0 means points.
        weights: `(K,)`, positive, made to sum to 1; equal when None.
        covs: full covariances `(K, S, S)` on flattened states, in place of stds.

    Raises:
        ValueError: shapes that do not fit, negative values, or not exactly one of stds and covs.
    """

    means: Tensor
    stds: float | Tensor | None = None
    weights: Tensor | None = None
    covs: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        means = floating("GaussianMixture: means", self.means)
        if means.ndim < 2:
            raise ValueError(f"GaussianMixture: means must be (K, *shape), got {tuple(means.shape)}")
        if (self.stds is None) == (self.covs is None):
            raise ValueError("GaussianMixture: give exactly one of stds and covs")
        count = means.shape[0]
        weights = torch.ones(count) if self.weights is None else floating("GaussianMixture: weights", self.weights)
        if weights.shape != (count,) or not bool((weights > 0).all()):
            raise ValueError(f"GaussianMixture: weights must be {count} positive numbers, got {weights.tolist()}")
        weights = weights.to(means.device, torch.float64)
        variance = (
            None if self.stds is None else _variances(floating("GaussianMixture: stds", self.stds).double(), means)
        )
        covs = None if self.covs is None else floating("GaussianMixture: covs", self.covs)
        self._set((weights / weights.sum()).log(), means, variance, covs)

    @property
    def mean(self) -> Tensor:
        """The mean of the whole law, of the shape of a sample, float64."""
        c = self._components
        return (c.log_weight.exp() @ c.mean).reshape(self._shape)


@dataclass(frozen=True, eq=False)
class GaussianData(_MixtureLaw):
    """The law N(mean, cov).

    Args:
        mean: of the shape of one sample.
        cov: `(S, S)` on flattened samples, or
        std: standard deviation, a float or a tensor of the shape of one sample.

    Raises:
        ValueError: shapes that do not fit, negative values, or not exactly one of cov and std.
    """

    mean: Tensor
    cov: Tensor | None = None
    std: float | Tensor | None = None

    def __post_init__(self) -> None:
        if (self.cov is None) == (self.std is None):
            raise ValueError("GaussianData: give exactly one of cov and std")
        mean = floating("GaussianData: mean", self.mean).unsqueeze(0)
        if mean.ndim < 2:
            raise ValueError("GaussianData: mean must have the shape of one sample, (D,) or (C, H, W); got a number")
        variance = None
        if self.std is not None:
            std = floating("GaussianData: std", self.std).double()
            variance = _variances(std.unsqueeze(0) if std.ndim else std, mean)
        cov = None if self.cov is None else floating("GaussianData: cov", self.cov).unsqueeze(0)
        self._set(torch.zeros(1, dtype=torch.float64, device=mean.device), mean, variance, cov)


def _variances(std: Tensor, means: Tensor) -> Tensor:
    """Squares of standard deviations given as a number, `(K,)` or `(K, *shape)`: `(K, 1)` or `(K, S)`."""
    if std.ndim > 1 and std.shape == means.shape:
        squares = std.reshape(means.shape[0], -1)
    elif std.ndim <= 1 and std.numel() in (1, means.shape[0]):
        squares = std.reshape(-1, 1).expand(means.shape[0], 1)
    else:
        raise ValueError(
            f"standard deviations (std, stds) must be one number, one for each of {means.shape[0]} components, or of the shape "
            f"{tuple(means.shape)} of the means; got shape {tuple(std.shape)}"
        )
    if not bool(((squares >= 0) & torch.isfinite(squares)).all()):
        raise ValueError(f"standard deviations (std, stds) must not be negative or infinite, got {std.tolist()}")
    return squares.square().to(means.device)


def _checked(covariance: Tensor, mean: Tensor) -> Tensor:
    count, size = mean.shape
    if covariance.shape != (count, size, size):
        expected = (size, size) if count == 1 else (count, size, size)
        raise ValueError(
            f"covariances (cov, covs) must be {expected} on flattened samples, got shape {tuple(covariance.shape)}"
        )
    if not bool(torch.isfinite(covariance).all()):
        raise ValueError(f"covariances (cov, covs) must be finite, got {covariance.tolist()}")
    scale = covariance.abs().amax((1, 2), keepdim=True)
    lowest = cast(Tensor, torch.linalg.eigvalsh(covariance)).amin(-1)
    if not bool(((covariance - covariance.mT).abs() <= 1e-6 * scale).all()) or not bool(
        (lowest >= -1e-6 * scale[:, 0, 0]).all()
    ):
        raise ValueError(
            f"covariances (cov, covs) must be symmetric with no negative eigenvalue, got {covariance.tolist()}"
        )
    return 0.5 * (covariance + covariance.mT).to(mean.device)
