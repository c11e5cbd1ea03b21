"""Probes and line-ups: each is what its name says, and probes of one prompt, all but the copy, share a background."""

from functools import partial

import numpy as np
import pytest

from disendiff_lite.emoji_world.draw.draw_references import draw_reference
from disendiff_lite.emoji_world.draw.pairs import draw
from disendiff_lite.emoji_world.draw.probes import SAME_DESIGN, draw_alone, draw_line_up, draw_together
from disendiff_lite.evaluate.probes import RIGHT, RIVALS, line_up, probes_alone, probes_together
from disendiff_lite.runs.references import load_reference, pair_names
from disendiff_lite.support.errors import UserError

PAIRS = pair_names()


def pixels(picture) -> np.ndarray:
    return np.asarray(picture, dtype=float)


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_has_its_pictures(name):
    probes, reference = draw_together(name, seed=0), load_reference(name)
    assert all(word in probes.prompt for word in reference.classes) and "<" not in probes.prompt
    assert np.array_equal(pixels(probes.pictures["copy"]), pixels(reference.picture))
    assert {picture.size for picture in probes.pictures.values()} == {(64, 64)}
    arrays = [pixels(picture) for picture in probes.pictures.values()]
    assert all(np.abs(a - b).mean() > 1 for i, a in enumerate(arrays) for b in arrays[:i])
    for kind, picture in probes.pictures.items():
        if kind != "copy":
            assert np.abs(pixels(picture)[:4] - pixels(probes.pictures[RIGHT])[:4]).max() < 1.1  # the sky


@pytest.mark.parametrize("index", [0, 1])
def test_a_thing_alone_is_compared_with_the_other(index):
    probes, classes = draw_alone("cat_dog", index, seed=0), load_reference("cat_dog").classes
    assert classes[index] in probes.prompt and classes[1 - index] not in probes.prompt
    mean = (pixels(probes.pictures[RIGHT]) + pixels(probes.pictures["the other"])) / 2
    assert np.abs(pixels(probes.pictures["blended"]) - mean).max() <= 1
    assert np.abs(pixels(probes.pictures["stranger"]) - pixels(probes.pictures[RIGHT])).mean() > 1


@pytest.mark.parametrize("name", PAIRS)
def test_each_thing_alone_has_a_backdrop_of_its_own(name):
    first, second = (draw_alone(name, index, seed=0) for index in (0, 1))
    assert first.prompt.split(" on ")[-1] != second.prompt.split(" on ")[-1]
    assert np.abs(pixels(first.pictures["blended"]) - pixels(second.pictures["blended"])).mean() > 1


def test_the_seed_decides():
    once, again, other = (draw_together("cow_bird", seed=seed).pictures["strangers"] for seed in (1, 1, 2))
    assert np.array_equal(pixels(once), pixels(again)) and not np.array_equal(pixels(once), pixels(other))


@pytest.mark.parametrize("name", ["rabbit_fish", "zebra_lion"])
def test_only_what_is_shipped_has_probes(name):
    for draws in (draw_together, partial(draw_alone, index=0), partial(draw_line_up, index=0)):
        with pytest.raises(UserError, match="such as cat_dog"):
            draws(name, seed=0)
    for other in ("cat_dog_bird", "dog_dog"):
        with pytest.raises(UserError, match="such as cat_dog"):
            draw_together(other, seed=0)
        for index in range(len(load_reference(other).classes)):
            drawn, shipped = draw_alone(other, index, seed=0), probes_alone(other, index)
            assert drawn.prompt == shipped.prompt and list(drawn.pictures) == list(shipped.pictures)
            for kind, picture in drawn.pictures.items():
                assert np.array_equal(pixels(picture), pixels(shipped.pictures[kind]))


def test_the_shipped_probes_are_what_the_world_draws():
    shipped = [probes_together("cat_dog"), *(probes_alone("cat_dog", index) for index in (0, 1))]
    again = [draw_together("cat_dog", seed=0), *(draw_alone("cat_dog", index, seed=0) for index in (0, 1))]
    for probes, other in zip(shipped, again, strict=True):
        assert probes.prompt == other.prompt and list(probes.pictures) == list(other.pictures)
        for kind, picture in probes.pictures.items():
            assert np.array_equal(pixels(picture), pixels(other.pictures[kind]))


@pytest.mark.parametrize("name", PAIRS)
def test_a_line_up_begins_with_the_individual(name):
    for index, thing in enumerate(draw(name).things):
        (own, *others), pictures = draw_line_up(name, index, seed=0)
        assert (own.design, own.colour) == (thing.design, thing.colour)
        assert len(others) == RIVALS and {other.design.class_ for other in others} == {thing.design.class_}
        assert all(other.design == own.design and other.colour != own.colour for other in others[:SAME_DESIGN])
        assert {picture.getpixel((0, 0)) for picture in pictures} == {(127, 127, 127)}


@pytest.mark.parametrize("index", [0, 1])
def test_the_shipped_line_ups_are_what_the_world_draws(index):
    pictures = draw_line_up("cat_dog", index, seed=0)[1]
    for shipped, picture in zip(line_up("cat_dog", index), pictures, strict=True):
        rows, columns = np.nonzero((np.asarray(picture) != 127).any(axis=2))
        cut = picture.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        assert np.array_equal(pixels(shipped), pixels(cut))


def test_a_crop_holds_its_own_thing_alone():
    for name in ("cat_dog", "horse_dog", "cat_dog_bird"):
        scene, crops = draw(name), draw_reference(name).crops
        for index, crop in enumerate(crops):
            alone = draw(name, only=index)
            own, others = scene.masks[index], np.delete(scene.masks, index, axis=0).any(axis=0)
            assert len(alone.things) == 1 and (alone.picture[own] == scene.picture[own]).mean() > 0.9
            rows, columns = np.nonzero(alone.masks[0])
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            hidden = others[box] & ~alone.masks[0][box]  # where the other thing stood beside this one in the box
            inner = np.asarray(crop)[1 : 1 + hidden.shape[0], 1 : 1 + hidden.shape[1]]
            assert (inner[hidden] != scene.picture[box][hidden]).any(axis=1).mean() > 0.8 or not hidden.any()
