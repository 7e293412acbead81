"""The divergence of path laws against closed forms, and a neural SDE fitted with it."""

import math

import pytest
import torch

from sdekit.errors import Incompatible
from sdekit.girsanov import path_kl
from sdekit.gradients import Checkpointed
from sdekit.protocols import Dense, Direction, Noise
from sdekit.save import SaveAt
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.solve import solve
from sdekit.solvers import SRA1, EulerMaruyama, Heun, ItoMilstein
from sdekit.steps import Adaptive, FixedSteps


def _ou(theta, mu, sigma, **more):
    return ItoSDE(lambda t, x: theta * (mu - x), lambda t, x: sigma * torch.ones_like(x), Noise.ADDITIVE, **more)


def _integral_of_squares(a, b, theta, mu, sigma, x0, t):
    """E ∫₀ᵗ (a + b x)² ds for the Ornstein–Uhlenbeck process from x0."""
    s = torch.linspace(0.0, t, 20_001, dtype=torch.float64)
    mean = mu + (x0 - mu) * torch.exp(-theta * s)
    variance = sigma**2 * (1 - torch.exp(-2 * theta * s)) / (2 * theta)
    return float(torch.trapezoid((a + b * mean) ** 2 + b**2 * variance, s))


def _exact(t):
    # posterior 1.5 (1 − x), prior 0.5 (0 − x), σ = 0.6: u = (1.5 − x)/0.6
    return 0.5 * _integral_of_squares(1.5 / 0.6, -1.0 / 0.6, 1.5, 1.0, 0.6, 0.2, t)


@pytest.mark.parametrize("shape", [(1,), (2, 2, 1)])
@pytest.mark.parametrize("steps", [FixedSteps(64), Adaptive(rtol=1e-2, atol=1e-2)])
def test_two_ornstein_uhlenbeck_processes_are_as_far_apart_as_they_should_be(shape, steps):
    count = 3000
    x0 = torch.full((count, *shape), 0.2, dtype=torch.float64)
    solver = Heun() if steps.adaptive else SRA1()
    result = path_kl(_ou(1.5, 1.0, 0.6), _ou(0.5, 0.0, 0.6), x0, 0.0, 2.0, solver=solver, steps=steps, seed=3)
    size = math.prod(shape)
    assert result.x.shape == x0.shape
    assert result.kl.shape == (count,)
    assert abs(float(result.mean) - size * _exact(2.0)) < 4 * float(result.standard_error) + 3e-3 * size
    assert float(result.standard_error) < 0.03 * size


def test_the_divergence_runs_up_over_the_saved_times():
    times = [0.0, 0.37, 1.0, 2.0]
    x0 = torch.full((4000, 1), 0.2, dtype=torch.float64)
    result = path_kl(
        _ou(1.5, 1.0, 0.6),
        _ou(0.5, 0.0, 0.6),
        x0,
        0.0,
        2.0,
        solver=SRA1(),
        steps=FixedSteps(50),
        save=SaveAt(times=times),
    )
    assert result.kl.shape == (4, 4000)
    assert result.x.shape == (4, 4000, 1)
    for mean, error, t in zip(result.mean, result.standard_error, times, strict=True):
        assert abs(float(mean) - _exact(t)) < 4 * float(error) + 2e-3
    assert bool((result.kl.diff(dim=0) >= 0).all())


def test_a_matrix_diffusion_gives_the_divergence_of_the_driving_noise():
    # f − h = G (1, −2)ᵀ with any invertible G: u = (1, −2), KL = ½ · 5 · T
    g = torch.tensor([[0.6, 0.2], [-0.1, 0.9]], dtype=torch.float64)
    gap = g @ torch.tensor([1.0, -2.0], dtype=torch.float64)

    def columns(t, x):
        return Dense(g.expand(len(x), 2, 2))

    prior = ItoSDE(lambda t, x: -x, columns, Noise.ADDITIVE)
    posterior = ItoSDE(lambda t, x: -x + gap, columns, Noise.ADDITIVE)
    x0 = torch.zeros(5, 2, dtype=torch.float64)
    result = path_kl(posterior, prior, x0, 0.0, 1.5, solver=EulerMaruyama(), steps=FixedSteps(10), seed=2)
    torch.testing.assert_close(result.kl, torch.full((5,), 3.75, dtype=torch.float64))
    plain = solve(posterior, x0, 0.0, 1.5, solver=EulerMaruyama(), steps=FixedSteps(10), seed=2)
    torch.testing.assert_close(result.x, plain.x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("wide", [False, True])
def test_a_rectangular_diffusion_uses_the_smallest_noise_that_does_it(wide):
    matrix = [[0.5, 0.5, 0.0]] if wide else [[0.5], [1.0]]
    g = torch.tensor(matrix, dtype=torch.float64)
    gap = torch.tensor([1.0] if wide else [0.5, 1.0], dtype=torch.float64)
    u2 = 2.0 if wide else 1.0  # wide: u = (1, 1, 0); tall: u = 1
    d = g.shape[0]

    def columns(t, x):
        return Dense(g.expand(len(x), *g.shape))

    prior = ItoSDE(lambda t, x: -x, columns, Noise.ADDITIVE)
    posterior = ItoSDE(lambda t, x: -x + gap, columns, Noise.ADDITIVE)
    x0 = torch.zeros(3, d, dtype=torch.float64)
    run = {"solver": EulerMaruyama(), "steps": FixedSteps(4)}
    result = path_kl(posterior, prior, x0, 0.0, 1.0, **run)
    torch.testing.assert_close(result.kl, torch.full((3,), u2 / 2, dtype=torch.float64))
    if not wide:
        off = ItoSDE(lambda t, x: -x + torch.tensor([1.0, 0.0], dtype=x.dtype), columns, Noise.ADDITIVE)
        assert path_kl(off, prior, x0, 0.0, 1.0, **run, on_failure="return").kl.isinf().all()


def test_one_brownian_motion_for_all_components_is_counted_once():
    prior = ItoSDE(lambda t, x: -x, lambda t, x: 0.5 * x, Noise.SCALAR)
    posterior = ItoSDE(lambda t, x: -x + 0.5 * x, lambda t, x: 0.5 * x, Noise.SCALAR)  # u = 1
    x0 = torch.ones(3, 4, dtype=torch.float64)
    result = path_kl(posterior, prior, x0, 0.0, 1.0, solver=ItoMilstein(), steps=FixedSteps(10))
    torch.testing.assert_close(result.kl, torch.full((3,), 0.5, dtype=torch.float64))


def test_state_dependent_noise_in_both_calculi_and_directions():
    for kind, solver in ((ItoSDE, ItoMilstein()), (StratonovichSDE, Heun())):
        for direction in Direction:
            sign = int(direction)

            def g(t, x):
                return 0.2 + 0.1 * torch.cos(x)

            prior = kind(lambda t, x, s=sign: -s * x, g, Noise.DIAGONAL, direction=direction)
            posterior = kind(lambda t, x, s=sign: -s * x + 2 * g(t, x), g, Noise.DIAGONAL, direction=direction)
            t0, t1 = (0.0, 1.0) if direction is Direction.FORWARD else (1.0, 0.0)
            x0 = torch.zeros(3, 2, dtype=torch.float64)
            result = path_kl(posterior, prior, x0, t0, t1, solver=solver, steps=FixedSteps(10))
            torch.testing.assert_close(result.kl, torch.full((3,), 4.0, dtype=torch.float64))  # ½ · 2 · 2²


def test_the_gradient_is_that_of_the_closed_form():
    # KL of drift a against drift 0 at noise σ is a² T/(2σ²): derivative a T/σ²
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    posterior = ItoSDE(lambda t, x: a * torch.ones_like(x), lambda t, x: 0.5 * torch.ones_like(x), Noise.ADDITIVE)
    prior = ItoSDE(lambda t, x: torch.zeros_like(x), lambda t, x: 0.5 * torch.ones_like(x), Noise.ADDITIVE)
    x0 = torch.zeros(3, 1, dtype=torch.float64)
    for gradient in (None, Checkpointed()):
        run = path_kl(posterior, prior, x0, 0.0, 2.0, solver=SRA1(), steps=FixedSteps(9), gradient=gradient)
        (g,) = torch.autograd.grad(run.mean, a)
        assert float(g) == pytest.approx(0.7 * 2.0 / 0.25)


def test_laws_that_cannot_be_compared_are_refused():
    x0, run = torch.zeros(3, 1), {"solver": EulerMaruyama(), "steps": FixedSteps(3)}
    one = _ou(1.0, 0.0, 0.5)
    with pytest.raises(Incompatible, match="different diffusions"):
        path_kl(one, _ou(1.0, 0.0, 0.6), x0, 0.0, 1.0, **run)
    with pytest.raises(Incompatible, match="differ in direction"):
        path_kl(one, _ou(1.0, 0.0, 0.5, direction=Direction.BACKWARD), x0, 0.0, 1.0, **run)
    with pytest.raises(Incompatible, match="differ in calculus"):
        path_kl(one, StratonovichSDE(one.drift, one.diffusion, Noise.ADDITIVE), x0, 0.0, 1.0, **run)
    with pytest.raises(Incompatible, match="an ODE has no density"):
        path_kl(ODE(one.drift), ODE(one.drift), x0, 0.0, 1.0, **run)
    with pytest.raises(TypeError, match="must be SDEs"):
        path_kl(one, one.drift, x0, 0.0, 1.0, **run)
    with pytest.raises(ValueError, match="saved states"):
        path_kl(one, one, x0, 0.0, 1.0, **run, save=SaveAt(times=[0.5], fn=lambda t, x: x))
    with pytest.raises(TypeError, match="x0"):
        path_kl(one, one, 3, 0.0, 1.0, **run)


# --- fitting ------------------------------------------------------------------------------------------


class Drift(torch.nn.Module):
    """A small network for the drift of a one-dimensional SDE."""

    def __init__(self, context=0):
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Linear(2 + context, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)]
        self.net = torch.nn.Sequential(*layers)

    def forward(self, t, x, *context):
        return self.net(torch.cat((x, (t * torch.ones_like(x[:, :1])).to(x), *context), dim=1))


def test_a_neural_drift_fitted_by_its_path_divergence_is_the_true_drift():
    # KL(data law ‖ model) is least at the data's own drift; its paths are drawn from the truth once
    def truth(t, x):
        return x - x**3  # a double well

    def g(t, x):
        return 0.7 * torch.ones_like(x)

    net = Drift()
    optimiser = torch.optim.Adam(net.parameters(), lr=1.5e-2)
    x0 = torch.linspace(-2.0, 2.0, 128)[:, None]
    for step in range(250):
        optimiser.zero_grad()
        run = path_kl(
            ItoSDE(truth, g, Noise.ADDITIVE),
            ItoSDE(net, g, Noise.ADDITIVE),
            x0,
            0.0,
            1.0,
            solver=EulerMaruyama(),
            steps=FixedSteps(16),
            seed=step,
        )
        run.mean.backward()
        optimiser.step()
    assert float(run.mean.detach()) < 0.06
    x = torch.linspace(-1.4, 1.4, 57)[:, None]
    error = (net(torch.tensor(0.5), x) - truth(0.5, x)).detach().square().mean().sqrt()
    assert float(error) < 0.15  # of a drift whose root mean square is 0.44


class Control(torch.nn.Module):
    """A drift that is affine in the state and in all observations of a path, with coefficients for each bin of time.

    The posterior of a linear process under Gaussian observations has this form.
    """

    def __init__(self, bins, seen):
        super().__init__()
        self.seen, self.bins = seen, bins
        self.pull = torch.nn.Parameter(torch.zeros(bins, 1))
        self.towards = torch.nn.Parameter(torch.zeros(bins, seen.shape[1] + 1))

    def forward(self, t, x):
        k = min(int(float(t) * self.bins + 1e-6), self.bins - 1)
        ones = torch.ones_like(x)
        return torch.cat((self.seen, ones), dim=1) @ self.towards[k][:, None] - self.pull[k] * x


@pytest.mark.slow
def test_a_latent_neural_sde_is_fitted_to_noisy_observations_and_finds_the_drift_behind_them():
    """Five looks through noise at each of many Ornstein–Uhlenbeck paths; the prior's drift is a network.

    Free energy: −log p(y | x) + KL(posterior ‖ prior), least where the prior is the law of the data.
    """
    theta, mu, sigma, blur, count = 1.5, 0.8, 0.5, 0.2, 512
    times = torch.linspace(0.2, 1.0, 5, dtype=torch.float64)
    x0 = torch.linspace(-1.0, 2.0, count, dtype=torch.float64)[:, None]
    run = {"save": SaveAt(times=times), "seed": 100, "solver": SRA1(), "steps": FixedSteps(64)}
    true = solve(_ou(theta, mu, sigma), x0, 0.0, 1.0, **run).x[..., 0]
    noise = torch.randn(true.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = (true + blur * noise).T.float()  # (B, 5)

    net, control = Drift(), Control(25, torch.cat((x0.float(), seen), dim=1))

    def g(t, x):
        return sigma * torch.ones_like(x)

    prior = ItoSDE(lambda t, x: net(0.0, x), g, Noise.ADDITIVE)
    posterior = ItoSDE(lambda t, x: net(0.0, x) + control(t, x), g, Noise.ADDITIVE)
    optimiser = torch.optim.Adam(
        [{"params": net.parameters(), "lr": 1e-2}, {"params": control.parameters(), "lr": 5e-2}]
    )
    for step in range(600):
        optimiser.zero_grad()
        run = {"save": SaveAt(times=times), "seed": step, "solver": EulerMaruyama(), "steps": FixedSteps(25)}
        fit = path_kl(posterior, prior, x0.float(), 0.0, 1.0, **run)
        misfit = ((fit.x[..., 0].T - seen) ** 2).sum(1) / (2 * blur**2)
        (misfit.mean() + fit.mean[-1]).backward()
        optimiser.step()
    x = torch.linspace(-0.5, 1.7, 45)[:, None]
    error = net(0.0, x).detach() - theta * (mu - x)
    assert float(error.square().mean().sqrt()) < 0.2  # of a drift whose root mean square is 1.0
    assert 1.5 < float(misfit.mean().detach()) < 4.5  # fitted to the noise, not into it
