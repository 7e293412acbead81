import math

import pytest
import torch

from sdekit_generative.networks import SmallClassifierConfig, WideResNetConfig

CONFIGS = [SmallClassifierConfig(3, 8, (1, 2), 0.0), WideResNetConfig(3, channels=4, widening=2, blocks=1, features=8)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_every_weight_and_both_inputs_matter(config):
    torch.manual_seed(0)
    network = config.build((2, 8, 8))
    for p in network.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.3)
    x, c = torch.randn(4, 2, 8, 8, requires_grad=True), torch.randn(4, requires_grad=True)
    logits = network(x, c)
    assert logits.shape == (4, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert all(float(p.grad.abs().max()) > 0 for p in (x, c, *trained))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_the_size_and_mean_of_an_image_do_not_matter(config):
    torch.manual_seed(0)
    network = config.build((2, 8, 8)).eval()
    x, c = torch.randn(4, 2, 8, 8), torch.randn(4)
    torch.testing.assert_close(network(100.0 * x + 3.0, c), network(x, c), rtol=1e-3, atol=1e-4)


def test_wide_resnet_28_10_has_the_depth_and_width_of_its_name():
    with torch.device("meta"):
        network = WideResNetConfig().build((3, 32, 32))
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    # the 28 layers of its name count the three 1×1 convolutions of shortcuts, and not the last, dense one
    assert len(convolutions) == 25
    assert max(m.out_channels for m in convolutions) == 640


def test_a_small_classifier_learns_to_tell_bright_halves_apart():
    torch.manual_seed(0)
    network = SmallClassifierConfig(2, 8, (1, 2), 0.0).build((1, 8, 8))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    draw = torch.Generator().manual_seed(1)

    def batch(n):
        y = torch.randint(0, 2, (n,), generator=draw)
        side = torch.where(torch.arange(8) < 4, 1.0, -1.0)
        sigma = torch.exp(torch.empty(n).uniform_(math.log(0.1), 0.0, generator=draw))
        x = (1 - 2 * y)[:, None, None, None] * side + sigma[:, None, None, None] * torch.randn(
            n, 1, 8, 8, generator=draw
        )
        return x, sigma.log(), y

    for _ in range(60):
        x, c, y = batch(32)
        loss = torch.nn.functional.cross_entropy(network(x, c), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, c, y = batch(200)
    assert float((network.eval()(x, c).argmax(1) == y).float().mean()) > 0.97


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"blocks": 0}, {"dropout": 1.5}], ids=str)
def test_impossible_classifiers_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        WideResNetConfig(**wrong)
