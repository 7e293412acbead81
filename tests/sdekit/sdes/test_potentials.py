"""Motion in a potential: the stated density is stationary, by the Fokker–Planck equation."""

import pytest
import torch

from sdekit.protocols import SDE, Noise
from sdekit.sdes.potentials import DoubleWell, OverdampedLangevin, UnderdampedLangevin

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)


def _potential(x):
    """A coupled, anharmonic potential."""
    flat = x.flatten(1)
    return (flat.square().sum(1) / 2) + 0.3 * (flat[:, 0] * flat[:, 1]).sin() + 0.1 * flat.pow(4).sum(1)


def _gradient(value, of):
    return torch.autograd.grad(value.sum(), of, create_graph=True)[0]


def _divergence(field, x):
    flat = field.flatten(1)
    return sum(_gradient(flat[:, i], x).flatten(1)[:, i] for i in range(flat.shape[1]))


def _fokker_planck(sde, log_density, x):
    """(∂p/∂t)/p of a density under additive element-wise noise; zero where it is stationary."""
    x = x.requires_grad_(True)
    score = _gradient(log_density(x), x)
    half = 0.5 * sde.diffusion(ZERO, x).square() * torch.ones_like(x)
    flux = sde.drift(ZERO, x) - half * score
    return -_divergence(flux, x) - (flux * score).flatten(1).sum(1)


@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 1, 2)])
def test_overdamped_langevin_keeps_the_boltzmann_density(shape):
    sde = OverdampedLangevin(_potential, temperature=0.7)
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    residual = _fokker_planck(sde, sde.log_density, x)
    torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 2, 2), (5, 2, 1, 2)])
def test_underdamped_langevin_keeps_the_product_of_boltzmann_and_maxwell(shape):
    sde = UnderdampedLangevin(potential=_potential, gamma=1.3, u=0.6)
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    residual = _fokker_planck(sde, sde.log_density, x)
    torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-12)


def test_the_double_well_keeps_its_normalised_density():
    sde = DoubleWell(height=1.5, width=0.8, temperature=0.4)
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    residual = _fokker_planck(sde, sde.log_prob, x)
    torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-11)
    grid = torch.linspace(-4, 4, 8001, dtype=F64)[:, None]
    weight = sde.log_prob(grid).exp() * 1e-3
    assert float(weight.sum()) == pytest.approx(1.0, rel=1e-10)
    assert float((weight * grid[:, 0].square()).sum()) == pytest.approx(sde.variance(), rel=1e-9)
    pair = torch.tensor([[0.3, -0.5]], dtype=F64)
    torch.testing.assert_close(sde.log_prob(pair), sde.log_prob(pair.T).sum().reshape(1))


def test_the_gradient_may_be_given_or_found():
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    given = OverdampedLangevin(gradient=lambda x: x)
    with torch.no_grad():
        found = OverdampedLangevin(lambda x: x.square().sum(1) / 2).drift(ZERO, x)
    torch.testing.assert_close(found, given.drift(ZERO, x))
    torch.testing.assert_close(found, -x)


def test_the_drift_of_a_found_gradient_can_be_trained_through():
    weight = torch.tensor(2.0, dtype=F64, requires_grad=True)
    sde = OverdampedLangevin(lambda x: weight * x.square().sum(1) / 2)
    sde.drift(ZERO, torch.ones(2, 3, dtype=F64)).sum().backward()
    assert float(weight.grad) == -6.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_contract_is_kept(dtype):
    x = torch.full((3, 2, 4), 0.5, dtype=dtype)
    for sde in (DoubleWell(), OverdampedLangevin(gradient=lambda x: x), UnderdampedLangevin(lambda x: x)):
        assert isinstance(sde, SDE)
        assert sde.noise is Noise.ADDITIVE
        noise = sde.diffusion(ZERO, x) * torch.ones_like(x)
        assert sde.drift(ZERO, x).shape == noise.shape == x.shape
        assert sde.drift(ZERO, x).dtype == noise.dtype == dtype
    moving = UnderdampedLangevin(lambda x: x, gamma=2.0, u=0.5)
    assert moving.drift(ZERO, x)[0, :, 0].tolist() == [0.5, -2.0 * 0.5 - 0.5 * 0.5]
    assert (moving.diffusion(ZERO, x) * torch.ones_like(x))[0, :, 0].tolist() == pytest.approx([0.0, 2**0.5])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"give potential=U or gradient"):
        OverdampedLangevin()
    with pytest.raises(TypeError, match="potential must be a function"):
        OverdampedLangevin(1.0)
    with pytest.raises(ValueError, match="gamma must be positive"):
        UnderdampedLangevin(lambda x: x, gamma=0.0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        OverdampedLangevin(_potential, temperature=-1.0)
    with pytest.raises(ValueError, match="must be positive"):
        DoubleWell(height=0.0)
    with pytest.raises(ValueError, match="without a potential"):
        OverdampedLangevin(gradient=lambda x: x).log_density(torch.ones(1, 1))


def test_the_double_well_is_zero_in_its_wells_and_as_high_as_said_between_them():
    sde = DoubleWell(height=1.5, width=0.8, temperature=0.4)
    x = torch.tensor([[0.8, -0.8], [0.0, 0.0], [0.8, 0.0], [1.6, 0.8]], dtype=F64)
    torch.testing.assert_close(sde.potential(x), torch.tensor([0.0, 3.0, 1.5, 13.5], dtype=F64))
    leaf = x.requires_grad_(True)
    torch.testing.assert_close(sde.drift(ZERO, leaf), -_gradient(sde.potential(leaf), leaf))
