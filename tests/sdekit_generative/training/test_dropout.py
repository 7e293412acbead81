import pytest
import torch

from sdekit_generative.training.dropout import KeyedDropout

CPU = torch.device("cpu")


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Dropout(0.25), torch.nn.Identity(), torch.nn.Dropout(0.5))


def test_the_mask_of_a_sample_does_not_depend_on_its_batch():
    network = _network()
    dropout, x = KeyedDropout(network, seed=4), torch.ones(6, 3, 8, 8)
    with dropout.at(7, 0, CPU):
        whole = network(x)
    parts = []
    for first, n in ((0, 2), (2, 4)):
        with dropout.at(7, first, CPU):
            parts.append(network(x[:n]))
    assert torch.equal(whole, torch.cat(parts))
    with dropout.at(8, 0, CPU):
        assert not torch.equal(network(x), whole)


def test_features_are_dropped_as_often_as_asked_and_keep_their_mean():
    network = _network()
    dropout = KeyedDropout(network, seed=0)
    with dropout.at(0, 0, CPU):
        y = network(torch.ones(8, 64, 32, 32))
    kept, n = 0.75 * 0.5, y.numel()
    assert float((y != 0).double().mean()) == pytest.approx(kept, abs=4 * (kept * (1 - kept) / n) ** 0.5)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / kept])


def test_evaluation_drops_nothing_and_the_global_generator_stays():
    network = _network().eval()
    dropout, x = KeyedDropout(network, seed=0), torch.randn(2, 3, 4, 4)
    state = torch.get_rng_state()
    with dropout.at(0, 0, CPU):
        assert torch.equal(network(x), x)
    network.train()
    with dropout.at(0, 0, CPU):
        network(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_flow_through_what_is_kept_also_when_it_is_computed_twice():
    network = _network()
    dropout = KeyedDropout(network, seed=0)
    x = torch.ones(2, 3, 8, 8, requires_grad=True)
    with dropout.at(3, 0, CPU):
        y = torch.utils.checkpoint.checkpoint(network, x, use_reentrant=False)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
