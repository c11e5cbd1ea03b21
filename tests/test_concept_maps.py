"""Maps of concepts: the right words in the right order, and agreement with masks that is known beforehand."""

import dataclasses

import numpy as np
import pytest
from test_map_scores import mask

from disendiff_lite import concept_maps as module
from disendiff_lite.concept_maps import (
    calibration_terms,
    concept_maps,
    concept_words,
    map_agreement,
    record_reference,
    record_untrained,
)
from disendiff_lite.config import emoji
from disendiff_lite.recording import mean_maps
from disendiff_lite.references import load_reference
from disendiff_lite.tokens import add_modifiers

LEFT, RIGHT = mask(0, 64, 0, 32), mask(0, 64, 32, 64)


@pytest.fixture
def pipe(tiny_pipe):
    add_modifiers(tiny_pipe, ("<new1>", "<new2>"), ("ktn", "pll"))
    return tiny_pipe


def test_the_tracked_words_of_a_reference_are_those_of_its_concepts(pipe):
    record = record_reference(pipe, load_reference("cat_dog"), emoji(), seed=3)
    assert concept_words(record) == ["<new1>", "cat", "<new2>", "dog"]
    assert np.array_equal(concept_maps(record), mean_maps(record)[[3, 4, 6, 7]])
    assert np.array_equal(concept_maps(record, step=1, head=0), mean_maps(record, step=1, head=0)[[3, 4, 6, 7]])
    again = record_reference(pipe, load_reference("cat_dog"), emoji(seed=3))
    assert np.array_equal(concept_maps(again), concept_maps(record))


def test_an_untrained_model_gets_the_words_and_nothing_else(pipe, new_tiny_pipe, monkeypatch):
    monkeypatch.setattr(module, "load_pipeline", lambda model: new_tiny_pipe())
    untrained = record_untrained("tiny", load_reference("cat_dog"), emoji(), seed=3)
    expected = record_reference(pipe, load_reference("cat_dog"), emoji(), seed=3)
    assert untrained.words == expected.words
    assert np.array_equal(concept_maps(untrained), concept_maps(expected))


def test_a_class_of_several_tokens_has_their_mean(pipe):
    reference = dataclasses.replace(load_reference("cat_dog"), classes=("hovercraft", "dog"))
    record = record_reference(pipe, reference, emoji())
    assert concept_words(record) == ["<new1>", "hovercraft", "<new2>", "dog"]
    assert np.allclose(concept_maps(record)[1], mean_maps(record)[[4, 5]].mean(axis=0))


def test_terms_of_maps_that_are_apart_and_bound():
    left, right = np.zeros((2, 16, 16), dtype=np.float32)
    left[:, :6], right[:, 10:] = 1, 1
    bound = calibration_terms(np.stack([left, left, right, right]))
    crossed = calibration_terms(np.stack([right, left, left, right]))
    together = calibration_terms(np.stack([left, left, left, left]))
    assert bound["bind"] < 0.4 < 1.8 < crossed["bind"]
    assert bound["separate"] < 0.02 < 0.8 < together["separate"]
    assert calibration_terms(np.stack([left, left, right, right]), suppress=False)["bind"] < bound["bind"]


def test_agreement_with_masks():
    left, right = np.zeros((2, 16, 16), dtype=np.float32)
    left[:, :8], right[:, 8:] = 1, 1
    both = left + right
    both[0, 0] = 0  # not flat, so that stretching leaves it
    found = map_agreement(np.stack([left, both, left, right]), np.stack([LEFT, RIGHT]))
    assert found["modifier IoU"].values == pytest.approx((1, 0))
    assert found["class IoU"].values == pytest.approx((127 / 256, 1))
    assert found["peak hits"].values == (1, 0, 0, 1)
    assert found["modifier on other"].values == pytest.approx((0, 1))
    assert found["class on other"].values == pytest.approx((128 / 255, 0))


def test_where_things_overlap_the_cells_are_the_own_things():
    everywhere = np.ones((4, 16, 16), dtype=np.float32)
    everywhere[:, 0, 0] = 0
    found = map_agreement(everywhere, np.stack([mask(0, 64, 0, 64), RIGHT]))
    assert found["class on other"].values == pytest.approx((0, 127 / 255))
