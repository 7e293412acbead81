"""φ functions against their power series and their integrals."""

import math

import mpmath
import pytest
import torch

from sdekit.phi import phi1, phi2

POINTS = [-700.0, -30.0, -0.51, -0.49, -1e-3, -1e-9, -1e-300, 0.0, 1e-12, 1e-5, 0.3, 0.5, 2.0, 30.0]


@pytest.mark.parametrize("z", POINTS)
def test_values_are_right_to_rounding(z: float) -> None:
    with mpmath.workdps(700):
        x = mpmath.mpf(z)
        first = (mpmath.exp(x) - 1) / x if z else mpmath.mpf(1)
        second = (mpmath.exp(x) - 1 - x) / x**2 if z else mpmath.mpf("0.5")
    assert float(phi1(z)) == pytest.approx(float(first), rel=4e-16)
    assert float(phi2(z)) == pytest.approx(float(second), rel=3e-15)


def test_derivatives_exist_at_zero() -> None:
    z = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(phi1(z).sum(), z)
    assert slope.tolist() == pytest.approx([1 - 2 / math.e, 0.5, 1.0], rel=1e-12)
    (slope,) = torch.autograd.grad(phi2(z).sum(), z)
    assert slope.tolist() == pytest.approx([3 / math.e - 1, 1 / 6, 3 - math.e], rel=1e-12)
