"""Forged pictures: each is what its name says, and all but the copy share their background."""

import numpy as np
import pytest

from disendiff_lite.emoji_world.draw.probes import RIGHT, forge_alone, forge_together
from disendiff_lite.runs.references import load_reference, reference_names
from disendiff_lite.support.errors import UserError

PAIRS = [name for name in reference_names() if len(load_reference(name).classes) == 2]


def pixels(picture) -> np.ndarray:
    return np.asarray(picture, dtype=float)


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_has_its_pictures(name):
    forged, reference = forge_together(name, seed=0), load_reference(name)
    assert all(word in forged.prompt for word in reference.classes) and "<" not in forged.prompt
    assert np.array_equal(pixels(forged.pictures["copy"]), pixels(reference.picture))
    assert {picture.size for picture in forged.pictures.values()} == {(64, 64)}
    made = [pixels(picture) for picture in forged.pictures.values()]
    assert all(np.abs(a - b).mean() > 1 for i, a in enumerate(made) for b in made[:i])
    for kind, picture in forged.pictures.items():
        if kind != "copy":
            assert np.abs(pixels(picture)[:4] - pixels(forged.pictures[RIGHT])[:4]).max() < 1.1  # the sky


def test_a_thing_alone_is_compared_with_the_other():
    own, other = forge_alone("cat_dog", 0, seed=0), forge_alone("cat_dog", 1, seed=0)
    assert "cat" in own.prompt and "dog" not in own.prompt
    assert np.array_equal(pixels(own.pictures["the other"]), pixels(other.pictures[RIGHT]))
    mean = (pixels(own.pictures[RIGHT]) + pixels(own.pictures["the other"])) / 2
    assert np.abs(pixels(own.pictures["blended"]) - mean).max() <= 1
    assert np.abs(pixels(own.pictures["stranger"]) - pixels(own.pictures[RIGHT])).mean() > 1


def test_the_seed_decides():
    once, again, other = (forge_together("cow_bird", seed=seed).pictures["strangers"] for seed in (1, 1, 2))
    assert np.array_equal(pixels(once), pixels(again)) and not np.array_equal(pixels(once), pixels(other))


@pytest.mark.parametrize("name", ["cat_dog_bird", "zebra_lion"])
def test_only_pairs_are_forged(name):
    with pytest.raises(UserError, match="such as cat_dog"):
        forge_together(name, seed=0)
