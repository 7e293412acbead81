import pytest
import torch

from sdekit_generative.training import EMA, PowerEMA
from sdekit_generative.training.ema import combination, power_of


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


# --- power-function averages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_power_of_a_width_gives_a_profile_of_that_width(width):
    """The density (γ + 1) τ^γ on [0, 1] has standard deviation σ_rel."""
    gamma = power_of(width)
    tau = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    density = (gamma + 1) * tau**gamma
    mean = torch.trapezoid(tau * density, tau)
    variance = torch.trapezoid((tau - mean) ** 2 * density, tau)
    assert float(variance.sqrt()) == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize("width", [0.0, 0.29, -1.0])
def test_widths_that_no_profile_has_are_refused(width):
    with pytest.raises(ValueError, match="width"):
        power_of(width)


def _wander(steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(steps, generator=generator, dtype=torch.float64).cumsum(0) * 0.05
    return (walk + torch.linspace(0, 2, steps, dtype=torch.float64)).tolist()


def _followed(values: list[float], width: float) -> list[float]:
    network = _scalar_network(99.0)
    average, seen = PowerEMA(network, width), []
    for value in values:
        torch.nn.init.constant_(network.weight, value)
        average.update(network)
        seen.append(average.averages["weight"].item())
    return seen


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_power_average_weighs_parameters_by_the_power_of_their_time(width):
    values = _wander(2000)
    gamma = power_of(width)
    n = torch.arange(1, 2001, dtype=torch.float64)
    weights = n**gamma / (n**gamma).sum()
    expected = float((weights * torch.tensor(values, dtype=torch.float64)).sum())
    # the recursion has the profile of the formula up to the size of one step
    assert _followed(values, width)[-1] == pytest.approx(expected, abs=3e-3)


def test_any_other_average_can_be_put_together_from_stored_ones():
    """Two widths, kept eight times during the run, give all widths between, to a few parts in a thousand of the spread."""
    values = _wander(2000)
    stored = {width: _followed(values, width) for width in (0.05, 0.1)}
    times = list(range(250, 2001, 250))
    powers = [power_of(width) for width in stored for _ in times]
    parts = [stored[width][t - 1] for width in stored for t in times]
    spread = max(values) - min(values)
    for width in (0.04, 0.07, 0.1, 0.15):
        weights = combination(powers, times * 2, power_of(width), 2000)
        assert weights.sum() == pytest.approx(1.0, abs=1e-2)
        found = float((weights * parts).sum())
        assert found == pytest.approx(_followed(values, width)[-1], abs=5e-3 * spread)


def test_a_stored_average_is_put_together_from_itself_alone():
    times = [100, 200, 300]
    weights = combination([power_of(0.1)] * 3, times, power_of(0.1), 200)
    assert weights == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)


def test_a_network_gets_its_own_weights_back_after_the_average_was_lent_to_it():
    network = _scalar_network(1.0)
    ema = EMA(network, 0.9)
    torch.nn.init.constant_(network.weight, 5.0)
    with ema.lent_to(network):
        assert network.weight.item() == 1.0
    assert network.weight.item() == 5.0
