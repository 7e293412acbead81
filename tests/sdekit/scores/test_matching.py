"""Losses of score matching: their values, their minima, and a score learned with them where no kernel is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import sdekit as sk

PROCESS, T = sk.VP(), torch.tensor(0.3, dtype=torch.float64)
LAW = sk.GaussianMixture(torch.tensor([[-1.0, 0.4], [0.8, -0.3]], dtype=torch.float64), 0.5)


def loss_of(x: Tensor, factor: float, name: str) -> Tensor:
    """Losses of `factor` times the exact score."""
    score = lambda t, y: factor * LAW.score(PROCESS)(t, y)  # noqa: E731
    if name == "implicit":
        return sk.implicit_score_matching(score, T, x)
    return sk.sliced_score_matching(score, T, x, projections=2, reduced=name == "sliced", kind="gaussian")


@pytest.mark.parametrize("name", ["implicit", "sliced", "sliced, plain"])
def test_losses_differ_from_fisher_s_divergence_by_a_constant(name: str) -> None:
    """L(a s) − L(s) = ½ (a − 1)² E‖s‖², so that the least is at the score itself."""
    x = LAW.at(PROCESS, T).sample(40_000, seed=1)
    energy = LAW.score(PROCESS)(T, x).square().sum(1)
    base = loss_of(x, 1.0, name).detach()
    for factor in (0.5, 1.5):
        gap = loss_of(x, factor, name).detach() - base - 0.5 * (factor - 1.0) ** 2 * energy
        assert abs(float(gap.mean())) < 4.0 * float(gap.std()) / math.sqrt(len(x))


def test_implicit_loss_is_its_formula_by_hand() -> None:
    # s = −A x: tr ∂s/∂x = −tr A
    a = torch.tensor([[1.0, 0.3], [0.2, 2.0]], dtype=torch.float64)
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sk.implicit_score_matching(lambda t, y: -y @ a.T, T, x)
    assert torch.allclose(found, -a.trace() + 0.5 * (x @ a.T).square().sum(1))


def test_slices_have_the_implicit_loss_as_their_mean_on_images_too() -> None:
    weight = torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 3
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).expand(
        20_000, -1, -1, -1
    )
    score = lambda t, y: torch.tanh(y.flatten(1) @ weight).reshape(y.shape)  # noqa: E731
    with torch.no_grad():
        exact = sk.implicit_score_matching(score, T, x[:1])
        for reduced in (True, False):
            many = sk.sliced_score_matching(score, T, x, reduced=reduced, seed=3)
            assert abs(float(many.mean() - exact)) < 4.0 * float(many.std()) / math.sqrt(len(x))


def test_a_slice_belongs_to_its_sample_and_to_its_seed() -> None:
    x = LAW.sample(8, seed=1)
    score = LAW.score(PROCESS)
    whole = sk.sliced_score_matching(score, T, x, seed=3).detach()
    assert torch.allclose(sk.sliced_score_matching(score, T, x[5:6], seed=3, first=5).detach(), whole[5:6])
    assert not torch.allclose(sk.sliced_score_matching(score, T, x, seed=4).detach(), whole)


@pytest.mark.parametrize("process", [sk.VE(), sk.VP(), sk.SubVP()], ids=lambda p: type(p).__name__)
def test_denoising_differs_from_the_weighted_divergence_by_a_constant(process) -> None:
    n, t = 40_000, torch.tensor(0.4, dtype=torch.float64)
    data = LAW.sample(n, seed=1)
    noise = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x, exact = process.scale(t) * data + process.std(t) * noise, LAW.score(process)
    base = sk.denoising_score_matching(process, exact, t, data, noise)
    wrong = lambda t, y: 1.4 * exact(t, y) + 0.1 / process.std(t)  # noqa: E731
    weighted = 0.5 * process.std(t) ** 2 * (wrong(t, x) - exact(t, x)).square().sum(1)
    gap = sk.denoising_score_matching(process, wrong, t, data, noise) - base - weighted
    assert abs(float(gap.mean())) < 4.0 * float(gap.std()) / math.sqrt(n)
    # the same by regression on the kernel's own score
    target = -noise / process.std(t)
    same = sk.score_regression(wrong, t, x, target, process.std(t))
    assert torch.allclose(same, sk.denoising_score_matching(process, wrong, t, data, noise))


def test_losses_have_gradients_and_bad_arguments_are_named() -> None:
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    x, score = LAW.sample(4, seed=1), lambda t, y: -weight * y
    for loss in (
        sk.implicit_score_matching(score, T, x),
        sk.sliced_score_matching(score, T, x),
        sk.denoising_score_matching(PROCESS, score, T, x, torch.ones_like(x)),
    ):
        assert loss.shape == (4,)
        (slope,) = torch.autograd.grad(loss.mean(), weight)
        assert (slope != 0).all()
    with pytest.raises(ValueError, match="no gradient"):
        sk.implicit_score_matching(lambda t, y: y.detach(), T, x)
    with pytest.raises(ValueError, match="kind"):
        sk.sliced_score_matching(score, T, x, kind="sobol")
    with pytest.raises(TypeError, match="affine process"):
        sk.denoising_score_matching(sk.CIR(), score, T, x, x)
    with pytest.raises(ValueError, match=r"noise: expected the shape of data, \(4, 2\), got shape \(1, 2\)"):
        sk.denoising_score_matching(PROCESS, score, T, x, x[:1])


# --- a double well, learned ---------------------------------------------------------------------------------------------

WELL = sk.DoubleWell(height=1.0, width=1.0, temperature=0.5)
HORIZON = 3.0
GRID = torch.linspace(-2.5, 2.5, 801, dtype=torch.float64)


def data(n: int, seed: int) -> Tensor:
    """Where the particles start: off centre, each coordinate a law of its own."""
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return torch.tensor([0.9, -0.3]) + torch.tensor([0.3, 0.5]) * z


def marginals(times: Tensor) -> Tensor:
    """The density of each coordinate on GRID at these times, `(T, 2, N)`, by the Fokker–Planck equation in one variable.

    Rates between neighbours that keep exp(−U/T) exactly, so that the matrix exponential is a Markov chain's.
    """
    h = float(GRID[1] - GRID[0])
    energy = (GRID.square() - 1.0).square() / WELL.temperature
    up = WELL.temperature / h**2 * torch.exp(-0.5 * (energy[1:] - energy[:-1]).clamp(-600, 600))
    down = WELL.temperature / h**2 * torch.exp(0.5 * (energy[1:] - energy[:-1]).clamp(-600, 600))
    half = torch.sqrt(up * down)  # symmetrised: D^½ A D^−½
    rates = torch.zeros(len(GRID), dtype=torch.float64)
    rates[:-1] -= up
    rates[1:] -= down
    symmetric = torch.diag(rates) + torch.diag(half, 1) + torch.diag(half, -1)
    values, vectors = torch.linalg.eigh(symmetric)
    weight = torch.exp(-0.5 * energy)
    start = torch.stack(
        [torch.exp(-0.5 * ((GRID - m) / s) ** 2) / (s * (2 * math.pi) ** 0.5) for m, s in ((0.9, 0.3), (-0.3, 0.5))]
    )
    coefficients = (start / weight) @ vectors
    return torch.stack([(coefficients * torch.exp(values * t)) @ vectors.T * weight for t in times])


class Network(nn.Module):
    """A small score network on the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(7, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = (t.to(x.dtype) if t.ndim else t.to(x.dtype).expand(len(x), 1)).expand(len(x), 1)
        # cubes, since the drift grows like them: what is not seen in training must still lead back
        features = torch.cat((x, 0.2 * x**3, time / HORIZON, torch.exp(-time), torch.exp(-4.0 * time)), dim=1)
        return self.layers(features)


@pytest.mark.slow
def test_a_diffusion_that_is_not_affine_is_learned_by_slices_and_reversed() -> None:
    torch.manual_seed(0)
    times = torch.linspace(0.0, HORIZON, 61, dtype=torch.float64)
    n, batch, rounds = 20_000, 512, 4000
    paths = sk.solve(
        WELL, data(n, 1), 0.0, HORIZON, solver=sk.SRA1(), steps=sk.FixedSteps(300), save=sk.SaveAt(times=times.tolist())
    ).x
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, rounds)
    generator = torch.Generator().manual_seed(2)
    for step in range(rounds):
        when = torch.randint(0, len(times), (batch,), generator=generator)
        who = torch.randint(0, n, (batch,), generator=generator)
        t, x = times[when].float().reshape(-1, 1), paths[when, who]
        loss = sk.sliced_score_matching(network, t, x, projections=1, seed=step).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.requires_grad_(False)

    # the marginals of every coordinate are known, from the Fokker–Planck equation in one variable
    check = torch.tensor([0.2, 0.5, 1.0, HORIZON], dtype=torch.float64)
    density = marginals(check)
    mass = density.sum(2) * (GRID[1] - GRID[0])
    assert torch.allclose(mass, torch.ones_like(mass), atol=1e-4)
    slope = torch.gradient(density.clamp_min(1e-300).log(), spacing=(GRID,), dim=2)[0]
    for t, slopes in zip(check, slope, strict=True):
        x = paths[int((times - t).abs().argmin())]
        exact = torch.stack([_at(slopes[i], x[:, i]) for i in range(2)], dim=1)
        error = (network(t, x) - exact).square().sum(1).mean() / exact.square().sum(1).mean()
        assert float(error) < 0.03, (float(t), float(error))

    # at last the law is close to exp(−U/T), whose score is the drift over T
    late = paths[-1]
    near = (network(check[-1], late) - WELL.drift(check[-1], late) / WELL.temperature).square().sum(1).mean()
    assert float(near / (WELL.drift(check[-1], late) / WELL.temperature).square().sum(1).mean()) < 0.05

    # and the reversal takes it back to the data
    back = sk.solve(
        sk.reverse(WELL, network),
        paths[-1],
        HORIZON,
        0.0,
        solver=sk.SRA1(),
        steps=sk.FixedSteps(400),
        seed=9,
    ).x
    assert torch.allclose(back.mean(0), torch.tensor([0.9, -0.3]), atol=0.05)
    assert torch.allclose(back.std(0), torch.tensor([0.3, 0.5]), atol=0.05)


def _at(values: Tensor, x: Tensor) -> Tensor:
    """Linear interpolation on GRID."""
    place = (x.double() - GRID[0]) / (GRID[1] - GRID[0])
    low = place.long().clamp(0, len(GRID) - 2)
    share = place - low
    return (values[low] * (1 - share) + values[low + 1] * share).to(x.dtype)
