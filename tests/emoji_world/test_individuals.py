"""Learning unseen individuals: who they are, whom they are told apart from, and that the scorer can do so."""

import colorsys

import numpy as np
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.emoji_world.check import individuals
from disendiff_lite.emoji_world.check.table import share_row, table
from disendiff_lite.emoji_world.draw.rivals import rivals
from disendiff_lite.emoji_world.draw.scenes import Scene, render
from disendiff_lite.emoji_world.draw.views import picture_of
from disendiff_lite.emoji_world.draw.world import is_held_out_hue
from disendiff_lite.evaluate.clip import load_scorer


def test_individuals_are_unseen_and_of_different_classes():
    unseen = individuals.unseen_individuals(6, seed=0)
    assert all(one.design.held_out for one in unseen) and len({one.design.class_ for one in unseen}) == 6
    assert [one.colour is not None for one in unseen] == [False, True] * 3
    assert unseen == individuals.unseen_individuals(6, seed=0) != individuals.unseen_individuals(6, seed=1)


def test_a_drawn_individual_is_recognised_and_a_rival_is_not():
    scorer, rng = load_scorer("emoji", "cpu"), np.random.default_rng(1)
    right, wrong = [], []
    for individual in individuals.unseen_individuals(4, seed=0):
        others = rivals(individual, rng, individuals.CANDIDATES - 1)
        for one, answers in ((individual, right), (others[0], wrong)):
            renderings = [Image.fromarray(picture_of([one], rng).picture) for _ in range(8)]
            answers += individuals.recognise(scorer, renderings, [individual, *others], rng).tolist()
    assert np.mean(right) > 0.75 and np.mean(wrong) < 0.15


def test_learning_an_individual_gives_one_answer_a_picture(tiny_pipe, monkeypatch):
    monkeypatch.setattr(individuals, "load_pipeline", lambda model: tiny_pipe)
    config = emoji(method="custom_diffusion", steps=1, prior_images=1, batch_size=1, inference_steps=2)
    (result,) = individuals.learn_individuals("tiny", load_scorer("emoji", "cpu"), config, count=1, pictures=3, seed=0)
    assert result.pictures.shape == result.renderings.shape == (3,)
    assert result.class_ == individuals.unseen_individuals(1, seed=0)[0].design.class_


def test_a_row_on_learned_individuals_is_printed_with_the_scorers_own_share():
    row = share_row("individual learned", np.array([True, False]), target=0.9, chance=0.05, judge=0.875)
    assert table([row]).splitlines()[1].endswith("5.0%       87.5%")


def test_half_of_the_individuals_have_held_out_hues():
    coloured = [one.colour for one in individuals.unseen_individuals(6, seed=2) if one.colour]
    assert all(is_held_out_hue(360 * colorsys.rgb_to_hsv(*colour)[0]) for colour in coloured)


def test_the_crop_of_a_scene_is_its_thing():
    scene = render(Scene((individuals.unseen_individuals(1, seed=0)[0],), "snow", ""), np.random.default_rng(0))
    rows, columns = np.nonzero(scene.masks[0])
    assert individuals.crop(scene, 0).size == (np.ptp(columns) + 3, np.ptp(rows) + 3)
