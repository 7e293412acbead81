import math

import pytest
import torch

from sdekit.sdes.diffusion import VP
from sdekit.sdes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sdekit_generative.forward import MeanReverting, as_process


@pytest.mark.parametrize(("theta", "sigma"), [(1.0, math.sqrt(2.0)), (0.3, 2.0), (4.0, 0.5)])
def test_the_mean_reverting_process_has_the_law_of_the_ornstein_uhlenbeck_sde(theta, sigma):
    sde = OrnsteinUhlenbeck(theta=theta, mu=0.0, sigma=sigma)
    process = as_process(sde, t_min=1e-3)
    assert isinstance(process, MeanReverting)
    x = torch.tensor([[1.5, -0.4]], dtype=torch.float64)
    for t in (1e-3, 0.1, 1.0, 5.0 / theta):
        time = torch.tensor(t, dtype=torch.float64)
        law = sde.transition(torch.tensor(0.0, dtype=torch.float64), time)
        assert torch.allclose(law.mean(x), process.scale(t) * x, rtol=1e-12)
        assert float(law.variance) == pytest.approx(float(process.std(t)) ** 2, rel=1e-12)
        assert float(process.time(process.log_sigma(t))) == pytest.approx(t, rel=1e-10)
        assert torch.allclose(process.drift(time, x), sde.drift(time, x))
        assert float(process.diffusion(time, x)) == pytest.approx(sigma, rel=1e-12)
    assert process.t_max == pytest.approx(6.0 / theta)


def test_a_process_that_is_one_already_is_taken_as_it_is():
    assert as_process(VP()) == VP()


@pytest.mark.parametrize(
    ("sde", "said"),
    [
        (OrnsteinUhlenbeck(theta=1.0, mu=0.5, sigma=1.0), "returns to 0"),
        (OrnsteinUhlenbeck(theta=torch.tensor([1.0, 2.0]), mu=0.0, sigma=1.0), "scalar"),
    ],
)
def test_processes_with_no_single_noise_level_are_refused(sde, said):
    with pytest.raises(ValueError, match=said):
        as_process(sde)


@pytest.mark.parametrize("wrong", [{"theta": 0.0}, {"strength": -1.0}, {"t_min": 7.0}])
def test_impossible_processes_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        MeanReverting(**wrong)
