"""Runs side by side: what is measured is what the parts measure, with equal noises and seeds."""

import dataclasses
import json

import numpy as np
import pytest

from disendiff_lite.config import emoji
from disendiff_lite.evaluate.clip import load_scorer
from disendiff_lite.evaluate.compare import RunMeasures, compare_table, difference_table, measure_maps, measure_run
from disendiff_lite.evaluate.concepts import map_agreement, record_reference, tracked_maps
from disendiff_lite.evaluate.pictures import SubjectScores
from disendiff_lite.evaluate.score import Score
from disendiff_lite.runs.generate import generate
from disendiff_lite.runs.references import load_reference, subject_name
from disendiff_lite.tokens import add_modifiers

CONFIG = emoji(inference_steps=2)
REFERENCE = load_reference("cat_dog")


@pytest.fixture
def pipe(tiny_pipe):
    add_modifiers(tiny_pipe, ("<new1>", "<new2>"), ("ktn", "pll"))
    return tiny_pipe


def test_maps_are_measured_under_several_noises(pipe):
    words, maps, scores = measure_maps(pipe, REFERENCE, CONFIG, noises=2, seed=5)
    each = [tracked_maps(record_reference(pipe, REFERENCE, CONFIG, seed=seed)) for seed in (5, 6)]
    assert words == ["<new1>", "cat", "<new2>", "dog"]
    assert np.allclose(maps, np.mean(each, axis=0))
    assert len(scores["bind"].values) == len(scores["separate"].values) == 2
    assert scores["class IoU"].values[2:] == map_agreement(each[1], REFERENCE.masks)["class IoU"].values
    assert len(scores["peak hits"].values) == 8


def test_a_run_is_measured_on_the_pictures_that_it_shows(pipe):
    found = measure_run(pipe, load_scorer("emoji", "cpu"), REFERENCE, CONFIG, count=2, noises=1, seed=4)
    assert list(found.pictures) == ["combined", "cat", "dog"]
    again = generate(pipe, "photo of a <new2> dog", count=2, seed=4, config=CONFIG)
    assert np.allclose(found.pictures["dog"].pictures[1], again[1], atol=1)
    assert list(found.picture_scores) == ["own - other", "image, combined", "image, alone", "text"]
    assert [len(score.values) for score in found.picture_scores.values()] == [4, 2, 4, 6]
    assert set(json.loads(json.dumps(found.to_dict()))["pictures"]) == {"combined", "cat", "dog"}


def test_the_papers_scores_leave_two_of_three_out_of_the_mean():
    def scores(concepts, image):
        score = Score((image,))
        return SubjectScores(subject_name(("cat", "dog", "bird"), concepts), concepts, (), score, score, score, None)

    several = [scores((0, 1, 2), 0.1), scores((0, 2), 9.0), scores((0,), 0.2), scores((1,), 0.3), scores((2,), 0.4)]
    found = RunMeasures([], None, {}, {}, several).paper_scores
    assert {name: score.mean for name, score in found.items() if "image" in name} == pytest.approx(
        {
            "image-alignment, combined": 0.1,
            **{f"image-alignment, concept {index + 1}": 0.2 + 0.1 * index for index in range(3)},
            "image-alignment, mean": 0.25,
            "image-alignment, cat and bird": 9.0,
        }
    )
    assert RunMeasures([], None, {}, {}, several).picture_scores["image, alone"].values == (0.2, 0.3, 0.4)


def test_a_picture_of_ones_own_has_no_masks_and_no_margins(pipe):
    own = dataclasses.replace(REFERENCE, masks=None, crops=None)
    found = measure_run(pipe, load_scorer("emoji", "cpu"), own, CONFIG, count=1, noises=1)
    assert list(found.map_scores) == ["bind", "separate"] and "own - other" not in found.picture_scores


def test_differences_are_taken_value_by_value_and_marked_when_they_stand_out():
    rows = {
        "full": {"IoU": Score((0.5, 0.7)), "hits": Score((1.0, 0.0))},
        "none": {"IoU": Score((0.3, 0.5001)), "hits": Score((0.0, 1.0))},
    }
    assert difference_table(rows, "full").splitlines() == [
        "      IoU             hits",
        "none  -0.20 ± 0.00 *  +0.00 ± 1.00",
    ]
    assert "*" not in difference_table({"full": {"IoU": Score((1.0,))}, "none": {"IoU": Score((2.0,))}}, "full")


def test_the_table_says_means_spreads_and_numbers():
    rows = {"full": {"IoU": Score((0.5, 0.7)), "hits": Score((1.0,))}, "none": {"IoU": Score((0.25, 0.25))}}
    assert compare_table(rows).splitlines() == [
        "      IoU          hits",
        "full  0.60 ± 0.14  1.00",
        "none  0.25 ± 0.00  -",
        "n     2            1",
    ]
