import dataclasses
import json

import pytest

from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit_generative.data import Folder
from sdekit_generative.errors import RecipeError
from sdekit_generative.losses import FocusedNoiseLevel, PerceptualWeighting, UniformTime
from sdekit_generative.model import PredictNoise
from sdekit_generative.recipes import DIGITS, RECIPES, Recipe, decode, differences, encode, find, override, suggest


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    assert decode(json.loads(json.dumps(encode(RECIPES[name]))), Recipe) == RECIPES[name]


def test_every_part_can_be_another_kind():
    recipe = dataclasses.replace(
        DIGITS,
        data=Folder("images", size=32),
        process=SubVP(t_min=1e-4),
        parametrisation=PredictNoise(0.3),
        loss=dataclasses.replace(DIGITS.loss, weighting=PerceptualWeighting(), times=UniformTime()),
    )
    assert decode(json.loads(json.dumps(encode(recipe))), Recipe) == recipe


def test_changes_reach_any_depth_and_any_type():
    changed = override(
        DIGITS,
        {
            "training.steps": "7",
            "training.learning_rate": "1",
            "network.multipliers": "1,2,2",
            "network.attention": "[0, 1]",
            "process.sigma_max": "20",
            "process": "VE",
            "loss.times.floor": "0.5",
        },
    )
    assert (changed.training.steps, changed.training.learning_rate) == (7, 1.0)
    assert changed.network.multipliers == (1, 2, 2)
    assert changed.network.attention == (0, 1)
    assert changed.process == VE(sigma_max=20.0)
    assert isinstance(changed.loss.times, FocusedNoiseLevel)
    assert changed.loss.times.floor == 0.5
    assert override(DIGITS, {}) == DIGITS
    assert override(DIGITS, {"data": "Folder", "data.path": "a b/c"}).data == Folder("a b/c")
    assert override(DIGITS, {"data": "Folder", "data.size": "null"}).data == Folder()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("training.step", "7", "did you mean steps"),
        ("trianing.steps", "7", "did you mean training"),
        ("training.steps", "many", "training.steps: expected int"),
        ("training.steps", "7.5", "expected int"),
        ("training.steps", "true", "expected int"),
        ("training.steps", "-1", "expected 1 or more"),
        ("training.steps.more", "1", "no parts"),
        ("process", "VPP", "did you mean VP"),
        ("process", "Digits", "unknown kind Digits"),
        ("network.attention", "9", "expected levels"),
        ("data.kind", "Folder", "no kind"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_with_the_way_out(place, value, said):
    with pytest.raises(RecipeError, match=said) as caught:
        override(DIGITS, {place: value})
    assert "\n" not in str(caught.value)


def test_a_file_cannot_name_a_class_that_recipes_do_not_have():
    data = encode(DIGITS)
    data["process"] = {"kind": "os.system", "command": "true"}
    with pytest.raises(RecipeError, match="unknown kind"):
        decode(data, Recipe)
    for nonsense in (None, 3, [], "Recipe2", {"kind": 3}):
        with pytest.raises(RecipeError):
            decode(nonsense, Recipe)


def test_differences_name_the_place_and_both_values():
    other = override(DIGITS, {"training.steps": "7", "process.beta_max": "10"})
    found = differences(encode(DIGITS), encode(other))
    assert found == {"training.steps": (DIGITS.training.steps, 7), "process.beta_max": (VP().beta_max, 10.0)}


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean digits"):
        find("digit")
    with pytest.raises(RecipeError, match="digits, folder"):
        find("xyz")


def test_an_unknown_name_is_answered_by_the_nearest_or_by_all():
    assert suggest("digts", ["digits", "folder"]) == "did you mean digits?"
    assert suggest("zzz", ["digits", "folder"]) == "known: digits, folder"
