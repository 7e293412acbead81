import pytest
import torch

from sdekit_generative.training import EMA


def _scalar_network(value: float) -> torch.nn.Module:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, value)
    return network.double()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_the_average_is_the_weighted_sum_that_the_formula_says(decay):
    values = [1.0, -2.0, 0.5, 3.0, 7.0, -1.0, 4.0, 2.0, 2.5, 1.5]
    network = _scalar_network(10.0)
    ema = EMA(network, decay)
    for value in values:
        torch.nn.init.constant_(network.weight, value)
        ema.update(network)
    # closed form: s_n = Σ_k v_k (1 − d_k) Π_{j>k} d_j, with v_0 the start and d_0 = 0
    decays = [0.0] + [min(decay, (1 + n) / (10 + n)) for n in range(1, len(values) + 1)]
    expected = 0.0
    for k, value in enumerate([10.0, *values]):
        weight = 1.0 - decays[k]
        for d in decays[k + 1 :]:
            weight *= d
        expected += weight * value
    assert ema.averages["weight"].item() == pytest.approx(expected, rel=1e-12)
    assert ema.updates == len(values)


def test_the_average_goes_into_a_network_and_is_not_tied_to_it():
    network = _scalar_network(1.0)
    ema = EMA(network, 0.9)
    torch.nn.init.constant_(network.weight, 5.0)
    assert ema.averages["weight"].item() == 1.0
    ema.copy_to(network)
    assert network.weight.item() == 1.0


def test_a_decay_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="decay"):
        EMA(_scalar_network(1.0), 1.0)
