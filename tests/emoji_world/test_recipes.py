"""Recipes compared at equal compute: what compute is, and a table from real, very short trainings."""

import numpy as np
import pytest
import torch

from disendiff_lite.emoji_world.draw.dataset import Scenes
from disendiff_lite.emoji_world.train import recipes
from disendiff_lite.emoji_world.train.architecture import CHANNELS
from disendiff_lite.emoji_world.train.unet import UnetTraining
from disendiff_lite.support.errors import UserError


def scenes(count: int) -> Scenes:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return Scenes(
        pictures,
        random.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8),
        ["photo of a cat"] * count,
        [["cat"]] * count,
    )


@pytest.mark.slow
def test_compute_grows_with_width_and_depth_and_not_with_the_machine():
    shipped = recipes.gflop_per_image(CHANNELS, 1)
    assert shipped == recipes.gflop_per_image(CHANNELS, 1)
    assert recipes.gflop_per_image((64, 112), 1) < shipped < recipes.gflop_per_image(CHANNELS, 2)


def test_recipes_differ_from_the_shipped_one_by_settings_that_exist():
    assert recipes.RECIPES["shipped"] == recipes.Recipe()
    for name, recipe in recipes.RECIPES.items():
        UnetTraining(**recipe.training)
        assert name == "shipped" or recipe != recipes.Recipe()


@pytest.mark.slow
def test_recipes_see_as_many_images_as_their_compute_allows_and_are_trained_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(recipes, "load_scenes", lambda folder, count, **_: scenes(count))
    monkeypatch.setattr(
        recipes,
        "RECIPES",
        {
            "small": recipes.Recipe({"batch": 2}, channels=(32, 32)),
            "larger": recipes.Recipe({"batch": 2}, channels=(32, 64)),
        },
    )
    budget = 6.5 * recipes.gflop_per_image((32, 32), 1)

    def table():
        return recipes.compare(["small", "larger"], tmp_path, gflop=budget, scenes=8, seed=0, device="cpu")

    first = table()
    assert first[0] == recipes.HEADER and [line[0] for line in first[1:]] == ["small", "larger"]
    assert first[1][2] == "6" and 0 < int(first[2][2]) < 6
    assert "unet step 3/3" in capsys.readouterr().out
    assert table() == first and "unet step" not in capsys.readouterr().out


def test_an_unknown_recipe_is_named_with_the_nearest_one(tmp_path):
    with pytest.raises(UserError, match="There is no recipe 'batch-7': did you mean 'batch-6'"):
        recipes.compare(["batch-7"], tmp_path, gflop=1, scenes=8, seed=0, device="cpu")
