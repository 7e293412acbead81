import pytest
import torch

from sdekit_generative.networks import UNetConfig
from sdekit_generative.networks.embeddings import Sinusoids


def _random(config: UNetConfig, channels: int) -> torch.nn.Module:
    """A network whose silent layers speak, so that every path through it matters."""
    torch.manual_seed(0)
    network = config.build((channels, 8, 8))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 5), (16, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_of_image_keeps_its_shape(size, channels):
    network = _random(UNetConfig(8, (1, 2, 2), 1, (2,)), channels)
    x = torch.randn(2, channels, *size)
    assert network(x, torch.zeros(2)).shape == x.shape


def test_it_begins_as_the_zero_function():
    network = UNetConfig(8, (1, 2), 1, (1,)).build((1, 8, 8))
    assert torch.equal(network(torch.randn(3, 1, 8, 8), torch.randn(3)), torch.zeros(3, 1, 8, 8))


def test_every_weight_and_both_inputs_matter():
    network = _random(UNetConfig(8, (1, 2), 2, (0, 1), heads=2), 1)
    x, c = torch.randn(4, 1, 8, 8, requires_grad=True), torch.randn(4, requires_grad=True)
    network(x, c).square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in (x, c, *network.parameters()))


def test_labels_go_with_their_images_and_none_is_minus_one():
    network = _random(UNetConfig(8, (1, 2), 1, (1,), classes=3), 1)
    x, c, labels, order = (
        torch.randn(4, 1, 8, 8),
        torch.randn(4),
        torch.tensor([2, 0, -1, 1]),
        torch.tensor([3, 1, 0, 2]),
    )
    with torch.no_grad():
        out = network(x, c, labels)
        torch.testing.assert_close(network(x[order], c[order], labels[order]), out[order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(x, c)[2], out[2], rtol=1e-4, atol=1e-5)
        assert float((network(x, c) - out)[0].abs().max()) > 1e-3
    with pytest.raises(ValueError, match="classes="):
        _random(UNetConfig(8, (1, 2), 1, (1,)), 1)(x, c, labels)


def test_images_of_a_batch_do_not_mix():
    network = _random(UNetConfig(8, (1, 2), 1, (1,)), 1)
    x, c = torch.randn(6, 1, 8, 8), torch.randn(6)
    alone = torch.cat([network(x[i : i + 1], c[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(network(x, c), alone, rtol=1e-4, atol=1e-5)


def test_sinusoids_tell_all_noise_levels_apart():
    features = Sinusoids(64)(torch.linspace(-7.0, 6.0, 400))
    assert float(torch.pdist(features).min()) > 0.05
    assert float((features[:, :32] ** 2 + features[:, 32:] ** 2 - 1).abs().max()) < 1e-5


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 0},
        {"blocks": 0},
        {"multipliers": ()},
        {"attention": (3,)},
        {"dropout": 1.0},
        {"classes": -1},
    ],
)
def test_impossible_networks_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        UNetConfig(**wrong)
