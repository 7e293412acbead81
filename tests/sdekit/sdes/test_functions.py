"""SDEs from plain functions keep the contract and refuse what cannot work, saying what to write instead."""

import pytest
import torch

from sdekit.protocols import SDE, Calculus, Direction, Noise
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE


def _drift(t, x):
    return -t * x


def _diffusion(t, x):
    return 0.3 * x


@pytest.mark.parametrize(("kind", "calculus"), [(ItoSDE, Calculus.ITO), (StratonovichSDE, Calculus.STRATONOVICH)])
@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 2, 2)])
def test_an_sde_from_functions_evaluates_them(kind, calculus, shape):
    sde = kind(_drift, _diffusion, Noise.DIAGONAL)
    x = torch.randn(shape)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert isinstance(sde, SDE)
    assert sde.calculus is calculus
    assert sde.direction is Direction.FORWARD
    assert torch.equal(sde.drift(t, x), -0.5 * x)
    assert torch.equal(sde.diffusion(t, x), 0.3 * x)


def test_a_module_may_be_the_drift():
    class Drift(torch.nn.Module):
        def forward(self, t, x):
            return -x

    x = torch.ones(2, 3)
    assert torch.equal(ItoSDE(Drift(), _diffusion, Noise.DIAGONAL).drift(torch.tensor(0.0), x), -x)


def test_an_ode_has_no_noise():
    ode = ODE(_drift)
    assert isinstance(ode, SDE)
    assert ode.noise is Noise.NONE
    assert float(ode.diffusion(0.0, torch.ones(2, 3))) == 0.0


def test_errors_say_what_to_write():
    with pytest.raises(TypeError, match=r"drift must be a function of .* got 0\.5"):
        ItoSDE(0.5, _diffusion, Noise.DIAGONAL)
    with pytest.raises(TypeError, match=r"lambda t, x: 0.3 \* torch.ones_like"):
        StratonovichSDE(_drift, 0.3, Noise.ADDITIVE)
    with pytest.raises(TypeError, match=r"Noise\.ADDITIVE"):
        ItoSDE(_drift, _diffusion, "diagonal")
    with pytest.raises(ValueError, match=r"write ODE\(drift\)"):
        ItoSDE(_drift, _diffusion, Noise.NONE)
    with pytest.raises(TypeError, match=r"Direction\.BACKWARD"):
        ItoSDE(_drift, _diffusion, Noise.DIAGONAL, direction=-1)
    with pytest.raises(TypeError, match="drift must be a function"):
        ODE(None)
