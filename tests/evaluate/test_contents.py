"""Contents: on pictures whose truth is known, the measures see what they claim to see."""

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.evaluate.contents import (
    cut_out,
    found_classes,
    looks_scale,
    looks_share,
    measure_contents,
    own_looks,
    recognised,
)
from disendiff_lite.evaluate.probes import (
    LEAKED,
    OTHERS_COLOUR,
    RIGHT,
    THIRDS_COLOUR,
    line_up,
    probes_alone,
    probes_together,
)
from disendiff_lite.runs.generate import PictureSet, Request
from disendiff_lite.runs.references import load_reference, pair_names

PAIRS = pair_names()


@pytest.fixture(scope="module")
def together(judge, scorer):
    """For each kind of probe, (pairs, concepts): found, and looks like its own individual."""
    found, own = {}, {}
    for name in PAIRS:
        reference, probes = load_reference(name), probes_together(name).pictures
        pictures = list(probes.values())
        there, looks = found_classes(judge, pictures, reference.classes), own_looks(judge, scorer, pictures, reference)
        for kind, row in enumerate(probes):
            found.setdefault(row, []).append(there[kind])
            own.setdefault(row, []).append(looks[kind])
    return {kind: (np.array(found[kind]), np.array(own[kind])) for kind in found}


def test_success_and_mix_up_tell_the_probes_apart(together):
    success = {kind: (found & own).mean() for kind, (found, own) in together.items()}
    mix_up = {kind: (found & ~own).mean() for kind, (found, own) in together.items()}
    assert success[RIGHT] >= 0.9 and mix_up[RIGHT] <= 0.1
    assert mix_up["colours swapped"] >= 0.8 and success["colours swapped"] <= 0.15
    assert success["blended"] <= 0.2
    assert success["other classes"] == mix_up["other classes"] == 0  # nothing of what was asked for is there


def test_co_occurrence_and_omission_are_seen(judge):
    alone = {kind: [] for kind in probes_alone("cat_dog", 0).pictures}
    for name in PAIRS:
        classes = load_reference(name).classes
        for index in range(2):
            probes = probes_alone(name, index).pictures
            found = found_classes(judge, list(probes.values()), classes)
            for kind, row in zip(probes, found):
                alone[kind].append((row[index], row[1 - index]))
    own = {kind: np.mean(rows, axis=0)[0] for kind, rows in alone.items()}
    other = {kind: np.mean(rows, axis=0)[1] for kind, rows in alone.items()}
    assert own[RIGHT] == 1 and other[RIGHT] == 0
    assert own["the other"] == 0 and other["the other"] == 1
    assert other["blended"] >= 0.6  # a double exposure shows both


def test_the_individual_is_recognised_and_no_other_of_its_class(judge, scorer):
    said = {kind: [] for kind in probes_alone("cat_dog", 0).pictures}
    for name in PAIRS:
        reference = load_reference(name)
        for index in range(2):
            probes = probes_alone(name, index).pictures
            hits = recognised(judge, scorer, list(probes.values()), reference, index)
            for kind, hit in zip(probes, hits):
                said[kind].append(hit)
    share = {kind: np.mean(hits) for kind, hits in said.items()}
    assert share[RIGHT] >= 0.9 and share["stranger"] <= 0.05 and share[OTHERS_COLOUR] <= 0.15
    assert share["the other"] == 0  # the thing is not there


def test_who_is_recognised_is_the_first_of_the_line_up(judge, scorer, monkeypatch):
    reference, picture = load_reference("cat_dog"), probes_alone("cat_dog", 0).pictures[RIGHT]
    assert recognised(judge, scorer, [picture], reference, 0).tolist() == [True]
    cats = line_up("cat_dog", 0)
    monkeypatch.setattr("disendiff_lite.evaluate.contents.line_up", lambda name, index: [*cats[1:], cats[0]])
    assert recognised(judge, scorer, [picture], reference, 0).tolist() == [False]


@pytest.mark.parametrize("index", [0, 1])
def test_the_scale_of_looks_begins_and_ends_at_probes(scorer, index):
    reference, pictures = load_reference("cat_dog"), probes_alone("cat_dog", index).pictures
    low, high = looks_scale(scorer, reference, index)
    assert low < high
    share = dict(zip(pictures, looks_share(scorer, list(pictures.values()), reference, index).values))
    assert share[OTHERS_COLOUR] == pytest.approx(0, abs=1e-5) and share[RIGHT] == pytest.approx(1, abs=1e-5)
    assert share["the other"] < share["blended"] < 0


def test_a_cut_out_is_the_thing_on_grey():
    picture = Image.new("RGB", (64, 64), "red")
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:20, 30:50] = True
    mask[10, 30] = False
    cut = cut_out(picture, mask)
    assert cut.size == (20, 10) and cut.getpixel((5, 5)) == (255, 0, 0) and cut.getpixel((0, 0)) == (127, 127, 127)


def test_three_concepts_are_measured_together_in_pairs_and_alone(judge, scorer):
    reference = load_reference("cat_dog_bird")
    alone = [probes_alone("cat_dog_bird", index).pictures for index in range(3)]
    sets = {
        "combined": PictureSet(Request("combined", "", (0, 1, 2)), [reference.picture, alone[0][RIGHT]]),
        "cat and bird": PictureSet(Request("combined", "", (0, 2)), [reference.picture, alone[0][RIGHT]]),
        "dog and bird": PictureSet(Request("combined", "", (1, 2)), [alone[1][RIGHT]]),
        "bird": PictureSet(Request("independent", "", (2,)), list(alone[2].values())),
    }
    scores = measure_contents(judge, scorer, sets, reference)
    assert scores["omission"].values == (0, 1) and scores["omission, two of three"].values == (0, 1, 1)
    assert scores["success"].values == (1, 1, 1, 1, 0, 0)
    assert scores["success, two of three"].values == (1, 1, 1, 0, 1, 0)
    assert scores["co-occurrence, two of three"].values == (1, 0, 0)  # the dog, unasked
    said = dict(zip(alone[2], scores["recognised, concept 3"].values))
    assert said[RIGHT] == 1 and said["stranger"] == said["the other"] == 0
    looks = dict(zip(alone[2], scores["own looks, concept 3"].values))
    assert looks[RIGHT] == 1 and looks[OTHERS_COLOUR] == looks[THIRDS_COLOUR] == 0


def test_a_thing_in_the_third_ones_colour_is_no_success(judge, scorer):
    reference = load_reference("cat_dog_bird")
    for index in range(3):
        probes = probes_alone("cat_dog_bird", index).pictures
        own = own_looks(judge, scorer, [reference.picture, *(probes[kind] for kind in LEAKED)], reference)
        assert own[:, index].tolist() == [True, False, False]


def test_of_two_of_one_class_only_what_can_be_told_is_measured(judge, scorer):
    reference = load_reference("dog_dog")
    alone = [probes_alone("dog_dog", index).pictures for index in range(2)]
    sets = {
        "combined": PictureSet(Request("combined", "", (0, 1)), [reference.picture]),
        "dog 1": PictureSet(Request("independent", "", (0,)), [alone[0][RIGHT], alone[0]["the other"]]),
        "dog 2": PictureSet(Request("independent", "", (1,)), [alone[1][RIGHT], alone[1]["the other"]]),
    }
    scores = measure_contents(judge, scorer, sets, reference)
    assert {name.partition(",")[0] for name in scores} == {"own thing", "own looks", "recognised"}
    assert scores["own thing"].values == (1, 1, 1, 1)  # the other is a dog, too
    assert scores["recognised"].values == scores["own looks"].values == (1, 0, 1, 0)


def test_sets_of_pictures_are_measured(judge, scorer):
    reference = load_reference("cat_dog")
    right, swapped = (probes_together("cat_dog").pictures[kind] for kind in (RIGHT, "colours swapped"))
    alone = [probes_alone("cat_dog", index).pictures for index in range(2)]
    sets = {
        "combined": PictureSet(Request("combined", "", (0, 1)), [right, swapped, alone[0][RIGHT]]),
        "cat": PictureSet(Request("independent", "", (0,)), [alone[0][RIGHT], alone[0]["the other"]]),
        "dog": PictureSet(Request("independent", "", (1,)), [alone[1][RIGHT], alone[1][OTHERS_COLOUR]]),
    }
    scores = measure_contents(judge, scorer, sets, reference)
    assert scores["own thing"].values == (1, 0, 1, 1) and scores["co-occurrence"].values == (0, 1, 0, 0)
    assert scores["own looks"].values == (1, 0, 1, 0)
    # The dog in the cat's colour is one of those that the measure is wrong about; check_measures says how often it is.
    assert scores["recognised"].values[:3] == (1, 0, 1) and scores["recognised, concept 1"].values == (1, 0)
    assert len(scores["recognised"].values) == 4
    assert scores["omission"].values == (0, 0, 1)
    assert scores["success"].values[:2] == (1, 1) and scores["mix-up"].values[2:4] == (1, 1)
    assert scores["success"].values[4:] == (1, 0) and scores["mix-up"].values[4:] == (0, 0)
