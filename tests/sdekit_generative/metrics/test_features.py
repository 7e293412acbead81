import pickle

import pytest
import safetensors.torch
import torch

from sdekit_generative.data import Digits
from sdekit_generative.errors import DataError, UserError
from sdekit_generative.metrics import DigitFeatures, FeatureModule, digit_features, load_inception
from sdekit_generative.metrics.features import fingerprint
from sdekit_generative.metrics.inception import Inception


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Inception().state_dict()


@pytest.mark.parametrize("kind", ["pth", "safetensors", "module.", "nested", "no counts"])
def test_weights_come_back_from_a_file_as_they_were(weights, kind, tmp_path):
    state = dict(weights)
    if kind == "no counts":
        state = {name: tensor for name, tensor in state.items() if "tracked" not in name}
    if kind == "module.":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save({"state_dict": state} if kind == "nested" else state, file)
    network = load_inception(file)
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert network.about["sha256"] == fingerprint(_with(weights))
    assert network.about["resize"] == "tf1"


def _with(weights: dict[str, torch.Tensor]) -> Inception:
    network = Inception()
    network.load_state_dict(weights)
    return network


def test_grey_and_colour_images_have_features(weights, tmp_path):
    torch.save(weights, tmp_path / "w.pth")
    network = load_inception(tmp_path / "w.pth", resize="centre")
    levels = torch.randint(0, 256, (2, 1, 20, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    grey, colour = network(levels, 256), network(levels.expand(-1, 3, -1, -1), 256)
    assert grey.features.shape == (2, 2048)
    assert grey.logits is not None
    assert grey.logits.shape == (2, 1008)
    assert torch.equal(grey.features, colour.features)
    with pytest.raises(DataError, match="1 or 3 channels, got 2"):
        network(levels.expand(-1, 2, -1, -1), 256)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_that_is_not_the_weights_is_refused_by_name_and_runs_no_code(weights, tmp_path, capsys):
    def refused(name: str, what: str, content: object = None) -> None:
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            torch.save(content, file)
        with pytest.raises(UserError, match=what) as caught:
            load_inception(file)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("none.pth", "there is no such file")
    refused("text.pth", "cannot be read as weights", b"hello")
    for seed in range(20):
        noise = torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(seed))
        refused(f"noise{seed}.pth", "cannot be read as weights", bytes(noise.tolist()))
    refused("passwd.pth", "cannot be read as weights", b"root:x:0:0:root:/root:/bin/bash\n" * 9)
    refused("cut.safetensors", "cannot be read as weights", safetensors.torch.save(dict(weights))[:1000])
    refused("evil.pth", "cannot be read as weights", pickle.dumps(Evil()))
    refused("evil2.pth", "cannot be read as weights", Evil())
    refused("list.pth", "expected a state dict", [1, 2])
    refused("other.pth", r"there is no Conv2d_1a_3x3\.conv\.weight", {"x": torch.zeros(1)})
    torchvisions = {**weights, "fc.weight": torch.zeros(1000, 2048)}
    refused("torchvision.pth", r"fc\.weight is \(1000, 2048\)", torchvisions)
    refused("more.pth", "it also has AuxLogits", {**weights, "AuxLogits.fc.bias": torch.zeros(1000)})
    refused("nan.pth", "not finite", {**weights, "fc.bias": torch.full((1008,), torch.nan)})
    assert "code ran" not in capsys.readouterr().out


def test_digits_have_features_of_their_own_network_and_nothing_else_has():
    digits = Digits().load()
    found = DigitFeatures()(digits.images[:9], 17)
    assert torch.equal(found.features, digit_features(digits.images[:9]))
    assert found.logits is not None
    assert bool((found.logits.argmax(1) == digits.labels[:9]).all())
    with pytest.raises(DataError, match="--features"):
        DigitFeatures()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 256)


def test_any_module_may_give_features():
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    network = FeatureModule(linear, "mine")
    images = torch.randint(0, 256, (4, 3, 2, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    torch.testing.assert_close(network(images, 256).features, linear(images.float() / 255))
    before = dict(network.about)
    with torch.no_grad():
        linear[1].bias.add_(1.0)
    assert FeatureModule(linear, "mine").about["sha256"] != before["sha256"]
    with pytest.raises(TypeError, match=r"Identity: expected features \(4, F\)"):
        FeatureModule(torch.nn.Identity())(images, 256)
