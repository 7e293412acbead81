from types import SimpleNamespace

import pytest

import sdekit_generative as sg
from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit_generative.data import DataRange
from sdekit_generative.errors import UserError
from sdekit_generative.interop.score_sde import entries, settings

CIFAR10 = {
    "data": {"image_size": 32, "centered": False, "num_channels": 3, "random_flip": True},
    "training": {"sde": "vesde", "continuous": True},
    "model": {
        "name": "ncsnpp",
        "sigma_min": 0.01,
        "sigma_max": 50,
        "num_scales": 1000,
        "beta_min": 0.1,
        "beta_max": 20.0,
        "dropout": 0.1,
        "embedding_type": "fourier",
        "scale_by_sigma": True,
        "nonlinearity": "swish",
        "nf": 128,
        "ch_mult": (1, 2, 2, 2),
        "num_res_blocks": 4,
        "attn_resolutions": (16,),
        "resamp_with_conv": True,
        "conditional": True,
        "fir": True,
        "fir_kernel": [1, 3, 3, 1],
        "skip_rescale": True,
        "resblock_type": "biggan",
        "progressive": "none",
        "progressive_input": "residual",
        "progressive_combine": "sum",
        "attention_type": "ddpm",
        "init_scale": 0.0,
        "fourier_scale": 16,
        "conv_size": 3,
    },
}


def _changed(**sections):
    return {name: {**section, **sections.get(name, {})} for name, section in CIFAR10.items()}


def test_the_published_configuration_is_the_default_network_in_the_unit_interval():
    found = settings(CIFAR10)
    assert found.network == sg.NCSNppConfig(centered=False)
    assert (found.process, found.parametrisation) == (VE(0.01, 50.0), sg.Song2021())
    assert (found.data_range, found.shape) == (DataRange(0.0, 1.0), (3, 32, 32))


def test_sections_may_be_attributes():
    config = SimpleNamespace(**{name: SimpleNamespace(**section) for name, section in CIFAR10.items()})
    assert settings(config) == settings(CIFAR10)


def test_centred_discrete_vp_networks_are_ddpm_plus_plus():
    change = {"embedding_type": "positional", "fir": False, "progressive_input": "none", "scale_by_sigma": False}
    found = settings(_changed(data={"centered": True}, training={"sde": "vpsde", "continuous": False}, model=change))
    assert found.network == sg.NCSNppConfig(
        embedding="positional", fir=False, progressive_input="none", scale_by_sigma=False
    )
    assert found.process == VP(0.1, 20.0, t_min=1e-5)
    assert found.parametrisation == sg.Song2021(continuous=False, steps=1000)
    assert found.data_range == DataRange(-1.0, 1.0)


def test_ddpm_ignores_options_that_it_does_not_have():
    found = settings(_changed(training={"sde": "subvpsde"}, model={"name": "ddpm", "num_res_blocks": 2, "nf": 64}))
    assert found.network == sg.DDPMConfig(channels=64, scale_by_sigma=True, centered=False)
    assert found.process == SubVP(0.1, 20.0, t_min=1e-5)


@pytest.mark.parametrize(("name", "stages"), [("ncsnv2_64", 4), ("ncsnv2_128", 5), ("ncsnv2_256", 6)])
def test_ncsnv2_grows_with_the_images(name, stages):
    change = {"name": name, "num_scales": 232, "nf": 4, "nonlinearity": "elu"}
    found = settings(_changed(model=change, training={"continuous": False}))
    assert isinstance(found.network, sg.NCSNv2Config)
    assert (len(found.network.multipliers), found.network.levels) == (stages, 232)


def test_a_model_is_built_and_a_recipe_changed():
    found = settings(_changed(model={"nf": 8, "num_res_blocks": 1}, data={"image_size": 16}))
    model = found.build()
    assert model.shape == (3, 16, 16)
    assert entries(model.network)[0].key == "all_modules.0.W"
    recipe = sg.Recipe(**found.for_recipe())
    assert (recipe.network, recipe.process) == (found.network, found.process)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "no model"),
        (_changed(model={"name": "ncsn"}), "model.name"),
        (_changed(training={"sde": "rectified"}), "training.sde"),
        (_changed(model={"progressive": "sideways"}), "progressive"),
    ],
    ids=["empty", "network", "process", "option"],
)
def test_what_is_not_known_is_refused(config, said):
    with pytest.raises(UserError, match=said):
        settings(config)
