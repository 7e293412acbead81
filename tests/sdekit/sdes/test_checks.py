"""The noise class measured at points, and the error where the declared one is too narrow."""

import pytest
import torch

from sdekit.errors import Incompatible
from sdekit.protocols import Dense, Noise
from sdekit.sdes.checks import check_noise, measured_noise
from sdekit.sdes.classics import CIR, GeometricBrownianMotion
from sdekit.sdes.diffusion import VP
from sdekit.sdes.functions import ODE, ItoSDE
from sdekit.sdes.linear import LinearSDE
from sdekit.sdes.systems import Lorenz, LotkaVolterra

T = torch.tensor(0.3, dtype=torch.float64)


def _points(*shape, dtype=torch.float64):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) + 0.5


def _sde(diffusion, noise=Noise.GENERAL):
    return ItoSDE(lambda t, x: -x, diffusion, noise)


def _linear(*matrices):
    """Columns B_k x."""
    stack = torch.stack([torch.tensor(m, dtype=torch.float64) for m in matrices])
    return lambda t, x: Dense(torch.einsum("kij,bj->bik", stack.to(x.dtype), x))


CASES = {
    "nothing": (lambda t, x: torch.zeros_like(x), Noise.NONE),
    "a function of time": (lambda t, x: t * torch.ones_like(x), Noise.ADDITIVE),
    "a constant matrix": (lambda t, x: Dense(torch.ones(1, 2, 3, dtype=x.dtype)), Noise.ADDITIVE),
    "element-wise": (lambda t, x: x.sin(), Noise.DIAGONAL),
    "a diagonal matrix": (lambda t, x: Dense(torch.diag_embed(x.sin())), Noise.DIAGONAL),
    "one column": (lambda t, x: Dense((x.flip(1) * x).unsqueeze(-1)), Noise.SCALAR),
    "matrices that commute": (_linear([[1.0, 2.0], [2.0, 1.0]], [[0.5, -1.0], [-1.0, 0.5]]), Noise.COMMUTATIVE),
    "matrices that do not": (_linear([[1.0, 2.0], [0.0, 1.0]], [[0.5, 0.0], [1.0, 0.5]]), Noise.GENERAL),
    "element-wise, entangled": (lambda t, x: x.flip(1), Noise.GENERAL),
    "a diagonal matrix, entangled": (lambda t, x: Dense(torch.diag_embed(x.flip(1))), Noise.GENERAL),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_class_is_measured(name, dtype):
    diffusion, expected = CASES[name]
    sde, x = _sde(diffusion), _points(4, 2, dtype=dtype)
    assert measured_noise(sde, T, x) is expected
    check_noise(sde, T, x)


def test_images_are_measured_too():
    x = _points(3, 1, 2, 2)
    assert measured_noise(_sde(lambda t, x: x.square()), T, x) is Noise.DIAGONAL
    assert measured_noise(_sde(lambda t, x: x.square().sum((1, 2, 3), keepdim=True) * x), T, x) is Noise.GENERAL
    each = torch.full((3, 1, 1, 1), 0.3, dtype=torch.float64)
    assert measured_noise(_sde(lambda t, x: t * x.flip(3)), each, x) is Noise.GENERAL


def test_a_scalar_element_wise_diffusion_is_one_column():
    assert measured_noise(_sde(lambda t, x: x.flip(1) * x, Noise.SCALAR), T, _points(4, 3)) is Noise.SCALAR


@pytest.mark.parametrize(
    ("diffusion", "declared", "found"),
    [
        (lambda t, x: x, Noise.ADDITIVE, "DIAGONAL"),
        (lambda t, x: x.flip(1), Noise.DIAGONAL, "GENERAL"),
        (_linear([[1.0, 2.0], [0.0, 1.0]], [[0.5, 0.0], [1.0, 0.5]]), Noise.COMMUTATIVE, "GENERAL"),
        (lambda t, x: Dense(torch.diag_embed(x)), Noise.SCALAR, "DIAGONAL"),
        (lambda t, x: Dense(torch.ones(1, 2, 3, dtype=x.dtype)), Noise.SCALAR, "ADDITIVE"),
    ],
)
def test_a_class_that_is_too_narrow_is_refused(diffusion, declared, found):
    with pytest.raises(Incompatible, match=rf"declares Noise\.{declared.name}.*declare noise=Noise\.{found}"):
        check_noise(_sde(diffusion, declared), T, _points(4, 2))


@pytest.mark.parametrize(
    ("sde", "size"),
    [
        (GeometricBrownianMotion(), 3),
        (CIR(), 3),
        (VP(), 3),
        (LotkaVolterra(), 2),
        (Lorenz(), 3),
        (LinearSDE(-torch.eye(2), 0.0, torch.ones(2, 3)), 2),
        (ODE(lambda t, x: x), 2),
    ],
)
def test_the_library_declares_its_own_classes_exactly(sde, size):
    assert measured_noise(sde, T, _points(4, size)) is sde.noise
    check_noise(sde, T, _points(4, size))
