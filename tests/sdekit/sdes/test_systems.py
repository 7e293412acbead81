"""Small systems: rest points, invariants and contraction rates against automatic differentiation."""

import pytest
import torch

from sdekit.protocols import SDE, Noise
from sdekit.sdes.systems import FitzHughNagumo, Lorenz, LotkaVolterra

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)


def test_the_mean_of_the_lotka_volterra_invariant_grows_at_the_stated_rate():
    sde = LotkaVolterra(1.1, 0.4, 0.3, 0.7, 0.2, 0.3)
    x = (torch.rand(6, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.5).requires_grad_(True)
    (gradient,) = torch.autograd.grad(sde.invariant(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), x)  # V is a sum over variables, so its Hessian is diagonal
    generator = (gradient * sde.drift(ZERO, x) + 0.5 * curvature * sde.diffusion(ZERO, x).square()).sum(1)
    torch.testing.assert_close(generator, torch.full_like(generator, sde.invariant_rate))


def test_systems_rest_where_they_say():
    lotka = LotkaVolterra(1.1, 0.4, 0.3, 0.7)
    rest = torch.tensor([lotka.equilibrium], dtype=F64)
    torch.testing.assert_close(lotka.drift(ZERO, rest), torch.zeros(1, 2, dtype=F64))
    for lorenz, count in ((Lorenz(), 3), (Lorenz(r=0.5), 1)):
        assert lorenz.equilibria.shape == (count, 3)
        moved = lorenz.drift(ZERO, lorenz.equilibria)
        torch.testing.assert_close(moved, torch.zeros(count, 3, dtype=F64), rtol=0, atol=1e-12)
    for neuron, count in ((FitzHughNagumo(), 1), (FitzHughNagumo(a=0.0, b=2.0, current=0.0), 3)):
        assert neuron.equilibria.shape == (count, 2)
        moved = neuron.drift(ZERO, neuron.equilibria)
        torch.testing.assert_close(moved, torch.zeros(count, 2, dtype=F64), rtol=0, atol=1e-12)


def test_lorenz_contracts_volumes_at_a_constant_rate():
    sde = Lorenz()
    for x in torch.randn(3, 1, 3, dtype=F64, generator=torch.Generator().manual_seed(1)):
        jacobian = torch.autograd.functional.jacobian(lambda x: sde.drift(ZERO, x), x)[0, :, 0]
        assert float(jacobian.trace()) == pytest.approx(sde.divergence, rel=1e-12)


@pytest.mark.parametrize(
    ("sde", "size", "noise"),
    [(LotkaVolterra(), 2, Noise.DIAGONAL), (Lorenz(), 3, Noise.ADDITIVE), (FitzHughNagumo(), 2, Noise.ADDITIVE)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_contract_is_kept_and_copies_behind_the_system_are_independent(sde, size, noise, dtype):
    assert isinstance(sde, SDE)
    assert sde.noise is noise
    x = torch.rand(4, size, 2, 3, dtype=dtype, generator=torch.Generator().manual_seed(2)) + 0.5
    drift, diffusion = sde.drift(ZERO, x), sde.diffusion(ZERO, x) * torch.ones_like(x)
    assert drift.shape == diffusion.shape == x.shape
    assert drift.dtype == diffusion.dtype == dtype
    torch.testing.assert_close(drift[..., 1, 2], sde.drift(ZERO, x[..., 1, 2]))
    with pytest.raises(ValueError, match=rf"must be \(B, {size}, …\), got \(4, 5\)"):
        sde.drift(ZERO, torch.ones(4, 5))


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="alpha must be positive, got 0"):
        LotkaVolterra(alpha=0.0)
    with pytest.raises(ValueError, match="g must be not negative"):
        Lorenz(g=-1.0)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        FitzHughNagumo(epsilon=0.0)
