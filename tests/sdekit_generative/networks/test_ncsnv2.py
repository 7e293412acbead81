import pytest
import torch

from sdekit_generative.networks import NCSNv2Config
from sdekit_generative.networks.ncsnv2 import InstanceNormPlus

SIZES = [
    ((1, 2, 2, 2), (1, 1, 2, 4), 8),
    ((1, 2, 2, 4, 4), (1, 1, 1, 2, 4), 8),
    ((1, 2, 2, 2, 4, 4), (1, 1, 1, 1, 2, 4), 16),
]


def _spoken(config, size):
    torch.manual_seed(0)
    network = config.build((2, size, size))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize(("multipliers", "dilations", "size"), SIZES, ids=str)
def test_every_weight_matters(multipliers, dilations, size):
    network = _spoken(NCSNv2Config(4, multipliers, dilations), size)
    x = torch.randn(2, 2, size, size, requires_grad=True)
    out = network(x, torch.tensor([0.0, 100.0]))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in (x, *network.parameters()))


def test_the_published_network_for_cifar_10_has_as_many_weights_as_there():
    with torch.device("meta"):
        assert sum(p.numel() for p in NCSNv2Config().build((3, 32, 32)).parameters()) == 29_694_083


def test_levels_only_divide_the_output():
    network = _spoken(NCSNv2Config(4, sigma_max=50.0, sigma_min=0.5, levels=3), 8).eval()
    x = torch.randn(1, 2, 8, 8).expand(3, -1, -1, -1)
    out = network(x, torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(out[0] * 50.0, out[1] * 5.0, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out[0] * 50.0, out[2] * 0.5, rtol=1e-4, atol=1e-5)


def test_instance_norm_plus_gives_back_the_means():
    torch.manual_seed(0)
    norm, h = InstanceNormPlus(5), torch.randn(3, 5, 4, 4) + torch.randn(3, 5, 1, 1)
    torch.nn.init.normal_(norm.beta)
    mean, std = h.mean((2, 3), keepdim=True), (h.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    means = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, keepdim=True) + 1e-5).sqrt()
    alpha, gamma, beta = (p[:, None, None] for p in (norm.alpha, norm.gamma, norm.beta))
    torch.testing.assert_close(norm(h), gamma * ((h - mean) / std + alpha * means) + beta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"multipliers": (1, 2)}, {"dilations": (2, 1, 2, 4)}, {"channels": 1}, {"activation": "sine"}, {"sigma_min": 0.0}],
    ids=str,
)
def test_impossible_networks_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        NCSNv2Config(**wrong)
