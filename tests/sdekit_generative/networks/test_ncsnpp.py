import dataclasses
import itertools
import math

import pytest
import torch

from sdekit_generative.networks import DDPMConfig, DDPMppConfig, NCSNppConfig, UNetConfig
from sdekit_generative.networks.attention import SelfAttention
from sdekit_generative.networks.embeddings import Positions, RandomFourier
from sdekit_generative.networks.initialise import scaled_uniform
from sdekit_generative.networks.residual import Residual, Style

TINY = NCSNppConfig(channels=8, multipliers=(1, 2), blocks=1, attention_resolutions=(4,), dropout=0.0)


def _spoken(config, shape=(2, 8, 8)):
    """A network whose silent layers speak, so that every path through it matters."""
    torch.manual_seed(0)
    network = config.build(shape)
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def _inputs(batch=3, shape=(2, 8, 8)):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, *shape, generator=draw), torch.linspace(-3.0, 2.0, batch)


PAPER = {
    "CIFAR-10 NCSN++ cont. VE": (NCSNppConfig(), 32, 62_758_915),
    "CIFAR-10 NCSN++ VE": (NCSNppConfig(embedding="positional"), 32, 62_693_251),
    "CIFAR-10 NCSN++ cont. deep VE": (NCSNppConfig(blocks=8), 32, 107_587_075),
    "CIFAR-10 DDPM++": (DDPMppConfig(), 32, 61_804_419),
    "CIFAR-10 DDPM++ deep": (DDPMppConfig(blocks=8), 32, 106_632_579),
    "CIFAR-10 DDPM": (DDPMConfig(), 32, 35_218_947),
    "LSUN DDPM": (DDPMConfig(multipliers=(1, 1, 2, 2, 4, 4)), 256, 111_569_923),
    "256 NCSN++": (
        NCSNppConfig(
            multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=2, progressive="output_skip", progressive_input="input_skip"
        ),
        256,
        65_574_549,
    ),
    "1024 NCSN++": (
        NCSNppConfig(
            channels=16,
            multipliers=(1, 2, 4, 8, 16, 32, 32, 32),
            blocks=1,
            progressive="output_skip",
            progressive_input="input_skip",
        ),
        1024,
        105_785_896,
    ),
}


@pytest.mark.parametrize("name", PAPER)
def test_networks_of_the_paper_have_as_many_weights_as_there(name):
    config, size, weights = PAPER[name]
    with torch.device("meta"):
        network = config.build((3, size, size))
    assert sum(p.numel() for p in network.parameters()) == weights


MODES = list(
    itertools.product(
        ("biggan", "ddpm"), (True, False), ("none", "output_skip", "residual"), ("none", "input_skip", "residual")
    )
)


@pytest.mark.parametrize(("residual", "fir", "progressive", "progressive_input"), MODES, ids=str)
def test_in_every_mode_every_weight_and_both_inputs_matter(residual, fir, progressive, progressive_input):
    config = dataclasses.replace(
        TINY, residual=residual, fir=fir, progressive=progressive, progressive_input=progressive_input
    )
    network = _spoken(config)
    x, c = (value.requires_grad_() for value in _inputs())
    network(x, c).square().sum().backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert all(float(p.grad.abs().max()) > 0 for p in (x, c, *trained))


@pytest.mark.parametrize("change", [{}, {"progressive": "output_skip"}, {"progressive": "residual"}], ids=str)
def test_it_begins_as_the_zero_function(change):
    network = dataclasses.replace(TINY, **change).build((2, 8, 8))
    assert torch.equal(network(*_inputs()), torch.zeros(3, 2, 8, 8))


def test_images_of_a_batch_do_not_mix():
    network = _spoken(dataclasses.replace(TINY, progressive="output_skip", progressive_input="input_skip"))
    x, c = _inputs(4)
    alone = torch.cat([network(x[i : i + 1], c[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network(x, c), alone, rtol=1e-4, atol=1e-4)


def test_the_memory_layout_of_the_images_does_not_matter():
    network, (x, c) = _spoken(TINY), _inputs()
    assert torch.equal(network(x, c), network(x.contiguous(memory_format=torch.channels_last), c))


@pytest.mark.parametrize("cat", [False, True])
def test_shrunken_input_is_added_or_set_beside(cat):
    config = dataclasses.replace(TINY, progressive_input="input_skip", progressive_combine="cat" if cat else "sum")
    network = config.build((2, 8, 8))
    assert network.down[0].made[-1] == (16 if cat else 8)
    assert network(*_inputs()).shape == (3, 2, 8, 8)


def test_a_silent_residual_block_passes_its_input_on_and_halves_its_variance_if_asked():
    h, e = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    for rescale, factor in ((True, math.sqrt(0.5)), (False, 1.0)):
        block = Residual(8, 8, Style("swish", 16, 0.0, rescale, init_scale=0.0))
        torch.testing.assert_close(block(h, e), factor * h)


def test_rescaled_sums_keep_the_variance_of_features():
    torch.manual_seed(0)
    block = Residual(64, 64, Style("relu", 0, 0.0, True, init_scale=1.0))
    h = torch.randn(8, 64, 16, 16)
    with torch.no_grad():
        out = block(h, None)
    inner = out / math.sqrt(0.5) - h
    expected = (float(h.var()) + float(inner.var())) / 2
    assert float(out.var()) == pytest.approx(expected, rel=0.02)


def test_a_growing_block_may_convolve_before_it_grows():
    """S (R h) = R (S h) up to the bias, which does not commute where the filter meets the border."""
    from sdekit_generative.networks.resample import FirUp

    torch.manual_seed(0)
    block = Residual(4, 4, Style("swish", 0, 0.0, False, 0.0), FirUp(4))
    torch.nn.init.normal_(block.skip.bias)
    h = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(block(h, None), block.skip(block.resample(h)), rtol=1e-5, atol=1e-5)


def test_attention_is_softmax_of_products_over_all_places():
    torch.manual_seed(0)
    attention = SelfAttention(6, 1, torch.nn.GroupNorm(1, 6), rescale=True)
    for p in attention.parameters():
        torch.nn.init.normal_(p, std=0.5)
    h = torch.randn(2, 6, 3, 4)
    q, k, v = attention.qkv(attention.norm(h)).flatten(2).chunk(3, dim=1)
    weights = torch.einsum("bcp,bcq->bpq", q, k).div(math.sqrt(6)).softmax(-1)
    mixed = torch.einsum("bpq,bcq->bcp", weights, v).reshape(h.shape)
    torch.testing.assert_close(attention(h), (h + attention.out(mixed)) * math.sqrt(0.5), rtol=1e-4, atol=1e-5)


# --- what it is told --------------------------------------------------------------------------------------------------


def test_fourier_features_are_sines_and_cosines_of_random_multiples():
    features, c = RandomFourier(8, scale=16.0), torch.tensor([0.3, -1.2])
    phase = 2 * math.pi * c[:, None].double() * features.W.double()
    torch.testing.assert_close(features(c).double(), torch.cat([phase.sin(), phase.cos()], 1), rtol=1e-4, atol=1e-4)
    assert not features.W.requires_grad


@pytest.mark.parametrize("width", [8, 9])
def test_positions_have_wavelengths_up_to_ten_thousand(width):
    features = Positions(width)(torch.tensor([0.0, 2.5, 999.0]))
    slowest = torch.tensor([0.0, 2.5, 999.0]) / 1e4
    torch.testing.assert_close(features[:, 3], slowest.sin())
    torch.testing.assert_close(features[:, 7], slowest.cos())
    assert features.shape == (3, width)
    assert width % 2 == 0 or not features[:, -1].any()


def test_the_output_is_divided_by_sigma_if_asked():
    x, c = _inputs()
    told, plain = (_spoken(dataclasses.replace(TINY, scale_by_sigma=scale)) for scale in (True, False))
    torch.testing.assert_close(told(x, c), plain(x, c) / c.exp()[:, None, None, None])


def test_positions_stand_for_noise_levels_that_fall_geometrically():
    config = dataclasses.replace(TINY, embedding="positional", sigma_max=90.0, sigma_min=0.01, levels=5)
    x, k = _inputs()[0], torch.tensor([0.0, 2.0, 4.0])
    told, plain = (_spoken(dataclasses.replace(config, scale_by_sigma=scale)) for scale in (True, False))
    sigmas = torch.tensor([90.0, math.sqrt(0.9), 0.01])
    torch.testing.assert_close(told(x, k) * sigmas[:, None, None, None], plain(x, k))


def test_images_in_the_unit_interval_are_centred_if_asked():
    x, c = _inputs()
    outside, inside = _spoken(TINY), _spoken(dataclasses.replace(TINY, centered=False))
    torch.testing.assert_close(outside(2 * x - 1, c), inside(x, c))


def test_without_noise_levels_none_is_needed():
    network = _spoken(dataclasses.replace(TINY, conditional=False, scale_by_sigma=False))
    x, c = _inputs()
    assert torch.equal(network(x, c), network(x, c + 1.0))


# --- classes ----------------------------------------------------------------------------------------------------------


def test_labels_go_with_their_images():
    network = _spoken(dataclasses.replace(TINY, classes=3))
    x, c = _inputs(4)
    labels, order = torch.tensor([2, 0, -1, 1]), torch.tensor([3, 1, 0, 2])
    out = network(x, c, labels).detach()
    torch.testing.assert_close(network(x[order], c[order], labels[order]), out[order], rtol=1e-4, atol=1e-4)
    assert float((network(x, c, torch.tensor([1, 1, 1, 1])).detach() - out)[:3].abs().amax((1, 2, 3)).min()) > 1e-3


def test_no_label_is_the_label_minus_one():
    network, (x, c) = _spoken(dataclasses.replace(TINY, classes=3)), _inputs()
    assert torch.equal(network(x, c), network(x, c, torch.tensor([-1, -1, -1])))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, 1]), "one for each image"),
        (torch.tensor([0.0, 1.0, 2.0]), "int64"),
        (torch.tensor([0, 1, 3]), "from 0 to 2"),
        (torch.tensor([0, 1, -2]), "from 0 to 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, said):
    network = dataclasses.replace(TINY, classes=3).build((2, 8, 8))
    with pytest.raises(ValueError, match=said):
        network(*_inputs(), labels)


def test_labels_need_a_network_with_classes():
    with pytest.raises(ValueError, match="classes="):
        TINY.build((2, 8, 8))(*_inputs(), torch.zeros(3, dtype=torch.int64))


# --- memory and precision ---------------------------------------------------------------------------------------------


def test_checkpointing_changes_no_gradient_dropout_included():
    grads = []
    for checkpoint in (False, True):
        network = _spoken(dataclasses.replace(TINY, dropout=0.5, checkpoint=checkpoint)).train()
        torch.manual_seed(3)
        network(*_inputs()).square().sum().backward()
        grads.append([p.grad for p in network.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("config", [TINY, UNetConfig(8, (1, 2), 1, (1,))], ids=lambda c: type(c).__name__)
def test_gradients_of_gradients_are_those_of_finite_differences(config):
    """Of vᵀ ∇ₓ(vᵀ F) by a weight, as sliced score matching needs them, attention included."""
    network = _spoken(config).double()
    x, c = _inputs()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight = network.middle_attention.qkv.weight

    def slope():
        leaf = x.double().requires_grad_()
        (pulled,) = torch.autograd.grad((network(leaf, c) * v).sum(), leaf, create_graph=True)
        return (pulled * v).sum()

    (found,) = torch.autograd.grad(slope(), weight)
    step = torch.zeros_like(weight)
    step[3, 2] = 1e-5
    with torch.no_grad():
        weight += step
        after = slope_of(slope)
        weight -= 2 * step
        before = slope_of(slope)
    assert float(found[3, 2]) == pytest.approx((after - before) / 2e-5, rel=1e-4)


def slope_of(function):
    with torch.enable_grad():
        return float(function().detach())


def test_checkpointing_keeps_fewer_numbers():
    kept = []
    for checkpoint in (False, True):
        network, sizes = _spoken(dataclasses.replace(TINY, blocks=3, checkpoint=checkpoint)), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            network(*_inputs())
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


def test_bfloat16_autocast_is_near():
    network, (x, c) = _spoken(TINY), _inputs()
    with torch.no_grad():
        exact = network(x, c)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x, c).float()
    assert float((rough - exact).norm() / exact.norm()) < 0.03


# --- first weights and wrong options ----------------------------------------------------------------------------------


def test_first_weights_keep_variances_and_scale_by_their_scale():
    layer = torch.nn.Conv2d(64, 128, 3)
    for scale in (1.0, 0.1):
        scaled_uniform(layer, scale)
        assert float(layer.weight.detach().var()) == pytest.approx(scale * 2 / (9 * (64 + 128)), rel=0.03)
    scaled_uniform(layer, 0.0)
    assert not layer.weight.any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 0},
        {"multipliers": ()},
        {"dropout": 1.0},
        {"activation": "sine"},
        {"embedding": "learned"},
        {"residual": "vgg"},
        {"progressive": "input_skip"},
        {"progressive_input": "output_skip"},
        {"progressive_combine": "product"},
        {"levels": 1},
        {"classes": -1},
    ],
    ids=str,
)
def test_impossible_networks_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        NCSNppConfig(**wrong)


def test_images_that_cannot_be_halved_are_refused_by_name():
    with pytest.raises(ValueError, match="multiples of 8"):
        NCSNppConfig(channels=8).build((3, 36, 32))
    with pytest.raises(ValueError, match="multiples of 2"):
        TINY.build((2, 8, 8))(torch.zeros(1, 2, 7, 8), torch.zeros(1))


def test_widths_that_groups_do_not_divide_are_grouped_otherwise():
    network = _spoken(dataclasses.replace(TINY, channels=36, multipliers=(1, 3)))
    assert network(*_inputs()).isfinite().all()
