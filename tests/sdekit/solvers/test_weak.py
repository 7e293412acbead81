"""Weak order 2, without Monte Carlo: one step's expectation is a finite sum, and the truth is the generator's series.

Gauss–Hermite nodes for W and both signs of H give `E φ(X_h)` exactly up to order 5 in h; the truth is
`φ + h L φ + ½ h² L² φ + O(h³)` with the generator `L φ = ∂φ/∂t + ∇φ·f ± ½ G Gᵀ : ∇²φ`, by automatic differentiation.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit.brownian import FreshIncrements
from sdekit.convergence import fit_order, problems, strong_errors, weak_errors
from sdekit.errors import Incompatible
from sdekit.protocols import SDE, Calculus, Dense, Increment, Noise, Span
from sdekit.random import KeyedDraws
from sdekit.sdes.functions import ItoSDE
from sdekit.solve import solve
from sdekit.solvers.runge_kutta import RK4, Heun, Midpoint
from sdekit.solvers.weak import DRI1, Columns, PlatenWeak2
from sdekit.steps import FixedSteps

WEAK = [PlatenWeak2(), DRI1()]
F64 = torch.float64


def nodes(m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normals `(Q, m)`, signs `(Q, m)` and weights `(Q,)` of a product rule."""
    z, w = np.polynomial.hermite_e.hermegauss(5)
    z, w = torch.tensor(z), torch.tensor(w / w.sum())
    index = torch.tensor(list(itertools.product(range(5), repeat=m)))
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=m)), dtype=F64)
    normals, weights = z[index], w[index].prod(1) / len(signs)
    return normals.repeat_interleave(len(signs), 0), signs.repeat(len(index), 1), weights.repeat_interleave(len(signs))


def one_step(solver: Any, sde: SDE, x: Tensor, t0: float, h: float, m: int) -> tuple[Tensor, Tensor]:
    """All outcomes `(Q, d)` of a step from x `(d,)`, and their weights."""
    z, s, weights = nodes(m)
    dw = Increment(z * math.sqrt(abs(h)), s * math.sqrt(abs(h) / 12))
    span = Span(torch.tensor(t0, dtype=F64), torch.tensor(t0 + h, dtype=F64), h)
    return solver.step(sde, span, x.expand(len(z), *x.shape), dw, None).x, weights


def matrix(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    g = sde.diffusion(t, x[None])
    if isinstance(g, Dense):
        return g.matrix[0]
    return g[0][:, None] if sde.noise is Noise.SCALAR else torch.diag(g[0])


def generator(sde: SDE, phi: Callable[[Tensor], Tensor], way: float) -> Callable[[Tensor], Tensor]:
    """L φ as a function of z = (t, x)."""

    def applied(z: Tensor) -> Tensor:
        t, x = z[0], z[1:]
        g = matrix(sde, t, x)
        transport = torch.cat((torch.ones(1, dtype=F64), sde.drift(t, x[None])[0]))
        spread = (torch.func.hessian(phi)(z)[1:, 1:] * (g @ g.T)).sum()
        return (torch.func.grad(phi)(z) * transport).sum() + 0.5 * way * spread

    return applied


def observable(x: Tensor) -> Tensor:
    return torch.sin(x[..., 0]) * x[..., 1] + x[..., 1] ** 3 + torch.exp(0.3 * x[..., 0])


def local_order(solver: Any, sde: SDE, m: int, way: float, t0: float = 0.2) -> float:
    """The power of h with which one step's expectation errs."""
    x0, errors = torch.tensor([0.7, -0.4], dtype=F64), []
    z0 = torch.cat((torch.tensor([t0], dtype=F64), x0))

    def phi(z: Tensor) -> Tensor:
        return observable(z[1:])

    once = generator(sde, phi, way)
    terms = [float(f(z0)) for f in (phi, once, generator(sde, once, way))]
    steps = [0.01, 0.005, 0.0025]
    for size in steps:
        h = way * size
        outcomes, weights = one_step(solver, sde, x0, t0, h, m)
        truth = terms[0] + h * terms[1] + 0.5 * h * h * terms[2]
        errors.append(abs(float((weights * observable(outcomes)).sum()) - truth))
    return math.log(errors[0] / errors[-1]) / math.log(steps[0] / steps[-1])


def drift(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack((torch.sin(x[:, 1]) - x[:, 0] * t, x[:, 0] * x[:, 1] - 0.5 * x[:, 1] ** 2), dim=1)


def three_columns(t: Tensor, x: Tensor) -> Dense:
    a = torch.stack((torch.sin(x[:, 0] + t), torch.cos(x[:, 1]) * x[:, 0]), dim=1)
    b = torch.stack((x[:, 0] * x[:, 1], 1 + 0.5 * torch.sin(x[:, 0])), dim=1)
    c = torch.stack((torch.cos(x[:, 1]), 0.3 * x[:, 0] ** 2), dim=1)
    return Dense(torch.stack((a, b, c), dim=-1))


def crossed(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack((torch.sin(x[:, 1] + t), x[:, 0]), dim=1)


MATRIX = torch.tensor([[[0.5, 0.3], [0.1, 1.0]]], dtype=F64)
EQUATIONS = {
    "three columns": (ItoSDE(drift, three_columns, Noise.GENERAL), 3),
    "element-wise, mixed": (ItoSDE(drift, crossed, Noise.GENERAL), 2),
    "diagonal": (ItoSDE(drift, lambda t, x: torch.sin(x + t) * x + 0.3, Noise.DIAGONAL), 2),
    "scalar": (ItoSDE(drift, crossed, Noise.SCALAR), 1),
    "additive": (ItoSDE(drift, lambda t, x: torch.tensor([[0.5, 0.3]], dtype=F64) * (1 + t), Noise.ADDITIVE), 2),
    "additive matrix": (ItoSDE(drift, lambda t, x: Dense(MATRIX * (1 + t)), Noise.ADDITIVE), 2),
}


@pytest.mark.parametrize("way", [1.0, -1.0])
@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("solver", WEAK, ids=repr)
def test_one_step_errs_as_the_third_power_in_law(solver: Any, name: str, way: float) -> None:
    sde, m = EQUATIONS[name]
    assert local_order(solver, sde, m, way) > 2.9


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_heun_is_of_weak_order_2_for_additive_noise_and_other_rules_are_not(way: float) -> None:
    sde, m = EQUATIONS["additive"]
    assert local_order(Heun(), sde, m, way) > 2.9
    assert local_order(Midpoint(), sde, m, way) < 2.4
    assert local_order(RK4(), sde, m, way) < 2.4
    assert Heun().orders[Noise.ADDITIVE].weak == 2.0
    assert Midpoint().orders[Noise.ADDITIVE].weak == RK4().orders[Noise.ADDITIVE].weak == 1.0


def _second_moments(solver: Any, sde: SDE, h: float, n: int) -> Tensor:
    """E[X Xᵀ] of a linear SDE after n steps from (1, 1), exactly: a step is a random matrix, and E[A ⊗ A] is a sum."""
    columns, weights = zip(*(one_step(solver, sde, e, 0.0, h, 2) for e in torch.eye(2, dtype=F64)), strict=True)
    a = torch.stack(columns, dim=-1)
    double = torch.einsum("q,qij,qkl->ikjl", weights[0], a, a).reshape(4, 4)
    return torch.linalg.matrix_power(double, n) @ torch.ones(4, dtype=F64)


@pytest.mark.parametrize("solver", WEAK, ids=repr)
def test_second_moments_of_the_non_commuting_problem_converge_with_order_2(solver: Any) -> None:
    # W3: E X₁² = e^(−t)
    root2 = math.sqrt(2.0)
    a = torch.tensor([[-273 / 512, 0.0], [-1 / 160, -(785 / 512) + root2 / 8]], dtype=F64)
    g = torch.tensor([[[1 / 4, 0.0], [(1 - 2 * root2) / 4, 0.0]], [[1 / 16, 0.0], [1 / 10, 1 / 16]]], dtype=F64)
    sde = ItoSDE(lambda t, x: x @ a.T, lambda t, x: Dense(torch.einsum("kij,bj->bik", g, x)), Noise.GENERAL)
    eye = torch.eye(2, dtype=F64)
    flow = torch.kron(a, eye) + torch.kron(eye, a) + sum(torch.kron(b, b) for b in g)
    exact = torch.matrix_exp(3.0 * flow) @ torch.ones(4, dtype=F64)
    assert float(exact[0]) == pytest.approx(math.exp(-3.0), rel=1e-12)
    coarse, fine = (_second_moments(solver, sde, 3.0 / n, n) - exact for n in (24, 48))
    assert float(fine.abs().max()) < 3e-3
    orders = torch.log2(coarse.abs() / fine.abs())
    assert float(orders.min()) > 1.85


@pytest.mark.parametrize("solver", WEAK, ids=repr)
def test_a_cubic_of_the_asinh_walk_has_its_exact_mean(solver: Any) -> None:
    # W1: E φ = t³ − 3t² + 2t, which is 0 at t = 2
    walk = next(p for p in problems(Noise.DIAGONAL, Calculus.ITO, weak=True) if p.name.startswith("W1"))
    errors = weak_errors(replace(walk, t1=2.0), solver, (8, 16, 32), 80_000, seed=1)
    fit = fit_order(errors)
    assert fit.order > 1.85
    assert fit.low > 1.5
    assert float(errors.mean[-1]) < 0.015


@pytest.mark.parametrize("solver", WEAK, ids=repr)
@pytest.mark.parametrize("noise", [Noise.DIAGONAL, Noise.COMMUTATIVE, Noise.GENERAL], ids=lambda n: n.name)
def test_paths_are_followed_with_the_strong_order_claimed(solver: Any, noise: Noise) -> None:
    for problem in problems(noise, Calculus.ITO)[:2]:
        errors = strong_errors(problem, solver, (8, 16, 32, 64), batch=200, seed=2)
        assert fit_order(errors).order > solver.orders[noise].strong - 0.15, problem.name


def test_the_variables_of_a_pair_have_the_moments_of_a_double_integral() -> None:
    sde, h = EQUATIONS["three columns"][0], 0.25
    like, x = torch.empty(200_000, 3, dtype=F64), torch.zeros(200_000, 2, dtype=F64)
    span = Span(torch.tensor(0.0, dtype=F64), torch.tensor(h, dtype=F64), h, 0)
    dw = FreshIncrements(KeyedDraws(4)).increment(span, like, PlatenWeak2().levy)
    double = 0.5 * Columns(sde, span, x, dw).products()[:, 0]
    error = 5 / math.sqrt(len(like))
    upper = torch.stack((double[:, 0, 1], double[:, 0, 2], double[:, 1, 2], double[:, 1, 0]), dim=1) / h
    assert float(upper.mean(0).abs().max()) < error
    second = upper.T @ upper / len(upper)
    # ∫∫ dW_r dW_j has variance h²/2 and is uncorrelated with every other, its transpose among them
    assert torch.allclose(second, 0.5 * torch.eye(4, dtype=F64), atol=2 * error)
    assert torch.allclose(double + double.mT, (dw.W[:, :, None] * dw.W[:, None]) * (1 - torch.eye(3, dtype=F64)))


@pytest.mark.parametrize("solver", WEAK, ids=repr)
def test_shapes_dtypes_and_counts(solver: Any) -> None:
    sde = ItoSDE(lambda t, x: -x, lambda t, x: 0.1 * x, Noise.DIAGONAL)
    x0 = torch.linspace(0.5, 1.5, 24)
    flat = solve(sde, x0.reshape(2, 12), 0.0, 1.0, solver=solver, steps=FixedSteps(4), seed=1)
    image = solve(sde, x0.reshape(2, 1, 3, 4), 0.0, 1.0, solver=solver, steps=FixedSteps(4), seed=1)
    assert torch.equal(flat.x.reshape(-1), image.x.reshape(-1))
    assert flat.x.dtype is torch.float32
    drifts = 2 if solver == PlatenWeak2() else 3
    assert (flat.stats.drift_calls, flat.stats.diffusion_calls) == (4 * drifts, 4 * 3)
    general, pairs = EQUATIONS["three columns"][0], x0.reshape(12, 2).double()
    whole = solve(general, pairs, 0.0, 0.5, solver=solver, steps=FixedSteps(2))
    assert whole.stats.diffusion_calls == 2 * (1 + 4 * 3)
    alone = solve(general, pairs[5:6], 0.0, 0.5, solver=solver, steps=FixedSteps(2), first=5)
    assert torch.allclose(whole.x[5:6], alone.x, rtol=1e-14)


def test_too_many_columns_are_refused() -> None:
    sde = ItoSDE(lambda t, x: -x, lambda t, x: x.mean(1, keepdim=True).expand_as(x), Noise.GENERAL)
    with pytest.raises(Incompatible, match=r"declare Noise\.DIAGONAL"):
        solve(sde, torch.ones(1, 2000), 0.0, 1.0, solver=DRI1(), steps=FixedSteps(1))
