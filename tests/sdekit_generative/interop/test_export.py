import dataclasses
import json

import pytest
import safetensors
import safetensors.torch
import torch

import sdekit_generative as sg
from sdekit.sdes.diffusion import EDM, VE, VP
from sdekit_generative.errors import UserError
from sdekit_generative.interop import to_diffusers, to_safetensors
from sdekit_generative.recipes import decode

PLAIN = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "dropout": 0.0}
SKIP = {**PLAIN, "progressive": "output_skip", "progressive_input": "input_skip", "attention_resolutions": ()}
NETWORKS = {
    "DDPM": (sg.DDPMConfig(**PLAIN, attention_resolutions=(4,)), VP()),
    "DDPM with classes": (sg.DDPMConfig(**PLAIN, attention_resolutions=(8, 4), classes=3, centered=False), VP()),
    "NCSN++": (sg.NCSNppConfig(**SKIP, centered=False), VE()),
    "NCSN++ with attention": (sg.NCSNppConfig(**{**SKIP, "channels": 64, "attention_resolutions": (4,)}), VE()),
}


def _model(config, process, conventions=None):
    torch.manual_seed(0)
    network = config.build((3, 8, 8)).eval()
    for p in network.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.1)
    conventions = sg.Song2021(continuous=isinstance(process, VE)) if conventions is None else conventions
    return sg.ScoreModel(network, process, conventions, sg.DataRange(), (3, 8, 8), 256)


def test_a_file_of_weights_says_what_it_is_of(tmp_path):
    model = _model(*NETWORKS["NCSN++"])
    file = to_safetensors(model, tmp_path / "new" / "weights.safetensors")
    with safetensors.safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["sdekit"])
    again = decode(about["network"], sg.NCSNppConfig).build(tuple(about["shape"])).eval()
    again.load_state_dict(safetensors.torch.load_file(file))
    x, c = torch.rand(2, 3, 8, 8), torch.zeros(2)
    assert torch.equal(again(x, c), model.network(x, c))


@pytest.mark.parametrize("name", NETWORKS)
def test_diffusers_loads_the_folder_and_computes_the_same(tmp_path, name):
    diffusers = pytest.importorskip("diffusers")
    config, process = NETWORKS[name]
    model = _model(config, process)
    to_diffusers(model, tmp_path / "folder")
    unet, found = diffusers.UNet2DModel.from_pretrained(
        tmp_path / "folder", subfolder="unet", output_loading_info=True, low_cpu_mem_usage=False
    )
    assert not any(found.values())
    scheduler = json.loads((tmp_path / "folder" / "scheduler" / "scheduler_config.json").read_text())
    back = sg.interop.diffusers.score_model(unet, scheduler, null_label=3 if config.classes else None)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    discrete = isinstance(process, VP)
    t = torch.tensor(700.0 if discrete else 0.4, dtype=torch.float64)
    with torch.no_grad():
        expected = model(t / 999 if discrete else t, x)
        torch.testing.assert_close(back(t, x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_folder_names_its_parts_without_diffusers(tmp_path):
    to_diffusers(_model(*NETWORKS["DDPM"]), tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    scheduler = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["beta_start"], scheduler["beta_end"]) == (1e-4, 0.02)
    weights = safetensors.torch.load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    # attention that diffusers has and the network has not adds nothing
    assert not weights["up_blocks.0.attentions.0.to_out.0.weight"].any()
    assert weights["up_blocks.0.attentions.1.to_out.0.weight"].any()


@pytest.mark.parametrize(("continuous", "steps", "there"), [(True, 500, 1000), (False, 500, 500)])
def test_the_scheduler_tells_the_network_what_it_was_told(tmp_path, continuous, steps, there):
    model = _model(*NETWORKS["DDPM"], sg.Song2021(continuous, steps))
    scheduler = json.loads((to_diffusers(model, tmp_path) / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["num_train_timesteps"] == there
    process, conventions = sg.interop.diffusers.conventions(scheduler)
    back = dataclasses.replace(model, process=process, parametrisation=conventions)
    x, last = torch.rand(2, 3, 8, 8), float(there - 1)
    with torch.no_grad():
        expected = model(1.0, x)
        torch.testing.assert_close(back(last, x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("config", "process", "conventions", "said"),
    [
        (sg.UNetConfig(8, (1, 2), 1, ()), VP(), None, "UNet has no counterpart"),
        (sg.DDPMppConfig(**PLAIN), VP(), None, "residual is 'biggan'"),
        (dataclasses.replace(NETWORKS["NCSN++"][0], progressive="residual"), VE(), None, "progressive is 'residual'"),
        (sg.NCSNppConfig(**{**SKIP, "attention_resolutions": (4,)}), VE(), None, "128 channels"),
        (sg.DDPMConfig(**{**PLAIN, "multipliers": (2, 2)}), VP(), None, "multipliers begin with 2"),
        (NETWORKS["DDPM"][0], EDM(), None, "no scheduler"),
        (NETWORKS["DDPM"][0], VP(), sg.PredictVelocity(), "PredictVelocity"),
    ],
    ids=str,
)
def test_what_has_no_counterpart_is_refused_by_the_option_in_the_way(tmp_path, config, process, conventions, said):
    with pytest.raises(UserError, match=said):
        to_diffusers(_model(config, process, conventions), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("to", ["safetensors", "diffusers", "score-sde"])
def test_the_command_writes_what_a_run_can_be_and_says_what_it_cannot(tmp_path, tiny_run, capsys, to):
    from sdekit_generative.cli import main

    status = main(["export", str(tiny_run), "--out", str(tmp_path / "out"), "--to", to])
    if to == "safetensors":
        assert status == 0
        assert len(safetensors.torch.load_file(tmp_path / "out")) > 0
        assert main(["export", str(tiny_run), "--out", str(tmp_path / "out"), "--to", to]) == 2
        assert "exists" in capsys.readouterr().err
    else:
        assert status == 2
        assert "UNet" in capsys.readouterr().err
