import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from sdekit_generative.errors import CheckpointError
from sdekit_generative.interop import score_sde
from sdekit_generative.networks import DDPMConfig, DDPMppConfig, NCSNppConfig, NCSNv2Config, UNetConfig

TINY = NCSNppConfig(channels=16, multipliers=(1, 2), blocks=1, attention_resolutions=(4,), centered=False)


def _filled(keys_and_shapes):
    draw = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=draw) for key, shape in keys_and_shapes}


def _state(network):
    return _filled((entry.key, entry.shape) for entry in score_sde.entries(network))


# --- names ------------------------------------------------------------------------------------------------------------

BLOCK = {"GroupNorm_0": 2, "Conv_0": 2, "Dense_0": 2, "GroupNorm_1": 2, "Conv_1": 2}


def _keys(place, parts):
    return [f"all_modules.{place}.{part}.{name}" for part in parts for name in ("weight", "bias")]


def test_keys_of_a_small_network_are_those_of_the_code_in_its_order():
    plain = [*BLOCK]
    turned = [*BLOCK, "Conv_2"]
    nin = [f"NIN_{i}.{name}" for i in range(4) for name in ("W", "b")]
    attention = ["GroupNorm_0.weight", "GroupNorm_0.bias", *nin]
    expected = ["all_modules.0.W"]
    for i in (1, 2, 3):
        expected += [f"all_modules.{i}.weight", f"all_modules.{i}.bias"]
    expected += _keys(4, plain) + _keys(5, turned) + _keys(6, ["Conv2d_0"]) + _keys(7, turned)
    expected += [f"all_modules.8.{name}" for name in attention]
    expected += _keys(9, plain) + [f"all_modules.10.{name}" for name in attention] + _keys(11, plain)
    expected += _keys(12, turned) + _keys(13, turned) + [f"all_modules.14.{name}" for name in attention]
    expected += _keys(15, turned) + _keys(16, turned) + _keys(17, turned)
    expected += [f"all_modules.{i}.{name}" for i in (18, 19) for name in ("weight", "bias")]
    found = score_sde.entries(TINY.build((3, 8, 8)))
    assert [entry.key for entry in found] == expected
    assert len(found) == 157
    assert [entry.key for entry in found if not entry.trained] == ["all_modules.0.W"]
    assert sum(np.prod(entry.shape) for entry in found) == 190_835


def test_the_first_layer_is_as_wide_as_channels_whatever_the_first_multiplier():
    network = dataclasses.replace(TINY, multipliers=(2, 1)).build((3, 8, 8))
    shapes = {entry.key: entry.shape for entry in score_sde.entries(network)}
    assert shapes["all_modules.3.weight"] == (16, 3, 3, 3)
    assert shapes["all_modules.4.Conv_0.weight"] == (32, 16, 3, 3)
    assert shapes["all_modules.4.Conv_2.weight"] == (32, 16, 1, 1)
    assert network(torch.randn(2, 3, 8, 8), torch.zeros(2)).shape == (2, 3, 8, 8)


COUNTS = {  # of keys in a state dict, `sigmas` among them
    "cifar10 ddpm": (DDPMConfig(), 32, 309),
    "cifar10 ddpmpp": (DDPMppConfig(), 32, 565),
    "cifar10 ddpmpp_deep": (DDPMppConfig(blocks=8), 32, 957),
    "cifar10 ncsnpp": (NCSNppConfig(embedding="positional"), 32, 571),
    "cifar10 ncsnpp_continuous": (NCSNppConfig(), 32, 572),
    "cifar10 ncsnpp_deep_continuous": (NCSNppConfig(blocks=8), 32, 964),
    "lsun ddpm": (DDPMConfig(multipliers=(1, 1, 2, 2, 4, 4)), 256, 431),
    "256 ncsnpp": (
        NCSNppConfig(
            multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=2, progressive="output_skip", progressive_input="input_skip"
        ),
        256,
        646,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_checkpoints_have_as_many_keys(name):
    config, size, count = COUNTS[name]
    with torch.device("meta"):
        assert len(score_sde.entries(config.build((3, size, size)))) + 1 == count


def test_ncsnv2_at_its_largest_keeps_stage_31_where_the_code_does():
    network = NCSNv2Config(4, (1, 2, 2, 2, 4, 4), (1, 1, 1, 1, 2, 4)).build((3, 16, 16))
    parts = list(dict.fromkeys(entry.key.split(".")[0] for entry in score_sde.entries(network)))
    assert parts == [
        *("begin_conv", "normalizer", "end_conv", "res1", "res2", "res3", "res31", "res4", "res5"),
        *("refine1", "refine2", "refine3", "refine31", "refine4", "refine5"),
    ]
    block = [entry.key for entry in score_sde.entries(network) if entry.key.startswith("res2.0.")]
    names = ("conv1", "normalize2", "conv2.conv", "shortcut.conv", "normalize1")
    assert list(dict.fromkeys(key.removeprefix("res2.0.").rpartition(".")[0] for key in block)) == list(names)


# --- there and back ---------------------------------------------------------------------------------------------------

NETWORKS = {
    "ncsnpp": TINY,
    "skip": dataclasses.replace(TINY, progressive="output_skip", progressive_input="input_skip"),
    "cat": dataclasses.replace(TINY, progressive_input="input_skip", progressive_combine="cat"),
    "residual": dataclasses.replace(TINY, progressive="residual"),
    "ddpm blocks": dataclasses.replace(TINY, residual="ddpm"),
    "no filter": dataclasses.replace(TINY, residual="ddpm", fir=False, progressive="residual"),
    "no convolution": dataclasses.replace(TINY, residual="ddpm", resample_with_conv=False),
    "unconditional": dataclasses.replace(TINY, conditional=False),
    "positional": dataclasses.replace(TINY, embedding="positional"),
    "ddpmpp": DDPMppConfig(channels=16, multipliers=(1, 2), blocks=2, attention_resolutions=(8, 4)),
    "ddpm": DDPMConfig(channels=32, multipliers=(1, 2), blocks=1, attention_resolutions=(4,)),
    "ncsnv2": NCSNv2Config(4, levels=10),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_goes_in_and_comes_out_again(name):
    network = NETWORKS[name].build((3, 8, 8))
    state = _state(network)
    score_sde.load(network, {f"module.{key}": value for key, value in state.items()})
    back = score_sde.state_dict(network)
    assert list(back) == list(state)
    used = {entry.key for entry in score_sde.entries(network) if entry.parameter is not None}
    assert all(torch.equal(back[key], state[key]) for key in used)
    covered = {id(entry.parameter) for entry in score_sde.entries(network)}
    assert covered >= {id(p) for p in network.parameters()}


def test_matrices_are_turned_and_stacked_as_attention_needs_them():
    network = TINY.build((3, 8, 8))
    state = _state(network)
    score_sde.load(network, state)
    attention, place = network.middle_attention, "all_modules.10"
    h = torch.randn(2, 32, 4, 4)
    for i, part in enumerate(attention.qkv(h).chunk(3, dim=1)):
        matrix, bias = state[f"{place}.NIN_{i}.W"], state[f"{place}.NIN_{i}.b"]
        expected = torch.einsum("bchw,cd->bdhw", h, matrix) + bias[:, None, None]
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)


# --- what does not fit ------------------------------------------------------------------------------------------------


def _spoilt(state, change):
    key = "all_modules.4.Conv_0.weight"
    if change == "missing":
        del state[key]
    elif change == "left over":
        state["all_modules.20.weight"] = torch.zeros(3)
    elif change == "shape":
        state[key] = state[key][:, :8]
    elif change == "not finite":
        state[key][0, 0, 0, 0] = float("nan")
    elif change == "not a tensor":
        state[key] = [1.0]
    return state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", "1 weights are missing: all_modules.4.Conv_0.weight"),
        ("left over", "1 weights are not part of this network: all_modules.20.weight"),
        ("shape", r"all_modules.4.Conv_0.weight: expected shape \(16, 16, 3, 3\), got \(16, 8, 3, 3\)"),
        ("not finite", "all_modules.4.Conv_0.weight: has values that are not finite"),
        ("not a tensor", "all_modules.4.Conv_0.weight: expected shape .* got list"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_changed(change, said):
    network = TINY.build((3, 8, 8))
    before = score_sde.state_dict(network)
    with pytest.raises(CheckpointError, match=said):
        score_sde.load(network, _spoilt(_state(network), change))
    assert all(torch.equal(value, before[key]) for key, value in score_sde.state_dict(network).items())


def _levels(high, low, count):
    return torch.tensor(np.exp(np.linspace(np.log(high), np.log(low), count)))


def test_noise_levels_that_matter_must_be_those_of_the_network():
    network = dataclasses.replace(TINY, embedding="positional", levels=20).build((3, 8, 8))
    state = _state(network)
    score_sde.load(network, {**state, "sigmas": _levels(50.0, 0.01, 20)})
    for wrong in (_levels(50.0, 0.01, 21), _levels(90.0, 0.01, 20), _levels(50.0, 0.02, 20)):
        with pytest.raises(CheckpointError, match=r"sigma_max=50, sigma_min=0\.01"):
            score_sde.load(network, {**state, "sigmas": wrong})
    continuous = TINY.build((3, 8, 8))  # has no use for them
    score_sde.load(continuous, {**_state(continuous), "sigmas": _levels(348.0, 0.01, 2000)})


@pytest.mark.parametrize("config", [UNetConfig(8, (1, 2), 1, ()), dataclasses.replace(TINY, classes=3)], ids=str)
def test_networks_that_the_code_does_not_have_are_refused(config):
    with pytest.raises(TypeError, match=r"NCSN\+\+|classes"):
        score_sde.load(config.build((3, 8, 8)), {})


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _written(path, network, **more):
    """A checkpoint file as the code writes it: raw weights by name, averages in order, a NumPy learning rate."""
    state = _state(network)
    trained = [entry for entry in score_sde.entries(network) if entry.trained]
    averages = [2.0 * state[entry.key] for entry in trained]
    moments = {
        i: {"step": torch.tensor(7.0), "exp_avg": 3.0 * state[e.key], "exp_avg_sq": state[e.key] ** 2}
        for i, e in enumerate(score_sde.entries(network))
        if e.trained
    }
    content = {
        "optimizer": {"state": moments, "param_groups": [{"lr": np.float64(2e-4), "params": list(range(157))}]},
        "model": {f"module.{key}": value for key, value in state.items()},
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": averages},
        "step": 7,
    }
    torch.save({**content, **more}, path)
    return state


def test_averages_are_found_by_their_order_and_the_rest_by_name(tmp_path):
    network = TINY.build((3, 8, 8))
    state = _written(tmp_path / "checkpoint.pth", network)
    saved = score_sde.read(tmp_path / "checkpoint.pth")
    assert (saved.step, saved.decay, saved.updates, len(saved.averages)) == (7, 0.999, 7, 156)
    trained, averages = score_sde.averaged(network, saved)
    pairs = zip(trained, averages, strict=True)
    assert all(torch.equal(average.reshape(-1), 2.0 * state[entry.key].reshape(-1)) for entry, average in pairs)
    score_sde.load_averages(network, saved)
    back = score_sde.state_dict(network)
    assert torch.equal(back["all_modules.0.W"], state["all_modules.0.W"])  # never trained, so never averaged
    assert all(torch.equal(back[key], 2.0 * state[key]) for key in state if key != "all_modules.0.W")


def test_a_bare_state_dict_is_a_checkpoint_without_averages(tmp_path):
    network = TINY.build((3, 8, 8))
    torch.save(_state(network), tmp_path / "weights.pth")
    saved = score_sde.read(tmp_path / "weights.pth")
    assert (saved.step, saved.moments, len(saved.averages)) == (None, None, 0)
    with pytest.raises(CheckpointError, match="0 averages for 156"):
        score_sde.load_averages(network, saved)


def test_a_whole_checkpoint_is_not_a_state_dict():
    network = TINY.build((3, 8, 8))
    with pytest.raises(CheckpointError, match="load_averages"):
        score_sde.load(network, {"model": _state(network), "step": 3})


def test_averages_of_another_network_are_refused(tmp_path):
    network = TINY.build((3, 8, 8))
    _written(tmp_path / "checkpoint.pth", network, ema={"shadow_params": [torch.zeros(3)] * 156})
    with pytest.raises(CheckpointError, match="expected shape"):
        score_sde.load_averages(network, score_sde.read(tmp_path / "checkpoint.pth"))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_nothing_in_a_file_is_run(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"model": Trap(canary)}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Trap(canary)))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(CheckpointError, match="not a file of weights"):
            score_sde.read(tmp_path / name)
    assert not canary.exists()


def test_damaged_files_are_refused_by_name(tmp_path):
    network, whole = TINY.build((3, 8, 8)), tmp_path / "checkpoint.pth"
    _written(whole, network)
    content = whole.read_bytes()
    for name, damaged in (("half", content[: len(content) // 2]), ("empty", b""), ("text", b"not weights")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            score_sde.read(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be read"):
        score_sde.read(tmp_path / "missing.pth")
    for name, odd in (("list", [torch.zeros(1)]), ("words", {"weights": "here"}), ("nothing", {})):
        torch.save(odd, tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{name}: (expected|no weights)"):
            score_sde.read(tmp_path / name)


def test_a_flipped_bit_among_the_weights_is_noticed(tmp_path):
    network, whole = TINY.build((3, 8, 8)), tmp_path / "checkpoint.pth"
    _written(whole, network)
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 1
    whole.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        score_sde.read(whole)


# --- as runs ----------------------------------------------------------------------------------------------------------


def _recipe(network=TINY):
    from sdekit.sdes.diffusion import VE
    from sdekit_generative.data import DataRange, Folder
    from sdekit_generative.model import Song2021
    from sdekit_generative.recipes import Recipe

    return Recipe(Folder(), VE(0.01, 50.0), DataRange(0.0, 1.0), Song2021(), network)


def _command(tmp_path, *more):
    import json

    from sdekit_generative.cli import main
    from sdekit_generative.recipes import encode

    (tmp_path / "recipe.json").write_text(json.dumps(encode(_recipe())))
    arguments = ["import", str(tmp_path / "checkpoint.pth"), "--recipe", str(tmp_path / "recipe.json")]
    return main([*arguments, "--out", str(tmp_path / "run"), *more])


def test_a_checkpoint_becomes_a_run_that_is_sampled_with_its_averages(tmp_path, capsys):
    import sdekit_generative as sg

    network = TINY.build((3, 8, 8))
    state = _written(tmp_path / "checkpoint.pth", network)
    assert _command(tmp_path, "--size", "8") == 0
    assert "156 averaged weights at step 7, with the optimiser's state" in capsys.readouterr().out
    model = sg.load(tmp_path / "run")
    back = score_sde.state_dict(model.network)
    assert torch.equal(back["all_modules.5.Conv_2.weight"], 2.0 * state["all_modules.5.Conv_2.weight"])
    assert model.shape == (3, 8, 8)
    assert sg.generate(model, 1, sampler=sg.Song2021PC(steps=2)).isfinite().all()


def test_raw_weights_and_moments_of_the_optimiser_go_along(tmp_path):
    from sdekit_generative.run import Run

    network = TINY.build((3, 8, 8))
    state = _written(tmp_path / "checkpoint.pth", network)
    assert _command(tmp_path, "--size", "8") == 0
    _, saved = Run.open(tmp_path / "run").newest()
    assert (saved.state["steps_done"], saved.state["ema_updates"]) == (7, 7)
    score_sde.load(network, state)
    raw = dict(network.named_parameters())
    assert all(torch.equal(saved.tensors["model"][name], value) for name, value in raw.items())
    moments = saved.tensors["optimizer"]
    for name, value in raw.items():
        if value.requires_grad:
            assert torch.equal(moments[f"{name}/exp_avg"], 3.0 * value)
            assert float(moments[f"{name}/step"]) == 7.0
    assert "embed.features.W/exp_avg" not in moments


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--size"),
        (("--size", "8", "--set", "network.blocks=2"), "weights are missing"),
        (("--size", "7"), "multiples of 2"),
        (("--size", "8", "--set", "network=UNetConfig"), "name another network"),
    ],
    ids=str,
)
def test_an_import_that_does_not_fit_says_so_in_one_line_and_writes_nothing(tmp_path, capsys, more, said):
    _written(tmp_path / "checkpoint.pth", TINY.build((3, 8, 8)))
    assert _command(tmp_path, *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not Path(tmp_path / "run").exists()
