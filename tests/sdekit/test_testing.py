"""The strategies give what they promise, and the gap they are judged by sees a wrong law."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdekit import testing as kit
from sdekit.protocols import Calculus, Noise
from sdekit.sdes.functions import ODE, ItoSDE, StratonovichSDE
from sdekit.sdes.linear import LinearSDE
from sdekit.steps import TimeGrid


@given(kit.states(batch=5), kit.states(batch=2, shape=(3, 4), dtype=torch.float32, scale=10.0))
def test_states_are_finite_and_of_the_shape_asked_for(any_rank, one):
    assert any_rank.shape[0] == 5
    assert tuple(any_rank.shape[1:]) in kit.SHAPES
    assert any_rank.dtype == torch.float64
    assert one.shape == (2, 3, 4)
    assert one.dtype == torch.float32
    assert bool(torch.isfinite(any_rank).all())
    assert bool(torch.isfinite(one).all())


@given(kit.ou_processes(), kit.matrix_ou_processes(), kit.matrix_ou_processes(size=3))
def test_processes_are_stable(scalar, matrix, three):
    assert 0.1 <= scalar.theta <= 3.0
    for process in (matrix, three):
        assert bool((torch.linalg.eigvals(process.theta).real > 0.19).all())
        process.stationary()
    assert three.theta.shape == (3, 3)


@given(kit.linear_sdes(), st.data())
def test_linear_sdes_have_a_drift_and_a_law(sde, data):
    x = data.draw(kit.states(4, (sde.size,)))
    assert isinstance(sde, LinearSDE)
    assert sde.drift(torch.tensor(0.3, dtype=torch.float64), x).shape == x.shape
    covariance = sde.transition(0.0, 1.0).covariance
    assert bool((torch.linalg.eigvalsh(covariance) > -1e-9).all())


@given(kit.mixtures(), kit.mixtures(shape=(2, 3), most=1))
def test_mixtures_have_densities(two, image):
    assert bool(torch.isfinite(two.log_prob(torch.zeros(3, 2, dtype=torch.float64))).all())
    assert tuple(image.mean.shape) == (2, 3)


@given(kit.time_grids(), kit.time_grids(2.0, -1.0, most=5))
def test_grids_run_from_end_to_end(up, down):
    assert isinstance(up, TimeGrid)
    assert (up.times[0], up.times[-1]) == (0.0, 1.0)
    assert (down.times[0], down.times[-1]) == (2.0, -1.0)
    assert 2 <= len(down.times) <= 6


@pytest.mark.parametrize(
    "sde",
    [
        ODE(lambda t, x: -x),
        ItoSDE(lambda t, x: -x, lambda t, x: x, Noise.DIAGONAL),
        StratonovichSDE(lambda t, x: -x, lambda t, x: x, Noise.GENERAL),
        LinearSDE(-1.0),
    ],
)
def test_every_solver_offered_fits_and_no_fitting_one_is_left_out(sde):
    offered = set()

    @given(kit.solvers_for(sde))
    def collect(solver):
        assert kit.fits(solver, sde.noise, sde.calculus)
        offered.add(type(solver))

    for _ in range(1):
        collect()
    from sdekit.solvers import ALL

    assert offered <= {kind for kind in ALL if kit.fits(kind(), sde.noise, sde.calculus)}
    assert offered


@given(kit.solvers_for(ODE(lambda t, x: -x), adaptive=True), kit.solvers_for(LinearSDE(-1.0), adaptive=False))
def test_solvers_may_be_asked_for_an_error_estimate(adaptive, fixed):
    assert adaptive.error_order is not None
    assert kit.error_order(fixed, Noise.ADDITIVE) is None


def test_an_sde_that_no_solver_takes_is_named():
    class Odd:
        noise, calculus = "coloured", Calculus.ITO

    Odd.noise = type("Fake", (), {"name": "COLOURED"})()
    with pytest.raises(ValueError, match="no listed solver fits COLOURED"):
        kit.solvers_for(Odd())


def test_the_gap_is_small_for_the_right_law_and_large_for_a_wrong_one():
    generator = torch.Generator().manual_seed(0)
    root = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    x = torch.randn(10_000, 2, dtype=torch.float64, generator=generator) @ root.T + 1.0
    c = root @ root.T
    assert kit.moment_gap(x, 1.0, c) < 4.5
    assert kit.moment_gap(x, 1.06, c) > 4.5
    assert kit.moment_gap(x, 1.0, 1.1 * c) > 4.5
    assert kit.moment_gap(x, 1.0, torch.ones(2)) > 4.5  # the correlation is missed
    assert kit.moment_gap(x, 1.06, c, slack=0.07) < 4.5
    images = x.reshape(-1, 1, 2)
    assert kit.moment_gap(images, torch.ones(1, 2), c) == pytest.approx(kit.moment_gap(x, 1.0, c))
    still = torch.zeros(100, 2, dtype=torch.float64)
    assert kit.moment_gap(still, 0.0, 0.0) == 0.0
    assert kit.moment_gap(still + 1e-3, 0.0, 0.0) > 1e6
    assert math.isfinite(kit.moment_gap(still + 1e-3, 0.0, 0.0))
