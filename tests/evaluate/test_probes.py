"""The shipped probes: every pair has them, and what is no pair is named in one sentence."""

import numpy as np
import pytest

from disendiff_lite.evaluate.probes import RIGHT, RIVALS, has_probes, line_up, probes_alone, probes_together
from disendiff_lite.runs.references import load_reference, pair_names
from disendiff_lite.support.errors import UserError

PAIRS = pair_names()
TOGETHER = [RIGHT, "copy", "blended", "colours swapped", "strangers", "other classes"]
ALONE = [RIGHT, "blended", "the other's colour", "stranger", "the other"]


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_has_its_probes(name):
    reference, together = load_reference(name), probes_together(name)
    assert list(together.pictures) == TOGETHER and all(class_ in together.prompt for class_ in reference.classes)
    assert np.array_equal(np.asarray(together.pictures["copy"]), np.asarray(reference.picture))
    for index, class_ in enumerate(reference.classes):
        alone = probes_alone(name, index)
        assert list(alone.pictures) == ALONE and class_ in alone.prompt
        assert {(picture.size, picture.mode) for picture in alone.pictures.values()} == {((64, 64), "RGB")}


@pytest.mark.parametrize("name", PAIRS)
def test_the_two_blends_of_a_pair_differ(name):
    first, second = (np.asarray(probes_alone(name, index).pictures["blended"], dtype=float) for index in (0, 1))
    assert np.abs(first - second).mean() > 1


@pytest.mark.parametrize("name", PAIRS)
def test_every_thing_has_its_line_up(name):
    for index in range(2):
        pictures = [picture.resize((32, 32)) for picture in line_up(name, index)]
        arrays = [np.asarray(picture, dtype=float) for picture in pictures]
        assert len(arrays) == 1 + RIVALS
        assert all(np.abs(a - b).mean() > 1 for i, a in enumerate(arrays) for b in arrays[:i])


def test_a_line_up_is_cut_out():
    # All but the corners of its thing are gone: each edge of a picture has something that is not grey.
    for picture in map(np.asarray, line_up("cat_dog", 0)):
        assert all((edge != 127).any() for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]))


@pytest.mark.parametrize("name", ["cat_dog_bird", "dog_dog"])
def test_other_references_have_probes_of_each_thing_alone(name):
    for index, class_ in enumerate(load_reference(name).classes):
        alone = probes_alone(name, index)
        thirds = ["the third's colour"] if name == "cat_dog_bird" else []
        assert list(alone.pictures) == [*ALONE[:3], *thirds, *ALONE[3:]] and class_ in alone.prompt
        assert len(line_up(name, index)) == 1 + RIVALS
    with pytest.raises(UserError, match="no such probes of"):
        probes_together(name)


def test_the_other_of_a_class_is_a_rival():
    (first, second, *_), (again, one, *_) = (line_up("dog_dog", index) for index in (0, 1))
    assert np.array_equal(np.asarray(first), np.asarray(one)) and np.array_equal(np.asarray(second), np.asarray(again))


@pytest.mark.parametrize("name", ["rabbit_fish", "zebra_lion", "paper/cat_dog"])
def test_what_has_no_probes_is_named_in_one_sentence(name):
    sentence = f"^There are no such probes of {name}: choose a shipped pair, such as cat_dog.$"
    assert not has_probes(name) and has_probes("cat_dog")
    with pytest.raises(UserError, match=sentence):
        probes_together(name)
    with pytest.raises(UserError, match=sentence):
        probes_alone(name, 0)
    with pytest.raises(UserError, match=sentence):
        line_up(name, 0)
