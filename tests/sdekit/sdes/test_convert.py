"""Itô ↔ Stratonovich against corrections worked out by hand, and by automatic differentiation."""

import pytest
import torch

from sdekit.errors import Incompatible
from sdekit.protocols import Calculus, Dense, Direction, Noise
from sdekit.sdes.convert import noise_drift, to_ito, to_stratonovich
from sdekit.sdes.diffusion import VP
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE

F64 = torch.float64
T = torch.tensor(0.3, dtype=F64)


def _wave(t, x):
    return 0.7 * (1 + t) * x.cos().square()


def _zero(t, x):
    return torch.zeros_like(x)


@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_diagonal_noise_is_corrected_by_half_g_times_its_slope(shape, dtype):
    x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    expected = 0.5 * _wave(T, x) * (-2 * 0.7 * 1.3 * x.cos() * x.sin())
    ito = to_ito(StratonovichSDE(_zero, _wave, Noise.DIAGONAL))
    assert ito.calculus is Calculus.ITO
    torch.testing.assert_close(ito.drift(T, x), expected)
    assert ito.drift(T, x).dtype == dtype
    torch.testing.assert_close(to_stratonovich(ItoSDE(_zero, _wave, Noise.DIAGONAL)).drift(T, x), -expected)
    each = torch.full((5, *(1,) * (len(shape) - 1)), 0.3, dtype=dtype)
    torch.testing.assert_close(ito.drift(each, x), expected)


def test_on_a_backward_sde_the_correction_changes_sign():
    x = torch.tensor([[0.4]], dtype=F64)
    forward = to_ito(StratonovichSDE(_zero, _wave, Noise.DIAGONAL))
    backward = to_ito(StratonovichSDE(_zero, _wave, Noise.DIAGONAL, Direction.BACKWARD))
    assert backward.direction is Direction.BACKWARD
    torch.testing.assert_close(backward.drift(T, x), -forward.drift(T, x))


def _matrix(t, x):
    """Columns (sin x₂, x₁ x₂) and (x₁, cos x₁ + t), as in a two-dimensional system with two Brownian motions."""
    a, b = x.unbind(1)
    return Dense(torch.stack((torch.stack((b.sin(), a), -1), torch.stack((a * b, a.cos() + t), -1)), 1))


def test_matrix_noise_is_corrected_column_by_column():
    x = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    a, b = x.unbind(1)
    first = torch.stack((b.cos() * (a * b), b * b.sin() + a * (a * b)), 1)
    second = torch.stack((a, -a.sin() * a), 1)
    sde = StratonovichSDE(_zero, _matrix, Noise.GENERAL)
    torch.testing.assert_close(noise_drift(sde, T, x), first + second)
    torch.testing.assert_close(to_ito(sde).drift(T, x), 0.5 * (first + second))


def test_matrix_noise_on_images_is_corrected_like_on_vectors():
    mix = torch.randn(4, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(2))

    def image(t, x):
        flat = torch.einsum("bi,ijk->bjk", x.flatten(1).sin(), mix)
        return Dense(flat.reshape(*x.shape, 3))

    x = torch.randn(5, 1, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(3))
    sde = StratonovichSDE(_zero, image, Noise.GENERAL)
    columns = image(T, x).matrix.reshape(5, 4, 3)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda y: image(T, y[None]).matrix[0], p) for p in x])
    expected = torch.einsum("bikj,bjk->bi", jacobian.reshape(5, 4, 3, 4), columns)
    torch.testing.assert_close(noise_drift(sde, T, x).flatten(1), expected)


def test_scalar_noise_is_one_column_in_either_form():
    def elementwise(t, x):
        return x.flip(1) * x

    def dense(t, x):
        return Dense(elementwise(t, x).unsqueeze(-1))

    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(4))
    one = noise_drift(StratonovichSDE(_zero, elementwise, Noise.SCALAR), T, x)
    other = noise_drift(StratonovichSDE(_zero, dense, Noise.SCALAR), T, x)
    torch.testing.assert_close(one, other)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda y: elementwise(T, y[None])[0], p) for p in x])
    torch.testing.assert_close(one, torch.einsum("bij,bj->bi", jacobian, elementwise(T, x)))


def test_there_and_back_is_where_one_was():
    x = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(5))
    sde = ItoSDE(lambda t, x: -x, _matrix, Noise.GENERAL)
    torch.testing.assert_close(to_ito(to_stratonovich(sde)).drift(T, x), -x)
    assert to_ito(sde) is sde


def test_additive_noise_and_odes_keep_their_drift():
    x = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(6))
    other = to_stratonovich(VP())
    assert other.calculus is Calculus.STRATONOVICH
    assert torch.equal(other.drift(T, x), VP().drift(T, x))
    ode = ODE(_zero)
    assert to_stratonovich(ode) is ode


def test_an_element_wise_diffusion_of_a_wide_class_is_refused():
    sde = StratonovichSDE(_zero, lambda t, x: x.flip(1), Noise.GENERAL)
    with pytest.raises(Incompatible, match=r"Dense\(matrix\) with one column"):
        to_ito(sde).drift(T, torch.ones(2, 2))
