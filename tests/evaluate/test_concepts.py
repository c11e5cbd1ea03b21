"""Maps of concepts: the right words in the right order, and agreement with masks that is known beforehand."""

import dataclasses

import numpy as np
import pytest

from disendiff_lite.attention_record import AttentionRecord, mean_maps
from disendiff_lite.config import emoji
from disendiff_lite.evaluate import concepts as module
from disendiff_lite.evaluate.concepts import (
    ReferenceRecord,
    calibration_terms,
    class_agreement,
    map_agreement,
    record_reference,
    record_references,
    record_untrained,
    tracked_maps,
    tracked_words,
    word_maps,
)
from disendiff_lite.evaluate.maps import map_iou
from disendiff_lite.runs.references import load_reference
from disendiff_lite.tokens import add_modifiers
from tests.evaluate.test_maps import mask

LEFT, RIGHT = mask(0, 64, 0, 32), mask(0, 64, 32, 64)


@pytest.fixture
def pipe(tiny_pipe):
    add_modifiers(tiny_pipe, ("<new1>", "<new2>"), ("ktn", "pll"))
    return tiny_pipe


def test_the_tracked_words_of_a_reference_are_those_of_its_concepts(pipe):
    record = record_reference(pipe, load_reference("cat_dog"), emoji(), seed=3)
    assert tracked_words(record) == ["<new1>", "cat", "<new2>", "dog"]
    assert np.array_equal(tracked_maps(record), mean_maps(record)[[3, 4, 6, 7]])
    assert np.array_equal(tracked_maps(record, step=1, head=0), mean_maps(record, step=1, head=0)[[3, 4, 6, 7]])
    again = record_reference(pipe, load_reference("cat_dog"), emoji(seed=3))
    assert np.array_equal(tracked_maps(again), tracked_maps(record))


def test_an_untrained_model_gets_the_words_and_nothing_else(pipe, new_tiny_pipe, monkeypatch):
    monkeypatch.setattr(module, "load_pipeline", lambda model: new_tiny_pipe())
    untrained = record_untrained("tiny", load_reference("cat_dog"), emoji(), seed=3)
    expected = record_reference(pipe, load_reference("cat_dog"), emoji(), seed=3)
    assert untrained.words == expected.words
    assert np.array_equal(tracked_maps(untrained), tracked_maps(expected))


def test_a_class_of_several_tokens_has_their_mean(pipe):
    reference = dataclasses.replace(load_reference("cat_dog"), classes=("hovercraft", "dog"))
    record = record_reference(pipe, reference, emoji())
    assert tracked_words(record) == ["<new1>", "hovercraft", "<new2>", "dog"]
    assert np.allclose(tracked_maps(record)[1], mean_maps(record)[[4, 5]].mean(axis=0))


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


LAYERS = ("up_blocks.1.attentions.0.transformer_blocks.0.attn2", "up_blocks.1.attentions.1.transformer_blocks.0.attn2")


@pytest.fixture
def recorded() -> ReferenceRecord:
    """The second layer's class maps are the masks, the first layer's the other thing's; modifiers are flat."""
    reference = load_reference("cat_dog")
    masks = reference.masks.astype(np.float16)
    maps = np.full((2, 2, 1, 4, 64, 64), 0.01, np.float16)  # (steps, layers, heads, tokens, h, w)
    maps[:, 1, 0, 1::2] += masks * 0.05
    maps[:, 0, 0, 1::2] += masks[::-1] * 0.01
    words = ("<new1>", "cat", "<new2>", "dog")
    picture = np.asarray(reference.picture)
    record = AttentionRecord(
        "", words, (1, 2, 3, 4), ("modifier", "class") * 2, (1, 2), picture, {"64x64": LAYERS}, {"64x64": maps}
    )
    return ReferenceRecord(reference, record)


def test_words_come_with_their_own_mask_and_the_others(recorded):
    found = word_maps([recorded, recorded], "class", 64)
    assert found.maps.shape == found.own.shape == found.other.shape == (4, 64, 64)
    assert map_iou(found.maps, found.own).mean == 1
    assert np.array_equal(found.other[0], found.own[1]) and not (found.own & found.other).any()
    assert np.ptp(word_maps([recorded], "modifier", 64).maps) == 0


def test_agreement_tells_layers_apart(recorded):
    agreement = class_agreement([recorded, recorded], 64)
    assert {name: values.shape for name, values in agreement.items()} == dict.fromkeys(
        ["up 1.0", "up 1.1", "all layers"], (2, 4)
    )
    assert agreement["up 1.0"].max() == 0
    assert agreement["up 1.1"].min() == agreement["all layers"].min() == 1


def test_references_of_two_and_three_things_are_looked_at(tiny_pipe):
    config = emoji()
    add_modifiers(tiny_pipe, config.modifiers, config.initial_tokens)
    references, seen = [load_reference("cat_dog"), load_reference("cat_dog_bird")], []
    recorded = record_references(
        tiny_pipe,
        references,
        config,
        seed=0,
        times=(300, 600),
        resolutions=(16, 8),
        progress=lambda *counts: seen.append(counts),
    )
    assert tracked_words(recorded[0].record) == ["<new1>", "cat", "<new2>", "dog"]
    assert word_maps(recorded, "modifier", 8).maps.shape == (5, 8, 8)
    assert class_agreement(recorded, 16)["all layers"].shape == (2, 5)
    assert seen == [(1, 2), (2, 2)]
