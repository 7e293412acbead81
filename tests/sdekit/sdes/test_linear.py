"""Linear SDEs: exact transitions against closed forms, quadrature and the equations of the moments."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm, solve_continuous_lyapunov

from sdekit.protocols import SDE, Dense, Noise, apply
from sdekit.sdes.diffusion import VP
from sdekit.sdes.linear import LinearSDE
from sdekit.sdes.moments import compose, constant_moments
from sdekit.sdes.ornstein_uhlenbeck import OrnsteinUhlenbeck

F64 = torch.float64
A = torch.tensor([[-1.0, 0.6, 0.0], [-0.4, -0.5, 0.3], [0.2, 0.0, -2.0]], dtype=F64)
B = torch.tensor([0.3, -0.2, 1.0], dtype=F64)
L = torch.tensor([[0.5, 0.0], [0.1, 0.7], [-0.3, 0.2]], dtype=F64)


def _by_quadrature(a, b, noise, h, nodes=60):
    """M, C, m by Gauss–Legendre quadrature of their integrals."""
    points, weights = (torch.tensor(v, dtype=F64) for v in np.polynomial.legendre.leggauss(nodes))
    points, weights = 0.5 * h * (points + 1), 0.5 * h * weights
    e = [torch.tensor(expm(a.numpy() * float(s)), dtype=F64) for s in points]
    covariance = sum(w * m @ noise @ noise.T @ m.T for w, m in zip(weights, e, strict=True))
    offset = sum(w * m @ b for w, m in zip(weights, e, strict=True))
    return torch.tensor(expm(a.numpy() * h), dtype=F64), covariance, offset


@pytest.mark.parametrize("h", [0.01, 0.7, 5.0])
def test_matrix_transitions_equal_the_integrals_that_define_them(h):
    law = LinearSDE(A, B, L).transition(0.2, 0.2 + h)
    multiplier, covariance, offset = _by_quadrature(A, B, L, h)
    torch.testing.assert_close(law.multiplier, multiplier, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(law.covariance, covariance, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(law.offset, offset, rtol=1e-11, atol=1e-14)


def test_long_spans_of_stiff_systems_reach_the_stationary_law():
    stiff = torch.diag(torch.tensor([-300.0, -1.0], dtype=F64)) + 0.1
    ou = OrnsteinUhlenbeck(-stiff, torch.tensor([1.0, 2.0], dtype=F64), 0.4)
    expected = torch.tensor(solve_continuous_lyapunov(stiff.numpy(), -0.16 * torch.eye(2, dtype=F64).numpy()))
    torch.testing.assert_close(ou.transition(0.0, 60.0).covariance, expected, rtol=1e-11, atol=0)
    law = ou.stationary()
    torch.testing.assert_close(law.covariance, expected, rtol=1e-11, atol=0)
    x = torch.zeros(2, 2, dtype=F64)
    torch.testing.assert_close(law.mean(x), torch.tensor([[1.0, 2.0]] * 2, dtype=F64))
    torch.testing.assert_close(ou.transition(0.0, 60.0).mean(x), law.mean(x), rtol=1e-11, atol=1e-12)


def test_matrix_transitions_compose():
    sde = LinearSDE(A, B, L)
    first, then, whole = sde.transition(0.0, 0.3), sde.transition(0.3, 1.1), sde.transition(0.0, 1.1)
    torch.testing.assert_close(then.multiplier @ first.multiplier, whole.multiplier)
    torch.testing.assert_close(
        then.multiplier @ first.covariance @ then.multiplier.T + then.covariance, whole.covariance
    )
    torch.testing.assert_close(then.multiplier @ first.offset + then.offset, whole.offset)


def test_time_dependent_element_wise_coefficients_reproduce_the_vp_process():
    vp = VP()
    beta = vp.beta
    sde = LinearSDE(A=lambda t: -0.5 * beta(t), L=lambda t: beta(t).sqrt())
    t1 = torch.linspace(0.2, 1.0, 5, dtype=F64)[:, None]
    law, exact = sde.transition(0.1, t1), vp.transition(0.1, t1)
    torch.testing.assert_close(law.multiplier, exact.multiplier, rtol=1e-10, atol=0)
    torch.testing.assert_close(law.variance, exact.variance, rtol=1e-10, atol=0)
    x = torch.linspace(-1, 1, 10, dtype=F64).reshape(5, 2)
    torch.testing.assert_close(sde.drift(t1, x), vp.drift(t1, x))
    torch.testing.assert_close(sde.diffusion(t1, x), vp.diffusion(t1, x))


def test_time_dependent_matrices_converge_at_sixth_order_to_the_exact_law():
    # in coordinates that turn at rate 1 the system is constant: x = R(t) y, dy = (A − J) y dt + L dW
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    still, noise = (
        torch.tensor([[-0.5, 0.8], [0.1, -1.5]], dtype=F64),
        torch.tensor([[0.5, 0.1], [0.0, 0.9]], dtype=F64),
    )
    shift = torch.tensor([0.4, -0.7], dtype=F64)

    def rotation(t):
        return torch.cos(t) * torch.eye(2, dtype=F64) + torch.sin(t) * turn

    def sde(pieces):
        return LinearSDE(
            lambda t: rotation(t) @ still @ rotation(t).mT + turn,
            lambda t: (rotation(t.reshape(*t.shape, 1) if t.ndim else t) @ shift.unsqueeze(-1)).squeeze(-1),
            lambda t: rotation(t) @ noise,
            pieces,
        )

    end = 1.5
    in_still = LinearSDE(still, shift, noise).transition(0.0, end)
    turned = rotation(torch.tensor(end, dtype=F64))
    expected = turned @ in_still.covariance @ turned.T
    errors = [float((sde(n).transition(0.0, end).covariance - expected).abs().max()) for n in (8, 16)]
    assert math.log2(errors[0] / errors[1]) > 5.5
    law = sde(32).transition(0.0, end)
    torch.testing.assert_close(law.covariance, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(law.multiplier, turned @ in_still.multiplier, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(law.offset, turned @ in_still.offset, rtol=1e-9, atol=1e-10)
    each = torch.tensor([0.5, end], dtype=F64)[:, None]
    per_sample = sde(32).transition(0.0, each)
    torch.testing.assert_close(per_sample.covariance[1], law.covariance, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(per_sample.offset[1], law.offset, rtol=1e-12, atol=1e-14)
    x = torch.ones(2, 2, dtype=F64)
    single = torch.stack([sde(1).drift(t, x[:1])[0] for t in each[:, 0]])
    torch.testing.assert_close(sde(1).drift(each, x), single)


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_act_on_the_flattened_state(shape, dtype):
    sde = LinearSDE(A, B, L)
    assert isinstance(sde, SDE)
    assert sde.noise is Noise.ADDITIVE
    x = torch.arange(12, dtype=dtype).reshape(shape) / 7
    t = torch.tensor(0.3, dtype=F64)
    expected = (x.reshape(4, 3).double() @ A.T + B).to(dtype).reshape(shape)
    torch.testing.assert_close(sde.drift(t, x), expected)
    noise = sde.diffusion(t, x)
    assert isinstance(noise, Dense)
    assert noise.matrix.dtype == dtype
    w = torch.ones(4, 2, dtype=dtype)
    torch.testing.assert_close(apply(noise, w), (w.double() @ L.T).to(dtype).reshape(shape))
    assert sde.transition(0.0, 0.4).sample(x, seed=1).dtype == dtype


def test_a_matrix_acts_on_dimension_one_alike_and_independently_on_what_stands_behind_it():
    two = torch.tensor([[-1.0, 2.0], [-2.0, -0.5]], dtype=F64)
    sde = LinearSDE(two, torch.tensor([0.1, 0.2], dtype=F64), torch.tensor([0.0, 0.8], dtype=F64))
    x = torch.linspace(-1, 1, 24, dtype=F64).reshape(3, 2, 2, 2)
    t = torch.tensor(0.0, dtype=F64)
    for i, j in ((0, 0), (1, 1)):
        torch.testing.assert_close(sde.drift(t, x)[:, :, i, j], sde.drift(t, x[:, :, i, j]))
    assert torch.equal((sde.diffusion(t, x) * torch.ones_like(x))[:, 0], torch.zeros(3, 2, 2, dtype=F64))
    law = sde.transition(0.0, 0.5)
    torch.testing.assert_close(law.mean(x)[:, :, 1, 0], law.mean(x[:, :, 1, 0]))
    moved = law.sample(x, seed=2)
    separate = sum(law.log_prob(moved[:, :, i, j], x[:, :, i, j]) for i in (0, 1) for j in (0, 1))
    torch.testing.assert_close(law.log_prob(moved, x), separate)
    dense = LinearSDE(two, 0.0, torch.tensor([[0.3, 0.0], [0.2, 0.8]], dtype=F64)).diffusion(t, x)
    assert isinstance(dense, Dense)
    covariance = dense.matrix.reshape(8, -1) @ dense.matrix.reshape(8, -1).T
    expected = torch.kron(torch.tensor([[0.09, 0.06], [0.06, 0.68]], dtype=F64), torch.eye(4, dtype=F64))
    torch.testing.assert_close(covariance, expected)


def test_samples_of_a_matrix_transition_have_its_moments():
    law = LinearSDE(A, B, L).transition(0.0, 0.8)
    n = 40000
    x = torch.tensor([0.5, -1.0, 2.0], dtype=F64).expand(n, 3)
    drawn = law.sample(x, seed=4)
    standard = law.covariance.diagonal().sqrt()
    assert bool(((drawn.mean(0) - law.mean(x)[0]).abs() < 4 * standard / math.sqrt(n)).all())
    spread = (standard[:, None] * standard[None, :]) * math.sqrt(2 / n)
    assert bool(((torch.cov(drawn.T) - law.covariance).abs() < 4 * spread).all())
    expected = torch.distributions.MultivariateNormal(law.mean(x)[0], law.covariance).log_prob(drawn)
    torch.testing.assert_close(law.log_prob(drawn, x), expected)


def test_a_singular_transition_can_be_sampled():
    law = LinearSDE(torch.zeros(2, 2, dtype=F64), 0.0, torch.tensor([[1.0], [1.0]], dtype=F64)).transition(0.0, 1.0)
    drawn = law.sample(torch.zeros(100, 2, dtype=F64), seed=0)
    torch.testing.assert_close(drawn[:, 0], drawn[:, 1], atol=1e-7, rtol=0)


def test_scalar_ornstein_uhlenbeck_has_its_textbook_law():
    ou = OrnsteinUhlenbeck(theta=1.7, mu=0.4, sigma=0.6)
    law = ou.transition(0.25, 1.0)
    assert float(law.multiplier) == pytest.approx(math.exp(-1.7 * 0.75), rel=1e-14)
    assert float(law.variance) == pytest.approx(0.36 * (1 - math.exp(-2 * 1.7 * 0.75)) / 3.4, rel=1e-13)
    x = torch.full((3, 2), 2.0, dtype=F64)
    torch.testing.assert_close(law.mean(x), torch.full_like(x, 0.4 + math.exp(-1.7 * 0.75) * 1.6))
    assert float(ou.stationary().variance) == pytest.approx(0.36 / 3.4, rel=1e-14)
    t = torch.tensor(0.0, dtype=F64)
    torch.testing.assert_close(ou.drift(t, x), torch.full_like(x, 1.7 * (0.4 - 2.0)))
    assert ou.drift(t, x.float()).dtype == torch.float32
    assert float(ou.diffusion(t, x)) == 0.6


def test_zero_rate_is_brownian_motion_with_drift():
    law = LinearSDE(0.0, 2.0, 3.0).transition(0.0, 0.5)
    assert (float(law.multiplier), float(law.offset), float(law.variance)) == (1.0, 1.0, 4.5)


def test_element_wise_tensors_give_every_component_its_own_process():
    theta = torch.tensor([0.5, 2.0, 0.0], dtype=F64)
    ou = OrnsteinUhlenbeck(theta, mu=1.0, sigma=torch.tensor([1.0, 0.5, 2.0], dtype=F64))
    law = ou.transition(0.0, torch.tensor([[0.1], [0.9]], dtype=F64))
    for i, t in enumerate((0.1, 0.9)):
        for j in range(3):
            one = OrnsteinUhlenbeck(float(theta[j]), 1.0, float(torch.as_tensor(ou.sigma)[j])).transition(0.0, t)
            assert float(law.variance[i, j]) == pytest.approx(float(one.variance), rel=1e-13)
            assert float(law.multiplier[i, j]) == pytest.approx(float(one.multiplier), rel=1e-13)
            assert float(torch.as_tensor(law.offset)[i, j]) == pytest.approx(float(one.offset), rel=1e-13)


def test_matrix_ornstein_uhlenbeck_solves_the_lyapunov_equation():
    ou = OrnsteinUhlenbeck(-A, B, L)
    law = ou.stationary()
    expected = torch.tensor(solve_continuous_lyapunov(A.numpy(), (-L @ L.T).numpy()))
    torch.testing.assert_close(law.covariance, expected, rtol=1e-11, atol=1e-14)
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ou.drift(torch.tensor(0.0, dtype=F64), x), (B - x) @ -A.T)
    step = ou.transition(0.0, 0.7)
    torch.testing.assert_close(step.multiplier @ law.covariance @ step.multiplier.T + step.covariance, law.covariance)
    torch.testing.assert_close(step.mean(B.expand(4, 3)), B.expand(4, 3))


def test_per_sample_times_give_every_sample_its_own_matrices():
    sde = LinearSDE(A, B, L)
    t1 = torch.tensor([0.2, 3.0], dtype=F64)[:, None]
    law = sde.transition(0.1, t1)
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], dtype=F64)
    for i in (0, 1):
        one = sde.transition(0.1, t1[i, 0])
        torch.testing.assert_close(law.mean(x)[i : i + 1], one.mean(x[i : i + 1]))
        torch.testing.assert_close(law.covariance[i], one.covariance)
    assert law.sample(x).shape == x.shape
    assert law.log_prob(x, x).shape == (2,)


def test_gradients_reach_the_parameters():
    theta = torch.tensor(1.3, dtype=F64, requires_grad=True)
    OrnsteinUhlenbeck(theta).transition(0.0, 0.5).multiplier.backward()
    assert float(theta.grad) == pytest.approx(-0.5 * math.exp(-0.65), rel=1e-12)
    matrix = A.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda m: LinearSDE(m, B, L).transition(0.0, 0.6).covariance, (matrix,))


def test_composition_keeps_the_order_of_time():
    c = LinearSDE(A, B, L)._coefficients(torch.tensor(0.0, dtype=F64))
    short, long = (constant_moments(c, torch.tensor(h, dtype=F64)) for h in (0.2, 0.6))
    torch.testing.assert_close(compose(short, compose(short, short)).offset, long.offset)
    torch.testing.assert_close(compose(short, compose(short, short)).covariance, long.covariance)


def test_misfits_are_refused_in_words():
    with pytest.raises(ValueError, match=r"do not fit together.*\(1, D, E\)"):
        LinearSDE(torch.ones(3, 2))
    with pytest.raises(ValueError, match="do not fit together"):
        LinearSDE(A, torch.ones(2), L)
    with pytest.raises(TypeError, match="A must be a float"):
        LinearSDE("fast")
    with pytest.raises(ValueError, match="flattened to 3 entries"):
        LinearSDE(A).drift(torch.tensor(0.0, dtype=F64), torch.ones(5, 4))
    with pytest.raises(ValueError, match="t0 ≤ t1"):
        LinearSDE(-1.0).transition(1.0, 0.0)
    with pytest.raises(ValueError, match="positive real part"):
        OrnsteinUhlenbeck(-1.0).stationary()
    with pytest.raises(TypeError, match="theta must be a number"):
        OrnsteinUhlenbeck(lambda t: t)
