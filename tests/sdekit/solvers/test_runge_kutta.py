"""Runge–Kutta methods against the algebra of rooted trees, exact solutions, and the times at which they call f."""

import math
from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from sdekit.convergence import Problem, fit_order, problems, reflected, strong_errors
from sdekit.protocols import Calculus, Noise, Span
from sdekit.save import SaveAt
from sdekit.sdes.functions import ODE
from sdekit.solve import solve
from sdekit.solvers import tableaux
from sdekit.solvers.rosenbrock import RODAS5P
from sdekit.solvers.runge_kutta import (
    RK4,
    Bosh3,
    Dopri5,
    Dopri8,
    Euler,
    Heun,
    Midpoint,
    RungeKutta,
    Tsit5,
    dense_output,
)
from sdekit.solvers.tableaux import Tableau
from sdekit.steps import Adaptive, FixedSteps

METHODS = [Euler(), Heun(), Midpoint(), RK4(), Bosh3(), Dopri5(), Tsit5(), Dopri8()]
DENSE = [m for m in METHODS if m.tableau.dense is not None]

Tree = tuple  # a rooted tree is the sorted tuple of the trees that hang from its root


@lru_cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with `order` vertices: every smaller tree with one more leaf, wherever it fits."""

    def grafted(tree: Tree) -> Iterator[Tree]:
        yield tuple(sorted((*tree, ())))
        for i, branch in enumerate(tree):
            for grown in grafted(branch):
                yield tuple(sorted((*tree[:i], grown, *tree[i + 1 :])))

    return ((),) if order == 1 else tuple(sorted({g for tree in trees(order - 1) for g in grafted(tree)}))


def size(tree: Tree) -> int:
    return 1 + sum(size(branch) for branch in tree)


def density(tree: Tree) -> int:
    """γ(t), the integer that the order condition `Σ b_i Φ_i(t) = 1/γ(t)` asks for."""
    return size(tree) * math.prod(density(branch) for branch in tree)


def stage_weights(tree: Tree, a: Tensor) -> Tensor:
    """Φ(t), one number a stage."""
    out = torch.ones(len(a), dtype=torch.float64)
    for branch in tree:
        out = out * (a @ stage_weights(branch, a))
    return out


def defect(b: Tensor, a: Tensor, order: int, theta: float = 1.0) -> float:
    """The largest violation of the conditions of one order."""
    return max(abs(float(b @ stage_weights(t, a)) - theta**order / density(t)) for t in trees(order))


def matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    out = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return out


def vector(row: tuple[float, ...], count: int | None = None) -> Tensor:
    out = torch.zeros(count or len(row), dtype=torch.float64)
    out[: len(row)] = torch.tensor(row, dtype=torch.float64)
    return out


def test_the_number_of_rooted_trees_is_known() -> None:
    # Hairer, Nørsett, Wanner (1993), table II.2.1
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_weights_satisfy_the_conditions_of_their_order_and_no_more(solver: RungeKutta) -> None:
    tableau = solver.tableau
    a, b = matrix(tableau.a), vector(tableau.b)
    assert all(defect(b, a, k) < 2e-13 for k in range(1, tableau.order + 1))
    assert defect(b, a, tableau.order + 1) > 1e-7
    assert torch.allclose(a.sum(1), vector(tableau.c), atol=1e-14)


@pytest.mark.parametrize("solver", [m for m in METHODS if m.tableau.e is not None], ids=repr)
def test_embedded_weights_satisfy_the_conditions_of_their_order_and_no_more(solver: RungeKutta) -> None:
    tableau = solver.tableau
    assert tableau.e is not None
    assert tableau.embedded_order is not None
    a, b = matrix(tableau.a), vector(tableau.b)
    other = b - vector(tableau.e)
    assert all(defect(other, a, k) < 2e-13 for k in range(1, tableau.embedded_order + 1))
    assert defect(other, a, tableau.embedded_order + 1) > 1e-5
    if tableau.low is not None:
        lower = b - vector(tableau.low)
        assert all(defect(lower, a, k) < 2e-13 for k in range(1, 4))
        assert defect(lower, a, 4) > 1e-4


@pytest.mark.parametrize("solver", DENSE, ids=repr)
def test_dense_output_satisfies_the_conditions_of_its_order_inside_the_step(solver: RungeKutta) -> None:
    # for the right-hand sides k = e₁, …, e_s the dense output is the vector of its weights b(θ)
    tableau, count = solver.tableau, len(solver.tableau.b) + len(solver.tableau.extra_a)
    a = matrix((*tableau.a, *tableau.extra_a))
    nodes = iter(torch.eye(count, dtype=torch.float64)[len(tableau.b) :])
    slopes = list(torch.eye(count, dtype=torch.float64)[: len(tableau.b)])
    span = Span(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64), 1.0)
    x, new = torch.zeros(count, dtype=torch.float64), vector(tableau.b, count)
    weights = dense_output(tableau, ODE(lambda t, x: next(nodes)), span, x, new, slopes)
    for theta in (0.2, 0.5, 0.77):
        b = weights(torch.tensor(theta, dtype=torch.float64))
        assert all(defect(b, a, k, theta) < 1e-12 for k in range(1, tableau.dense_order + 1))
        assert defect(b, a, tableau.dense_order + 1, theta) > 1e-8


def rosenbrock_weights(tree: Tree, alpha: Tensor, beta: Tensor) -> Tensor:
    """Φ(t) of a Rosenbrock method: the Jacobian stands at every vertex with one branch.

    Reference: Hairer, Wanner (1996), theorem IV.7.4.
    """
    if len(tree) == 1:
        return beta @ rosenbrock_weights(tree[0], alpha, beta)
    out = torch.ones(len(alpha), dtype=torch.float64)
    for branch in tree:
        out = out * (alpha @ rosenbrock_weights(branch, alpha, beta))
    return out


def test_rodas5p_satisfies_the_conditions_of_its_orders_and_no_more() -> None:
    tableau = RODAS5P
    # back from the variables u to the stages: Γ⁻¹ = 1/γ − C, α = A Γ, b = m Γ
    gamma = torch.linalg.inv(torch.eye(8, dtype=torch.float64) / tableau.gamma - matrix(tableau.c))
    alpha, m = matrix(tableau.a) @ gamma, vector(tableau.m)
    beta = alpha + gamma

    def worst(weights: Tensor, order: int, theta: float = 1.0) -> float:
        b = weights @ gamma
        found = ((float(b @ rosenbrock_weights(t, alpha, beta)), theta**order / density(t)) for t in trees(order))
        return max(abs(left - right) for left, right in found)

    assert all(worst(m, k) < 1e-13 for k in range(1, 6))
    assert worst(m, 6) > 1e-3
    embedded = vector(tableau.m[:-1], 8)
    assert all(worst(embedded, k) < 1e-13 for k in range(1, 5))
    assert worst(embedded, 5) > 1e-3
    # the weights of time: nodes and ∂f/∂t agree with the stages
    assert torch.allclose(alpha.sum(1), vector(tableau.alpha), atol=1e-14)
    assert torch.allclose(gamma.sum(1), vector(tableau.d), atol=1e-14)
    # stiffly accurate and L-stable: the last two stages are taken at t1, and nothing is left at infinity
    stability = 1 - m @ gamma @ torch.linalg.solve(beta, torch.ones(8, dtype=torch.float64))
    assert abs(float(stability)) < 1e-12
    q = [vector(row) for row in tableau.dense]
    for theta in (0.3, 0.7):
        dense = theta * m + theta * (1 - theta) * (q[0] + theta * (q[1] + theta * q[2]))
        assert all(worst(dense, k, theta) < 1e-12 for k in range(1, 5))
        assert worst(dense, 5, theta) > 1e-4


# --- on equations -----------------------------------------------------------------------------------------------------

STEPS = {1: (32, 64, 128, 256), 2: (16, 32, 64, 128), 3: (16, 32, 64), 4: (8, 16, 32), 5: (32, 64, 96), 8: (2, 3, 4, 6)}
# on the quadrature the error of Tsit5 changes sign near 24 steps, and a fit there says nothing
TIMED = [p for p in problems(Noise.NONE, Calculus.ITO) if not p.autonomous and p.name != "quadrature over t"]
FREE = [p for p in problems(Noise.NONE, Calculus.ITO) if p.autonomous]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("problem", [*TIMED, *FREE], ids=lambda p: p.name)
@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_the_order_on_exact_solutions_is_the_claimed_one(solver: RungeKutta, problem: Problem, backward: bool) -> None:
    problem = reflected(problem) if backward else problem
    errors = strong_errors(problem, solver, STEPS[solver.tableau.order], batch=1)
    assert fit_order(errors).order > solver.orders[Noise.NONE].strong - 0.15


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_f_is_called_at_the_nodes_of_the_tableau_and_nowhere_else(solver: RungeKutta) -> None:
    called: list[float] = []

    def drift(t: Tensor, x: Tensor) -> Tensor:
        called.append(float(t))
        return -x

    steps, tableau = 3, solver.tableau
    solution = solve(ODE(drift), torch.ones(2, 1), 1.0, 4.0, solver=solver, steps=FixedSteps(steps))
    expected = [1.0 + n + c for n in range(steps) for c in (tableau.c[1:] if tableau.first_same_as_last else tableau.c)]
    expected = [1.0, *expected] if tableau.first_same_as_last else expected
    assert called == pytest.approx(expected, abs=1e-14)
    assert solution.stats.drift_calls == len(expected)


@pytest.mark.parametrize("solver", DENSE, ids=repr)
@pytest.mark.parametrize("backward", [False, True])
def test_values_between_steps_have_the_order_of_the_dense_output(solver: RungeKutta, backward: bool) -> None:
    problem = reflected(TIMED[0]) if backward else TIMED[0]
    # many times, since the error depends on where in its step a time lies
    times = [problem.t0 + (k + 0.37) / 40 * (problem.t1 - problem.t0) for k in range(40)]
    order = solver.tableau.dense_order
    errors = strong_errors(problem, solver, (16, 32, 64) if order < 7 else (3, 4, 6, 8), batch=1, save_times=times)
    assert errors.saved is not None
    worst = errors.saved.flatten(1).amax(1).log()
    x = errors.h.log() - errors.h.log().mean()
    # one step's dense output has an error of one order more, which is all that counts
    assert float((x * worst).sum() / x.square().sum()) > min(order + 1, solver.tableau.order) - 0.3


def test_extra_stages_are_spent_only_where_the_dense_output_is_asked() -> None:
    ode, x0 = ODE(lambda t, x: -x), torch.ones(1, 1)

    def calls(save: SaveAt | None) -> int:
        solution = solve(ode, x0, 0.0, 1.0, solver=Dopri8(), steps=FixedSteps(4), save=save)
        return solution.stats.drift_calls

    assert calls(None) == 1 + 4 * 12
    assert calls(SaveAt(times=[0.6, 1.0])) == 1 + 4 * 12 + 3


FIFTH = [(solver, tol) for solver in (Dopri5(), Tsit5(), Dopri8()) for tol in (1e-4, 1e-7, 1e-10)]


@pytest.mark.parametrize(("solver", "tol"), [(Bosh3(), 1e-4), (Bosh3(), 1e-7), *FIFTH])
def test_adaptive_steps_meet_the_tolerance_on_a_problem_whose_scale_changes(solver: RungeKutta, tol: float) -> None:
    # two bodies on an ellipse of eccentricity 0.6, one period: the state returns to its beginning
    def drift(t: Tensor, x: Tensor) -> Tensor:
        q, p = x[:, :2], x[:, 2:]
        return torch.cat((p, -q / q.norm(dim=1, keepdim=True) ** 3), dim=1)

    x0 = torch.tensor([[0.4, 0.0, 0.0, 2.0]], dtype=torch.float64)
    solution = solve(ODE(drift), x0, 0.0, 2 * math.pi, solver=solver, steps=Adaptive(rtol=tol, atol=tol))
    assert float((solution.x - x0).norm()) < 300 * tol


def test_high_order_pays_at_tight_tolerance() -> None:
    def calls(solver: RungeKutta) -> int:
        x0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        turn = ODE(lambda t, x: torch.stack((x[:, 1], -x[:, 0]), dim=1))
        solution = solve(turn, x0, 0.0, 20.0, solver=solver, steps=Adaptive(rtol=1e-11, atol=1e-11))
        exact = torch.tensor([[math.cos(20.0), -math.sin(20.0)]], dtype=torch.float64)
        assert float((solution.x - exact).norm()) < 2e-9
        return solution.stats.drift_calls

    assert calls(Dopri8()) < 0.5 * calls(Dopri5())


def test_a_step_does_not_depend_on_rank_or_batch() -> None:
    x = torch.linspace(-1.0, 2.0, 24, dtype=torch.float64)
    ode = ODE(lambda t, x: torch.sin(3 * x) + t)
    flat = solve(ode, x.reshape(4, 6), 0.0, 1.0, solver=Tsit5(), steps=FixedSteps(5)).x
    image = solve(ode, x.reshape(4, 1, 2, 3), 0.0, 1.0, solver=Tsit5(), steps=FixedSteps(5)).x
    alone = solve(ode, x.reshape(4, 6)[2:3], 0.0, 1.0, solver=Tsit5(), steps=FixedSteps(5)).x
    assert torch.equal(flat.reshape(-1), image.reshape(-1))
    assert torch.equal(flat[2:3], alone)


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_float32_states_stay_float32(solver: RungeKutta) -> None:
    solution = solve(ODE(lambda t, x: -t * x), torch.ones(3, 2), 0.0, 1.0, solver=solver, steps=FixedSteps(64))
    assert solution.x.dtype is torch.float32
    assert torch.allclose(solution.x, torch.full((3, 2), math.exp(-0.5)), atol=1e-2 if solver == Euler() else 1e-4)


def test_methods_are_values() -> None:
    assert [repr(m) for m in (Tsit5(), Dopri8())] == ["Tsit5()", "Dopri8()"]
    assert Tsit5() == Tsit5()
    assert Tsit5() != Dopri5()
    assert len({Heun(), Heun(), Midpoint()}) == 2


def test_a_wrong_coefficient_is_seen_by_the_conditions() -> None:
    t: Tableau = tableaux.TSIT5
    a = matrix(t.a)
    a[4, 2] += 1e-6
    assert max(defect(vector(t.b), a, k) for k in range(1, 6)) > 1e-8
