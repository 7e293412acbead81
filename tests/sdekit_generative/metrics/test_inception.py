import math

import pytest
import torch

from sdekit_generative.metrics.inception import Inception, resized

SEEN = (torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32) * 37 % 256).double()


def _fill(network: torch.nn.Module) -> None:
    """Weights by formula, so that other code can be given the same."""
    for name, tensor in sorted(network.state_dict().items()):
        wave = torch.sin(12.9898 * torch.arange(1, tensor.numel() + 1, dtype=torch.float64)).reshape(tensor.shape)
        if name.endswith("conv.weight"):
            tensor.copy_(2.0 * wave / math.sqrt(tensor[0].numel()))
        elif name.endswith("running_var"):
            tensor.copy_(1.0 + 0.5 * wave)
        elif name.endswith("bn.weight"):
            tensor.copy_(1.0 + 0.2 * wave)
        elif not name.endswith("num_batches_tracked"):
            tensor.copy_(0.1 * wave)


def test_features_and_logits_are_those_of_the_published_network():
    """Recorded from torchvision's Inception v3 (float64), its pools changed as FID's network has them."""
    network = Inception("centre").double()
    _fill(network)
    features, logits = network(SEEN)
    recorded = [0.0192888251360717, 0.051932118743086876, 0.0005632311422829493, 0.0]
    recorded += [0.03653219424217052, 3.276076014765754e-05, 0.0, 0.045266553970263586]
    torch.testing.assert_close(features[0, ::256], torch.tensor(recorded, dtype=torch.float64), rtol=1e-9, atol=1e-15)
    recorded = [0.022919358618554896, 0.033607263925644365, -0.07166620687239594, 0.07034352830705759]
    recorded += [-0.030366059479761814, -0.02629800026410148, 0.06851092680160172]
    torch.testing.assert_close(logits[0, ::144], torch.tensor(recorded, dtype=torch.float64), rtol=1e-9, atol=1e-15)


def test_its_tensors_have_the_names_and_shapes_of_the_published_file():
    state = Inception().state_dict()
    weights = {name: tuple(t.shape) for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert len(weights) == 94 * 5 + 2
    assert sum(t.numel() for n, t in state.items() if "running" not in n and "tracked" not in n) == 23_850_960
    assert weights["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert weights["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert weights["Mixed_6a.branch3x3.conv.weight"] == (384, 288, 3, 3)
    assert weights["Mixed_6c.branch7x7dbl_5.conv.weight"] == (192, 160, 1, 7)
    assert weights["Mixed_7a.branch7x7x3_4.bn.running_var"] == (192,)
    assert weights["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert weights["fc.weight"] == (1008, 2048)


def _by_hand(values: torch.Tensor, centre: bool) -> torch.Tensor:
    """Bilinear interpolation, pixel by pixel."""

    def along(row: list[float]) -> list[float]:
        n, out = len(row), []
        for i in range(299):
            place = (i + 0.5) * n / 299 - 0.5 if centre else i * n / 299
            place = max(place, 0.0)
            low = min(int(place), n - 1)
            high = min(low + 1, n - 1)
            out.append(row[low] + (row[high] - row[low]) * (place - low))
        return out

    rows = torch.tensor([along(row) for row in values.tolist()], dtype=torch.float64)
    return torch.tensor([along(column) for column in rows.T.tolist()], dtype=torch.float64).T


@pytest.mark.parametrize("size", [(5, 7), (32, 32), (299, 299), (400, 301), (1, 1)])
def test_resizing_has_the_two_conventions(size):
    values = torch.randint(0, 256, (1, 1, *size), generator=torch.Generator().manual_seed(0)).double()
    tf1 = resized(values, "tf1") * 128 + 128
    centre = (resized(values, "centre") + 1) * 127.5
    torch.testing.assert_close(tf1[0, 0], _by_hand(values[0, 0], centre=False), rtol=0, atol=1e-9)
    torch.testing.assert_close(centre[0, 0], _by_hand(values[0, 0], centre=True), rtol=0, atol=1e-9)


def test_a_network_has_one_of_the_two_conventions():
    with pytest.raises(ValueError, match="expected 'tf1' or 'centre', got 'pil'"):
        Inception("pil")  # type: ignore[arg-type]
