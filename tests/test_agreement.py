"""Agreement with masks: words and masks belong together, and layers are told apart."""

import numpy as np
import pytest

from disendiff_lite import emoji
from disendiff_lite.agreement import LookedAt, class_agreement, look_at_references, word_maps
from disendiff_lite.map_scores import map_iou
from disendiff_lite.recording import AttentionRecord
from disendiff_lite.references import load_reference
from disendiff_lite.tokens import add_modifiers

LAYERS = ("up_blocks.1.attentions.0.transformer_blocks.0.attn2", "up_blocks.1.attentions.1.transformer_blocks.0.attn2")


@pytest.fixture
def looked() -> LookedAt:
    """The second layer's class maps are the masks, the first layer's are those of the other thing; modifiers are flat."""
    reference = load_reference("cat_dog")
    masks = reference.masks.astype(np.float16)
    maps = np.full((2, 2, 1, 4, 64, 64), 0.01, np.float16)  # (steps, layers, heads, tokens, h, w)
    maps[:, 1, 0, 1::2] += masks * 0.05
    maps[:, 0, 0, 1::2] += masks[::-1] * 0.01
    words = ("<new1>", "cat", "<new2>", "dog")
    picture = np.asarray(reference.picture)
    record = AttentionRecord("", words, (1, 2, 3, 4), ("",) * 4, (1, 2), picture, {"64x64": LAYERS}, {"64x64": maps})
    return LookedAt(reference, record)


def test_words_come_with_their_own_mask_and_the_others(looked):
    found = word_maps([looked, looked], "class", 64)
    assert found.maps.shape == found.own.shape == found.other.shape == (4, 64, 64)
    assert map_iou(found.maps, found.own).mean == 1
    assert np.array_equal(found.other[0], found.own[1]) and not (found.own & found.other).any()
    assert np.ptp(word_maps([looked], "modifier", 64).maps) == 0


def test_agreement_tells_layers_apart(looked):
    agreement = class_agreement([looked, looked], 64)
    assert {name: values.shape for name, values in agreement.items()} == dict.fromkeys(["up 1.0", "up 1.1", "all layers"], (2, 4))
    assert agreement["up 1.0"].max() == 0
    assert agreement["up 1.1"].min() == agreement["all layers"].min() == 1


def test_references_of_two_and_three_things_are_looked_at(tiny_pipe):
    config = emoji()
    add_modifiers(tiny_pipe, config.modifiers, config.initial_tokens)
    references, seen = [load_reference("cat_dog"), load_reference("cat_dog_bird")], []
    looked = look_at_references(
        tiny_pipe, references, config, seed=0, times=(300, 600), resolutions=(16, 8), progress=lambda *counts: seen.append(counts)
    )
    assert [found.record.words for found in looked][0] == ("<new1>", "cat", "<new2>", "dog")
    assert word_maps(looked, "modifier", 8).maps.shape == (5, 8, 8)
    assert class_agreement(looked, 16)["all layers"].shape == (2, 5)
    assert seen == [(1, 2), (2, 2)]
