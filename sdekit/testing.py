"""Random problems with known answers, for tests of solvers: Hypothesis strategies.

Every strategy draws objects of which the law is known in closed form, so that a test can check numbers. To test a
solver of your own against all linear SDEs:

    from hypothesis import given
    from sdekit.testing import linear_sdes, moment_gap, states

    @given(sde=linear_sdes(size=3), x0=states(1, (3,)))
    def test_my_solver_has_the_moments_of_the_process(sde, x0):
        x0 = x0.expand(4000, 3)
        x = solve(sde, x0, 0.0, 1.0, solver=MySolver(), steps=FixedSteps(128)).x
        law = sde.transition(0.0, 1.0)
        assert moment_gap(x, law.mean(x0[:1]), law.covariance, slack=0.02) < 5

and a solver of ours against an SDE of yours: `@given(solver=solvers_for(MySDE()))`. For runs that repeat, load a
profile with `derandomize=True`.

Hypothesis is not installed with sdekit: `pip install hypothesis`.

Notation: states are `(B, *shape)`, float64 unless said otherwise. What is drawn shrinks towards small, plain examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from .analytic import GaussianMixture
from .protocols import SDE, Calculus, Levy, Noise, Solver, as_time, error_order
from .random import KeyedDraws, Purpose
from .sdes.linear import LinearSDE
from .sdes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from .solvers import ALL
from .steps import TimeGrid

SHAPES: tuple[tuple[int, ...], ...] = ((1,), (3,), (2, 2, 2))


def _between(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of few digits, so that a failing example can be read."""
    return st.integers(0, 64).map(lambda k: low + (high - low) * k / 64)


def _normals(shape: Sequence[int]) -> st.SearchStrategy[Tensor]:
    """Tensors of standard normals, drawn by their seed."""

    def draw(seed: int) -> Tensor:
        return KeyedDraws(seed).normal(Purpose.DATA, 0, (1, *shape), torch.float64, torch.device("cpu"))[0]

    return st.integers(0, 2**16).map(draw)


def states(
    batch: int = 8,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
    scale: float = 1.0,
) -> st.SearchStrategy[Tensor]:
    """States `(batch, *shape)` of independent normals times `scale`; without a shape, one of several ranks."""
    shapes = st.sampled_from(SHAPES) if shape is None else st.just(tuple(shape))
    return shapes.flatmap(lambda s: _normals((batch, *s))).map(lambda x: (x * scale).to(dtype))


def ou_processes() -> st.SearchStrategy[OrnsteinUhlenbeck]:
    """Element-wise Ornstein–Uhlenbeck processes, θ in [0.1, 3], |μ| ≤ 2, σ in [0.1, 2]; for states of any shape."""
    return st.builds(OrnsteinUhlenbeck, theta=_between(0.1, 3.0), mu=_between(-2.0, 2.0), sigma=_between(0.1, 2.0))


@st.composite
def matrix_ou_processes(draw: Any, size: int | None = None) -> OrnsteinUhlenbeck:
    """Stable Ornstein–Uhlenbeck processes with matrices, for states `(B, D)`; D is `size`, or 1 to 4.

    θ = P + R with P positive definite (eigenvalues at least 0.2) and R antisymmetric, so that the law turns as well as
    shrinks; σ is `(D, m)`, m from 1 to D + 1: noise may be missing in some directions.
    """
    d = draw(st.integers(1, 4)) if size is None else size
    a, b = draw(_normals((d, d))), draw(_normals((d, d)))
    theta = a @ a.mT / d + 0.2 * torch.eye(d, dtype=torch.float64) + 0.5 * (b - b.mT)
    sigma = 0.6 * draw(st.integers(1, d + 1).flatmap(lambda m: _normals((d, m))))
    return OrnsteinUhlenbeck(theta=theta, mu=draw(_normals((d,))), sigma=sigma)


@st.composite
def linear_sdes(draw: Any, size: int | None = None) -> LinearSDE:
    """Linear SDEs with matrices for states `(B, D)`, stable or mildly unstable, constant or varying in time.

    dx = (A(t) x + b(t)) dt + L(t) dW; where they vary, it is as 1 + ½ sin(ω t + φ), with ω at most 4.
    """
    d = draw(st.integers(1, 4)) if size is None else size
    a = draw(_normals((d, d))) / math.sqrt(d) - 0.5 * torch.eye(d, dtype=torch.float64)
    b, noise = draw(_normals((d,))), 0.6 * draw(st.integers(1, d + 1).flatmap(lambda m: _normals((d, m))))
    if not draw(st.booleans()):
        return LinearSDE(a, b, noise)
    omega, phase = draw(_between(0.5, 4.0)), draw(_between(0.0, 3.0))

    def varying(value: Tensor) -> Callable[[float | Tensor], Tensor]:
        def at(t: float | Tensor) -> Tensor:
            return value * (1.0 + 0.5 * torch.sin(omega * as_time(t) + phase))

        return at

    return LinearSDE(varying(a), varying(b), varying(noise))


@st.composite
def mixtures(draw: Any, shape: Sequence[int] = (2,), most: int = 4) -> GaussianMixture:
    """Gaussian mixtures of 1 to `most` components: means within about ±3, deviations in [0.2, 1], any weights."""
    count = draw(st.integers(1, most))
    means = 1.5 * draw(_normals((count, *shape)))
    stds = torch.tensor([draw(_between(0.2, 1.0)) for _ in range(count)], dtype=torch.float64)
    weights = torch.tensor([draw(_between(0.1, 1.0)) for _ in range(count)], dtype=torch.float64)
    return GaussianMixture(means=means, stds=stds, weights=weights)


def time_grids(t0: float = 0.0, t1: float = 1.0, most: int = 32) -> st.SearchStrategy[TimeGrid]:
    """Uneven grids from t0 to t1, either way, of 1 to `most` steps; no step is 40 times another."""

    def grid(weights: list[float]) -> TimeGrid:
        ends = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        inner = t0 + (t1 - t0) * ends[:-1] / ends[-1]
        return TimeGrid([t0, *(float(t) for t in inner), t1])

    return st.lists(_between(0.05, 1.0), min_size=1, max_size=most).map(grid)


def fits(solver: Solver, noise: Noise, calculus: Calculus) -> bool:
    """Whether a solver takes SDEs of this noise and calculus."""
    alike = noise in (Noise.NONE, Noise.ADDITIVE) or solver.calculus is None
    return noise in solver.orders and (alike or solver.calculus is calculus)


def solvers_for(sde: SDE, adaptive: bool | None = None) -> st.SearchStrategy[Solver]:
    """Solvers of the library, with their default settings, that take this SDE.

    adaptive: True for those that give an error estimate, False for those that give none, None for both. Solvers that
    need the Lévy area are offered for COMMUTATIVE and GENERAL noise only; elsewhere there is none to speak of.

    Raises ValueError where there is none.
    """
    found = [kind() for kind in ALL if fits(kind(), sde.noise, sde.calculus)]
    if sde.noise not in (Noise.COMMUTATIVE, Noise.GENERAL):
        found = [solver for solver in found if solver.levy is not Levy.AREA]
    if adaptive is not None:
        found = [solver for solver in found if (error_order(solver, sde.noise) is not None) is adaptive]
    if not found:
        raise ValueError(f"no listed solver fits {sde.noise.name} noise read as {sde.calculus.value}")
    return st.sampled_from(found)


def moment_gap(x: Tensor, mean: Tensor | float, covariance: Tensor | float, slack: float = 0.0) -> float:
    """How far the mean and the (co)variance of samples are from what they should be, in standard errors: the largest.

    x: samples `(B, *shape)`, independent.  mean: broadcasts to one sample.  covariance: `(D, D)` of the flattened
    sample, or variances that broadcast to one sample.  slack: a deviation allowed before standard errors count, as a
    fraction of the standard deviation and of the variance: for the bias of a solver.

    For Gaussian samples a value above 5 has a probability of about 10⁻⁶ for each of the numbers compared.
    """
    count, flat = len(x), x.detach().flatten(1).to(torch.float64)
    size = flat.shape[1]
    centre = torch.as_tensor(mean, dtype=torch.float64).expand(1, *x.shape[1:]).reshape(size)
    c = torch.as_tensor(covariance, dtype=torch.float64)
    if c.shape[-2:] == (size, size) and c.numel() == size * size:
        c = c.reshape(size, size)
    else:
        c = torch.diag(c.expand(1, *x.shape[1:]).reshape(size))
    spread = c.diagonal()
    off = flat - centre
    # Var of the product of two centred Gaussians: C_ii C_jj + C_ij²
    error = ((spread[:, None] * spread[None, :] + c**2) / count).sqrt()
    scale = (spread[:, None] * spread[None, :]).sqrt()
    floor = 1e-12 + 1e-9 * float(scale.max())
    means = (off.mean(0).abs() - slack * spread.sqrt()) / (spread / count).sqrt().clamp(min=floor)
    squares = ((off.T @ off / count - c).abs() - slack * scale) / error.clamp(min=floor)
    return max(0.0, float(means.max()), float(squares.max()))
