"""Every recipe builds what the paper says, and the small ones train."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from sdekit.sdes.diffusion import VE, SubVP
from sdekit_generative.cli import main
from sdekit_generative.data import DataRange
from sdekit_generative.errors import CheckpointError, DataError, RecipeError, RunError
from sdekit_generative.model import ClassifierGuided
from sdekit_generative.recipes import RECIPES, Recipe, find, override
from sdekit_generative.run import load, load_classifier, reconstruct
from sdekit_generative.train import begin, resume
from sdekit_generative.training import Stop

# millions of parameters, as counted of the published code
MILLIONS = {
    "cifar10-ncsnpp-ve": ((3, 32, 32), 62.759),
    "cifar10-ncsnpp-vp": ((3, 32, 32), 62.693),
    "cifar10-ncsnpp-ve-deep": ((3, 32, 32), 107.587),
    "cifar10-ncsnpp-subvp-deep": ((3, 32, 32), 107.521),
    "cifar10-ddpmpp-vp": ((3, 32, 32), 61.804),
    "cifar10-ddpmpp-subvp-deep": ((3, 32, 32), 106.633),
    "cifar10-ddpm-vp-discrete": ((3, 32, 32), 35.219),
    "ffhq-256": ((3, 256, 256), 65.575),
    "ffhq-1024": ((3, 1024, 1024), 105.786),
    "lsun-church-256-ddpm": ((3, 256, 256), 111.570),
}


@pytest.mark.parametrize("name", MILLIONS)
def test_networks_have_as_many_parameters_as_the_published_ones(name):
    shape, millions = MILLIONS[name]
    with torch.device("meta"):
        network = RECIPES[name].network.build(shape)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=2e-3)


def test_the_schedules_are_the_published_ones():
    ve, deep, large = RECIPES["cifar10-ncsnpp-ve"], RECIPES["cifar10-ddpmpp-vp-deep"], RECIPES["lsun-bedroom-256"]
    assert (ve.process, ve.training.ema, ve.loss.reduce_mean) == (VE(0.01, 50.0, t_min=1e-5), 0.999, False)
    assert (deep.training.steps, deep.training.ema, deep.loss.reduce_mean) == (950_000, 0.9999, True)
    assert (large.process.sigma_max, large.training.batch, large.network.dropout) == (378.0, 64, 0.0)
    assert ve.data_range.low == 0.0
    assert deep.data_range.low == -1.0
    assert RECIPES["cifar10-ddpmpp-subvp"].process == SubVP(t_min=1e-5)


def test_the_levels_of_the_largest_images_and_of_ncsnv2_are_the_published_ones():
    for name, steps in (("cifar10-ncsnpp-ve", 1000), ("ffhq-256", 2000), ("celebahq-1024", 2000)):
        assert RECIPES[name].parametrisation.steps == RECIPES[name].network.levels == steps
    for name, sigma_max, levels in (
        ("cifar10-ncsnv2", 50.0, 232),
        ("celeba-64-ncsnv2", 90.0, 500),
        ("lsun-bedroom-128-ncsnv2", 190.0, 1086),
    ):
        recipe = RECIPES[name]
        assert recipe.process == VE(0.01, sigma_max, t_min=1e-5)
        assert recipe.loss.levels == recipe.parametrisation.steps == recipe.network.levels == levels
        assert not recipe.parametrisation.continuous
        assert (recipe.training.learning_rate, recipe.training.warmup, recipe.training.clip) == (1e-4, 0, None)


def test_forty_four_recipes_have_names_that_can_be_guessed():
    assert len(RECIPES) == 44
    with pytest.raises(RecipeError, match="did you mean cifar10-ncsnpp-ve"):
        find("cifar10-ncsnpp-veh")


SMALL = {"network.channels": "8", "network.multipliers": "1,2", "network.blocks": "1", "data": "Digits"}
LITTLE = {"training.steps": "2", "training.batch": "4", "training.sample_every": "0", "training.measure_every": "0"}


def _small(name: str) -> Recipe:
    recipe = RECIPES[name]
    fields = {f.name for f in dataclasses.fields(recipe.network)}
    changes = {p: v for p, v in SMALL.items() if not p.startswith("network.") or p.split(".")[1] in fields}
    if "attention_resolutions" in fields:
        changes["network.attention_resolutions"] = "4"
    elif "attention" in fields:
        changes["network.attention"] = "1"
    if "dilations" in fields:
        changes["network.dilations"] = "1,2"
    if "widening" in fields:
        changes |= {"network.widening": "1"}
    return override(recipe, changes | LITTLE)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_when_its_network_is_made_small_and_its_images_are_the_digits(name, tmp_path):
    job = begin(tmp_path / "run", _small(name))
    first = job.trainer.step()
    assert first == pytest.approx(first)  # finite
    assert job.trainer.step() == pytest.approx(0.0, abs=1e9)


def test_a_network_told_classes_learns_them_and_is_guided_by_them(tmp_path):
    recipe = override(_small("digits-classes"), {"training.steps": "3", "training.label_dropout": "0.5"})
    job = begin(tmp_path / "run", recipe)
    seen = []
    conditioned = job.trainer._conditioned

    def watched(*arguments):
        model = conditioned(*arguments)
        seen.append(model.labels)
        return model

    job.trainer._conditioned = watched
    job.train(Stop(), lambda step, loss: None)
    told = torch.cat(seen)
    assert ((told >= -1) & (told < 10)).all()
    assert (told == -1).any()
    assert (told >= 0).any()
    model = load(tmp_path / "run")
    x = torch.randn(2, 1, 8, 8)
    labels = torch.tensor([3, 7])
    between = model.conditional(labels, guidance=2.0)(0.5, x)
    with_class, without = model.conditional(labels)(0.5, x), model(0.5, x)
    assert torch.allclose(between, without + 2.0 * (with_class - without), atol=1e-5)


def test_classes_that_are_missing_or_too_many_are_said(tmp_path):
    np.save(tmp_path / "plain.npy", np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8))
    for name in ("digits-classes", "digits-classifier"):
        recipe = override(_small(name), {"data": "Folder", "data.path": str(tmp_path / "plain.npy")})
        with pytest.raises(DataError, match="these have none"):
            begin(tmp_path / "run", recipe)
    with pytest.raises(DataError, match=r"set network\.classes to 10, not 4"):
        begin(tmp_path / "run", override(_small("digits-classes"), {"network.classes": "4"}))


def test_a_classifier_is_trained_loaded_and_guides(tmp_path, capsys):
    recipe = override(_small("digits-classifier"), {"training.measure_every": "1"})
    begin(tmp_path / "run", recipe).train(Stop(), lambda step, loss: None)
    classifier = load_classifier(tmp_path / "run", which="best")
    x, c = torch.randn(3, 1, 8, 8), torch.zeros(3)
    assert classifier(x, c).shape == (3, 10)
    with pytest.raises(RunError, match="a run of a classifier"):
        load(tmp_path / "run")
    begin(tmp_path / "score", _small("digits")).train(Stop(), lambda step, loss: None)
    with pytest.raises(RunError, match="and no classifier"):
        load_classifier(tmp_path / "score")
    guided = ClassifierGuided(load(tmp_path / "score"), classifier, torch.tensor([1, 2, 3]), guidance=2.0)
    assert torch.isfinite(guided(0.5, x)).all()
    command = ["edit", "towards", str(tmp_path / "score"), "--classifier", str(tmp_path / "run"), "--steps", "2"]
    assert main([*command, "--label", "3", "--n", "2", "--out", str(tmp_path / "threes.png")]) == 0
    about = json.loads((tmp_path / "threes.json").read_text())
    assert about["classifier"] == str(tmp_path / "run")
    assert about["network_evaluations"] == 3  # the last takes out what noise is left
    assert main([*command, "--label", "10", "--n", "2", "--out", str(tmp_path / "tens.png")]) == 2
    assert "the classifier knows classes 0 to 9" in capsys.readouterr().err
    other = dataclasses.replace(load(tmp_path / "score"), data_range=DataRange(0.0, 1.0))
    with pytest.raises(RunError, match=r"in \[-1, 1\], and the model makes \(1, 8, 8\) in \[0, 1\]"):
        load_classifier(tmp_path / "run", guides=other)


@pytest.mark.slow
def test_the_small_classifier_knows_the_digits_where_there_is_little_noise(tmp_path):
    recipe = override(RECIPES["digits-classifier"], {"training.steps": "300", "training.cooldown": "1.0"})
    job = begin(tmp_path / "run", recipe)
    job.train(Stop(), lambda step, loss: None)
    classifier, held_out = load_classifier(tmp_path / "run"), job.held_out
    x = held_out.images.float() * 2 / 17 - 1 + 1 / 17
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for sigma, least in ((0.1, 0.93), (0.5, 0.85)):
            noisy = x + sigma * torch.randn(x.shape, generator=generator)
            right = classifier(noisy, torch.full((len(x),), sigma).log()).argmax(1) == held_out.labels
            assert float(right.float().mean()) > least


def test_averages_of_any_width_are_put_together_from_the_snapshots_of_a_run(tiny, tmp_path):
    tiny = override(tiny, {"training.steps": "60", "training.batch": "4", "training.save_every": "60"})
    kept = override(tiny, {"training.power_ema": "0.05,0.2", "training.snapshot_every": "6"})
    begin(tmp_path / "run", kept).train(Stop(), lambda step, loss: None)
    wide = override(tiny, {"training.power_ema": "0.1"})
    job = begin(tmp_path / "direct", wide)
    job.train(Stop(), lambda step, loss: None)
    direct = job.trainer.power_emas[0].averages
    start = begin(tmp_path / "start", tiny).trainer.ema.averages
    found = reconstruct(tmp_path / "run", 0.1)
    moved = max(float((direct[n] - start[n]).abs().max()) for n in direct)
    off = max(float((found[n] - direct[n]).abs().max()) for n in direct)
    assert off < 0.05 * moved
    exact = reconstruct(tmp_path / "run", 0.05)
    own = begin(tmp_path / "own", override(tiny, {"training.power_ema": "0.05"}))
    own.train(Stop(), lambda step, loss: None)
    assert all(torch.allclose(exact[n], own.trainer.power_emas[0].averages[n], atol=1e-6) for n in exact)
    model = load(tmp_path / "run", average=0.1)
    assert all(torch.equal(p, found[n]) for n, p in model.network.named_parameters())
    with pytest.raises(CheckpointError, match="kept no snapshots"):
        reconstruct(tmp_path / "start", 0.1)


def test_snapshots_survive_an_interruption(tiny, tmp_path):
    kept = override(tiny, {"training.power_ema": "0.05", "training.snapshot_every": "3"})
    begin(tmp_path / "whole", kept).train(Stop(), lambda step, loss: None)
    begin(tmp_path / "run", override(kept, {"training.steps": "7"})).train(Stop(), lambda step, loss: None)
    job = resume(tmp_path / "run", lambda recipe: override(recipe, {"training.steps": "12"}))
    job.train(Stop(), lambda step, loss: None)
    ours, theirs = reconstruct(tmp_path / "run", 0.1), reconstruct(tmp_path / "whole", 0.1)
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
