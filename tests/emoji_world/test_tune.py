"""The search for the preset: which settings are tried, and that each is trained and measured on its own."""

import pytest

from disendiff_lite.config import emoji
from disendiff_lite.emoji_world.check import tune
from disendiff_lite.emoji_world.draw.pairs import PAIRS, TUNING_PAIRS
from disendiff_lite.support.errors import UserError


def test_tuning_pairs_are_not_among_the_ten():
    assert not {frozenset(concept[0] for concept in pair[1:]) for pair in TUNING_PAIRS.values()} & {
        frozenset(concept[0] for concept in pair[1:]) for pair in PAIRS.values()
    }


def test_a_grid_holds_all_combinations():
    grid = tune.settings_grid(["learning_rate=1e-4,3e-4", "steps=5"])
    assert grid == [{"learning_rate": 1e-4, "steps": 5}, {"learning_rate": 3e-4, "steps": 5}]
    assert tune.settings_grid([]) == [{}]
    with pytest.raises(UserError, match="learning_rate"):
        tune.settings_grid(["lerning_rate=1"])


def test_an_unknown_pair_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match="There is no reference picture 'rabit_fish': did you mean 'rabbit_fish'"):
        tune.draw_reference("rabit_fish")


def test_each_setting_is_measured_on_each_pair(tiny_pipe, monkeypatch):
    def try_settings(model, scorer, reference, prior, config, *, count):
        return reference.name, config.learning_rate, len(prior.pictures)

    loaded = []
    monkeypatch.setattr(tune, "load_pipeline", lambda model: loaded.append(model) or tiny_pipe)
    monkeypatch.setattr(tune, "train", lambda *args, **kwargs: iter(()))
    monkeypatch.setattr(tune, "try_settings", try_settings)
    changes = {"prior_images": 2, "inference_steps": 2, "prior_batch": 2}
    grid = [changes | {"learning_rate": rate} for rate in (1e-4, 2e-4)]
    results = list(tune.try_grid("tiny", "dreambooth", grid, ["rabbit_fish", "house_car"], count=1))
    assert [settings for settings, _ in results] == grid
    assert results[1][1] == [("rabbit_fish", 2e-4, 2), ("house_car", 2e-4, 2)]
    assert len(loaded) == 2  # the class pictures of a pair are made once


def test_a_setting_is_trained_and_measured(tiny_pipe, monkeypatch):
    monkeypatch.setattr(tune, "load_pipeline", lambda model: tiny_pipe)
    config = emoji(method="custom_diffusion", steps=1, prior_images=1, batch_size=1, inference_steps=2)
    reference = tune.draw_reference("house_car")
    prior = tune.make_prior(tiny_pipe, reference.classes, config)
    result = tune.try_settings("tiny", tune.load_scorer("emoji", "cpu"), reference, prior, config, count=1)
    assert result.sum == pytest.approx(result.likeness + result.margin + result.together + result.prompt)
    assert -1 <= result.margin <= 1 and 0 <= result.iou <= 1 and result.seconds > 0


def test_a_row_holds_means_and_the_spread_of_the_sum():
    results = [tune.Result(0.5, 0.1, 0.6, 0.2, 0.7, 10), tune.Result(0.7, 0.3, 0.6, 0.4, 0.9, 20)]
    cells = "learning_rate=0.0001|0.600|0.200|0.600|0.300|1.700 (0.424)|0.80|15 s"
    assert tune.row({"learning_rate": 1e-4}, results) == cells.split("|")
    assert len(tune.row({}, results)) == len(tune.HEADER)
