"""torchsde and sdekit solve each other's SDEs on each other's paths, and agree with closed forms both ways."""

import math

import pytest
import torch
import torchsde
from scipy import stats

from sdekit.brownian import BrownianTree
from sdekit.errors import Incompatible
from sdekit.interop import (
    BrownianTree as DiffusionTree,
)
from sdekit.interop import TorchsdePath, brownian_for_torchsde, from_torchsde, to_torchsde
from sdekit.protocols import Calculus, Dense, Direction, Levy, Noise
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.sdes.linear import LinearSDE
from sdekit.solve import solve
from sdekit.solvers import SRA1, SRI, EulerMaruyama, Heun, ItoMilstein, Midpoint
from sdekit.steps import Adaptive, FixedSteps

GBM = ItoSDE(lambda t, x: 0.5 * x, lambda t, x: 0.8 * x, Noise.DIAGONAL)


def _tree(shape, levy=Levy.H, t1=1.0, seed=3):
    return BrownianTree(0.0, t1, shape, seed=seed, levy=levy, dtype=torch.float64)


class TheirGBM(torch.nn.Module):
    sde_type, noise_type = "ito", "diagonal"

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def f(self, t, y):
        return self.rate * y

    def g(self, t, y):
        return 0.8 * y


# --- ours there -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["euler", "milstein", "srk"])
def test_sdeint_solves_our_sde_on_our_tree_to_the_closed_form(method):
    count, dt = 256, 2.0**-8
    tree = _tree((count, 2))
    y0 = torch.ones(count, 2, dtype=torch.float64)
    y = torchsde.sdeint(to_torchsde(GBM), y0, [0.0, 1.0], bm=brownian_for_torchsde(tree), dt=dt, method=method)[
        -1
    ].detach()
    exact = torch.exp((0.5 - 0.32) + 0.8 * tree(0.0, 1.0).W)
    error = float((y - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert error < {"euler": 6e-2, "milstein": 6e-3, "srk": 4e-4}[method]


@pytest.mark.parametrize(("method", "solver"), [("euler", EulerMaruyama()), ("milstein", ItoMilstein())])
def test_both_libraries_take_the_same_steps_on_one_path(method, solver):
    tree = _tree((16, 2))
    y0 = torch.ones(16, 2, dtype=torch.float64)
    theirs = torchsde.sdeint(to_torchsde(GBM), y0, [0.0, 1.0], bm=brownian_for_torchsde(tree), dt=0.125, method=method)
    ours = solve(GBM, y0, 0.0, 1.0, solver=solver, steps=FixedSteps(8), path=tree).x
    torch.testing.assert_close(theirs[-1], ours, rtol=1e-10, atol=0)


def _columns(t, x):
    return Dense(torch.stack((0.3 * x, 0.2 * torch.cos(x)), dim=-1))


@pytest.mark.parametrize(
    ("sde", "noise_type", "noise", "dense"),
    [
        (ItoSDE(lambda t, x: -x, lambda t, x: 0.5 + t * torch.ones_like(x), Noise.ADDITIVE), "diagonal", 3, False),
        (LinearSDE(-torch.eye(3), 0.0, torch.full((3, 2), 0.4)), "additive", 2, True),
        (ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * x, Noise.SCALAR), "scalar", 1, False),
        (ItoSDE(lambda t, x: -x, lambda t, x: Dense(0.3 * x[..., None]), Noise.SCALAR), "scalar", 1, False),
        (ItoSDE(lambda t, x: -x, _columns, Noise.GENERAL), "general", 2, False),
        (ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * x.roll(1, -1), Noise.GENERAL), "general", 3, False),
        (StratonovichSDE(lambda t, x: -x, lambda t, x: 0.3 * torch.cos(x), Noise.DIAGONAL), "diagonal", 3, False),
    ],
)
def test_every_class_of_noise_goes_over(sde, noise_type, noise, dense):
    theirs = to_torchsde(sde, dense=dense)
    assert theirs.noise_type == noise_type
    tree = _tree((8, noise))
    y0 = torch.linspace(0.5, 1.5, 24, dtype=torch.float64).reshape(8, 3)
    like = (8, 1) if noise_type == "scalar" else (8, noise)
    ito = sde.calculus is Calculus.ITO
    y = torchsde.sdeint(
        theirs, y0, [0.0, 1.0], bm=brownian_for_torchsde(_tree(like)), dt=0.125, method="euler" if ito else "midpoint"
    )
    path = tree if sde.noise is not Noise.SCALAR or isinstance(sde.diffusion(0.0, y0), Dense) else _tree((8, 1))
    solver = EulerMaruyama() if ito else Midpoint()
    ours = solve(sde, y0, 0.0, 1.0, solver=solver, steps=FixedSteps(8), path=path).x
    torch.testing.assert_close(y[-1], ours, rtol=1e-9, atol=1e-12)


def test_images_go_over_flattened():
    sde = ItoSDE(lambda t, x: -x.flip(-1), lambda t, x: 0.5 * torch.ones_like(x), Noise.ADDITIVE)
    tree = _tree((3, 2, 4, 4))
    x0 = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = torchsde.sdeint(
        to_torchsde(sde, shape=(2, 4, 4)),
        x0.flatten(1),
        [0.0, 1.0],
        bm=brownian_for_torchsde(tree),
        dt=0.125,
        method="euler",
    )
    ours = solve(sde, x0, 0.0, 1.0, solver=EulerMaruyama(), steps=FixedSteps(8), path=tree).x
    torch.testing.assert_close(theirs[-1].reshape(x0.shape), ours, rtol=1e-9, atol=1e-12)


def test_an_ode_goes_over_as_an_sde_without_noise():
    y = torchsde.sdeint(to_torchsde(ODE(lambda t, x: -t * x)), torch.ones(2, 3), [0.0, 1.0], dt=1e-2, method="srk")
    torch.testing.assert_close(y[-1], torch.full((2, 3), math.exp(-0.5)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("method", ["euler", "srk"])
def test_a_backward_sde_is_solved_in_reversed_time_to_its_closed_form(method):
    # dx = x dt + dW̄ from t = 2 down to 0.5 is an Ornstein–Uhlenbeck process in s = 2 − t
    back = ItoSDE(lambda t, x: x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE, direction=Direction.BACKWARD)
    count = 4000
    tree = BrownianTree(0.5, 2.0, (count, 1), seed=1, dtype=torch.float64)
    y0 = torch.full((count, 1), 3.0, dtype=torch.float64)
    bm = brownian_for_torchsde(tree, start=2.0)
    y = torchsde.sdeint(to_torchsde(back, start=2.0), y0, [0.0, 1.5], bm=bm, dt=0.015625, method=method)[-1]
    solver = EulerMaruyama() if method == "euler" else SRA1()
    ours = solve(back, y0, 2.0, 0.5, solver=solver, steps=FixedSteps(96), path=tree).x
    torch.testing.assert_close(y, ours, rtol=0, atol=1e-9 if method == "euler" else 1e-4)
    variance = (1 - math.exp(-3.0)) / 2
    assert abs(float(y.mean()) - 3 * math.exp(-1.5)) < 4 * math.sqrt(variance / count) + 0.02
    assert abs(float(y.var()) / variance - 1) < 4 * math.sqrt(2 / count) + 0.02
    with pytest.raises(Incompatible, match="pass start="):
        to_torchsde(back)
    with pytest.raises(Incompatible, match="Leave it out"):
        to_torchsde(GBM, start=1.0)


class Rate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, t, x):
        return self.rate * x


@pytest.mark.parametrize("adjoint", [False, True])
def test_gradients_flow_through_both_of_their_solves(adjoint):
    # Stratonovich dx = a x dt + 0.5 x ∘ dW: x = exp(a + 0.5 W), so dx/da = x
    drift = Rate()
    sde = StratonovichSDE(drift, lambda t, x: 0.5 * x, Noise.DIAGONAL)
    theirs = to_torchsde(sde)
    assert [id(p) for p in theirs.parameters()] == [id(drift.rate)]
    tree = _tree((64, 1), levy=Levy.W)
    y0 = torch.ones(64, 1, dtype=torch.float64)
    run = torchsde.sdeint_adjoint if adjoint else torchsde.sdeint
    y = run(theirs, y0, torch.tensor([0.0, 1.0]), bm=brownian_for_torchsde(tree), dt=2.0**-7, method="midpoint")[-1]
    y.mean().backward()
    exact = torch.exp(0.7 + 0.5 * tree(0.0, 1.0).W).mean()
    assert float(drift.rate.grad) == pytest.approx(float(exact), rel=1e-2)


def test_a_prior_gives_them_the_path_kl():
    # f − h = 1 and g = 0.5: ½ ∫ 4 dt = 2 over unit time
    posterior = ItoSDE(lambda t, x: 1.0 - x, lambda t, x: 0.5 * torch.ones_like(x), Noise.ADDITIVE)
    prior = ItoSDE(lambda t, x: -x, lambda t, x: 0.5 * torch.ones_like(x), Noise.ADDITIVE)
    y0 = torch.zeros(4, 1, dtype=torch.float64)
    _, kl = torchsde.sdeint(to_torchsde(posterior, prior=prior), y0, [0.0, 1.0], dt=0.1, method="euler", logqp=True)
    torch.testing.assert_close(kl[0], torch.full((4,), 2.0, dtype=torch.float64))


def test_a_dense_matrix_that_its_class_hides_is_asked_for():
    with pytest.raises(Incompatible, match=r"dense=True"):
        to_torchsde(LinearSDE(-torch.eye(2), 0.0, torch.eye(2))).g(0.0, torch.ones(1, 2))


# --- theirs here ------------------------------------------------------------------------------------


def test_solve_takes_their_sde_to_the_closed_form_and_its_parameters_with_it():
    theirs, count = TheirGBM(), 256
    sde = from_torchsde(theirs)
    assert (sde.noise, sde.calculus) == (Noise.DIAGONAL, Calculus.ITO)
    assert [id(p) for p in sde.parameters()] == [id(theirs.rate)]
    tree = _tree((count, 2))
    x0 = torch.ones(count, 2, dtype=torch.float64)
    x = solve(sde, x0, 0.0, 1.0, solver=SRI(), steps=FixedSteps(256), path=tree).x
    exact = torch.exp((0.5 - 0.32) + 0.8 * tree(0.0, 1.0).W)
    assert float((x.detach() - exact).square().mean().sqrt() / exact.square().mean().sqrt()) < 4e-4
    x.mean().backward()
    assert float(theirs.rate.grad) == pytest.approx(float(exact.mean()), rel=1e-3)


@pytest.mark.parametrize("shape", ["diagonal", "additive", "scalar", "general"])
def test_every_noise_type_comes_over(shape):
    class Their(torchsde.SDEIto):
        def f(self, t, y):
            return -y

        def g(self, t, y):
            if self.noise_type == "diagonal":
                return 0.3 * y
            if self.noise_type == "scalar":
                return 0.3 * y[..., None]
            m = torch.full((*y.shape, 4), 0.2, dtype=y.dtype) * (1 + t)
            return m if self.noise_type == "additive" else m * y[..., None]

    theirs = Their(noise_type=shape)
    m = {"diagonal": 3, "scalar": 1}.get(shape, 4)
    tree = _tree((8, m))
    y0 = torch.ones(8, 3, dtype=torch.float64)
    y = torchsde.sdeint(theirs, y0, [0.0, 1.0], bm=brownian_for_torchsde(tree), dt=0.125, method="euler")[-1]
    x = solve(from_torchsde(theirs), y0, 0.0, 1.0, solver=EulerMaruyama(), steps=FixedSteps(8), path=tree).x
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


def test_f_and_g_together_are_enough_and_adaptive_steps_work():
    class Both:
        sde_type, noise_type = "stratonovich", "additive"

        def f_and_g(self, t, y):
            return -y, torch.ones_like(y)[..., None]

    count = 2000
    x = solve(
        from_torchsde(Both()),
        torch.zeros(count, 1, dtype=torch.float64),
        0.0,
        1.0,
        solver=Heun(),
        steps=Adaptive(rtol=1e-2, atol=5e-2),
    ).x
    assert abs(float(x.var()) / ((1 - math.exp(-2)) / 2) - 1) < 4.5 * math.sqrt(2 / count) + 0.01


def test_what_is_no_torchsde_sde_is_refused():
    class Nothing:
        pass

    class Odd:
        sde_type, noise_type = "ito", "coloured"

    class Product:
        sde_type, noise_type = "ito", "general"

        def f(self, t, y):
            return y

        def g_prod(self, t, y, v):
            return v

    with pytest.raises(TypeError, match="no `noise_type`"):
        from_torchsde(Nothing())
    with pytest.raises(ValueError, match="coloured"):
        from_torchsde(Odd())
    with pytest.raises(TypeError, match="f and g, or f_and_g"):
        from_torchsde(Product())


# --- paths ------------------------------------------------------------------------------------------


def test_our_tree_answers_as_a_torchsde_path_does():
    tree = _tree((5, 3), levy=Levy.AREA)
    bm = brownian_for_torchsde(tree)
    assert (tuple(bm.shape), bm.dtype, bm.levy_area_approximation) == ((5, 3), torch.float64, "foster")
    w, u, a = bm(0.2, 0.7, return_U=True, return_A=True)
    i = tree(0.2, 0.7)
    torch.testing.assert_close(w, i.W)
    torch.testing.assert_close(u, 0.5 * (i.W / 2 + i.H))
    torch.testing.assert_close(a, i.A)
    # U over a split: U = U1 + U2 + h2 W1
    w1, u1 = bm(0.2, 0.4, return_U=True)
    w2, u2 = bm(0.4, 0.7, return_U=True)
    torch.testing.assert_close(w, w1 + w2)
    torch.testing.assert_close(u, u1 + u2 + 0.3 * w1)
    torch.testing.assert_close(bm(0.7), bm(0.0, 0.7))


@pytest.mark.parametrize("solver", [EulerMaruyama(), SRA1()])
@pytest.mark.parametrize("steps", [FixedSteps(16), Adaptive(rtol=1e-2, atol=1e-2)])
def test_our_solve_runs_on_their_interval(solver, steps):
    if solver.error_order is None and steps.adaptive:
        steps = FixedSteps(dt=0.1)
    bm = torchsde.BrownianInterval(
        0.0, 1.0, size=(6, 2), dtype=torch.float64, entropy=7, dt=1 / 16, levy_area_approximation="space-time"
    )
    # x = e^−t ∫ e^s dW has no closed form in W; dx = cos t dW gives sin(1)-weighted sums that W and H bracket well
    sde = ItoSDE(lambda t, x: torch.full_like(x, 2.0), lambda t, x: 0.7 * torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.zeros(6, 2, dtype=torch.float64)
    x = solve(sde, x0, 0.0, 1.0, solver=solver, steps=steps, path=TorchsdePath(bm)).x
    torch.testing.assert_close(x, 2.0 + 0.7 * bm(0.0, 1.0), rtol=1e-10, atol=1e-12)


def test_our_solve_runs_back_along_their_interval():
    bm = torchsde.BrownianInterval(
        0.0, 1.0, size=(6, 2), dtype=torch.float64, entropy=7, dt=1 / 64, levy_area_approximation="space-time"
    )
    sde = StratonovichSDE(lambda t, x: torch.sin(x), lambda t, x: 0.3 * torch.cos(x), Noise.DIAGONAL)
    x0 = torch.ones(6, 2, dtype=torch.float64)
    there = solve(sde, x0, 0.0, 1.0, solver=Heun(), steps=FixedSteps(64), path=TorchsdePath(bm)).x
    back = solve(sde, there, 1.0, 0.0, solver=Heun(), steps=FixedSteps(64), path=TorchsdePath(bm)).x
    assert float((back - x0).abs().max()) < 5e-3


def test_a_path_that_knows_too_little_is_refused():
    bm = torchsde.BrownianInterval(0.0, 1.0, size=(6, 2), dtype=torch.float64)
    sde = ItoSDE(lambda t, x: -x, lambda t, x: torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.ones(6, 2, dtype=torch.float64)
    with pytest.raises(Incompatible, match=r"Levy\.H.*'none'"):
        solve(sde, x0, 0.0, 1.0, solver=SRA1(), steps=FixedSteps(4), path=TorchsdePath(bm))
    with pytest.raises(TypeError, match="torchsde Brownian path"):
        TorchsdePath(3)
    with pytest.raises(TypeError, match="wraps an sdekit BrownianTree"):
        brownian_for_torchsde(bm)


# --- the tree that diffusion code expects -------------------------------------------------------------


def test_a_diffusion_tree_has_the_law_of_brownian_motion_in_any_order():
    tree = DiffusionTree(0.03, torch.zeros(4000, 2), 14.6, entropy=11)
    times = [14.6, 0.03, 1.5, 0.1, 0.100001, 7.0]
    for a, b in [(0.03, 14.6), (1.5, 7.0), (0.1, 0.100001), (0.1, 1.5)]:
        w = tree(a, b)
        assert w.dtype == torch.float32
        assert stats.kstest((w / math.sqrt(b - a)).flatten().numpy(), "norm").pvalue > 1e-3
    again = DiffusionTree(0.03, torch.zeros(4000, 2), 14.6, entropy=11)
    for t in times:
        assert torch.equal(tree(t), again(t))
    torch.testing.assert_close(tree(0.1, 1.5) + tree(1.5, 7.0), tree(0.1, 7.0), rtol=0, atol=1e-5)
    assert float((tree(0.1, 0.1 + 1e-9) / math.sqrt(1e-9)).std()) == pytest.approx(1.0, abs=0.05)


def test_an_image_of_a_diffusion_tree_does_not_depend_on_the_batch():
    whole = DiffusionTree(0.0, torch.zeros(4, 3, 8, 8), 1.0, entropy=5)
    one = DiffusionTree(0.0, torch.zeros(1, 3, 8, 8), 1.0, entropy=5)
    assert torch.equal(whole(0.1, 0.7)[:1], one(0.1, 0.7))


def test_a_diffusion_tree_may_be_held_at_both_ends():
    w0, w1 = torch.full((3000, 1), 1.0), torch.full((3000, 1), 3.0)
    tree = DiffusionTree(0.0, w0, 2.0, w1, entropy=2)
    torch.testing.assert_close(tree(2.0), w1, rtol=0, atol=1e-5)
    torch.testing.assert_close(tree(0.0), w0)
    middle = tree(0.5)
    assert abs(float(middle.mean()) - 1.5) < 4 * math.sqrt(0.375 / 3000)
    assert abs(float(middle.var()) / 0.375 - 1) < 4 * math.sqrt(2 / 3000)


def test_diffusion_trees_take_the_arguments_of_torchsde_and_no_global_seed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    trees = [DiffusionTree(0.0, torch.zeros(2, 3), entropy=None, tol=1e-4, pool_size=24) for _ in range(2)]
    assert not torch.equal(trees[0](0.0, 1.0), trees[1](0.0, 1.0))
    assert torch.equal(torch.get_rng_state(), before)
    shaped = DiffusionTree(0.0, torch.zeros(()), 1.0, entropy=[1, 2])
    assert shaped(0.2, 0.4).shape == ()
    w, u = DiffusionTree(0.0, torch.zeros(5), 1.0, entropy=3)(0.0, 0.5, return_U=True)
    assert w.shape == u.shape == (5,)


def test_sdeint_takes_a_diffusion_tree():
    tree = DiffusionTree(0.0, torch.zeros(64, 1, dtype=torch.float64), 1.0, entropy=4)
    y0 = torch.ones(64, 1, dtype=torch.float64)
    y = torchsde.sdeint(TheirGBM(), y0, [0.0, 1.0], bm=tree, dt=2.0**-7, method="srk")[-1].detach()
    exact = torch.exp((0.5 - 0.32) + 0.8 * tree(0.0, 1.0))
    assert float((y - exact).abs().max() / exact.abs().max()) < 5e-3
