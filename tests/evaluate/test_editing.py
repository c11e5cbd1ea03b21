"""Editing: on rendered pictures, whose truth is known, an edit is found where it is and not where it is not."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.emoji_world.draw.pairs import draw
from disendiff_lite.emoji_world.draw.scenes import Scene, Thing, render
from disendiff_lite.emoji_world.draw.world import COLOURS, designs_of
from disendiff_lite.evaluate.contents import recognised, recognised_by_design
from disendiff_lite.evaluate.editing import MEASURES, draw_edits, edit_table, edits_of, find_edit, measure_edits
from disendiff_lite.evaluate.editing import EditedPictures as Edited
from disendiff_lite.runs.generate import generate
from disendiff_lite.runs.references import load_reference
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers

REFERENCE = load_reference("cat_dog")
CAT, DOG = (replace(thing, centre=(32.0, 40.0), size=36) for thing in draw("cat_dog").things)
LEFT, RIGHT = (17.0, 40.0), (47.0, 40.0)
STRANGER = Thing(designs_of("dog")[0], RIGHT, 30)


def rendered(*things: Thing, place: str = "grass", style: str = "") -> Image.Image:
    return Image.fromarray(render(Scene(things, place, "", style), np.random.default_rng(0)).picture)


def pictures_of(name: str) -> list[Image.Image]:
    """A picture in which the edit of the cat was followed, and one in which it was not."""
    glasses = designs_of("sunglasses", kind="accessory")[0]
    orange = tuple(np.array(COLOURS["orange"]) / 255)
    beside = replace(CAT, centre=LEFT, size=30)
    return {
        "none": [rendered(CAT), rendered(DOG)],
        "scene": [rendered(CAT, place="snow"), rendered(CAT)],
        "accessory": [rendered(replace(CAT, accessory=glasses)), rendered(CAT)],
        "colour": [rendered(replace(CAT, colour=orange)), rendered(CAT)],
        "size": [rendered(replace(CAT, size=20)), rendered(CAT)],
        "style": [rendered(CAT, style="pencil"), rendered(CAT)],
        "added object": [rendered(beside, Thing(designs_of("car")[0], RIGHT, 30)), rendered(CAT)],
        "plain class": [rendered(beside, STRANGER), rendered(beside, replace(DOG, centre=RIGHT, size=30))],
    }[name]


@pytest.mark.parametrize("edit", edits_of(REFERENCE, 0), ids=lambda edit: edit.name)
def test_an_edit_is_found_where_it_is(judge, scorer, edit):
    found = find_edit(judge, scorer, Edited(edit, 0, "", pictures_of(edit.name)), REFERENCE)
    assert found.tolist() == [True, False]


def test_a_concept_gets_the_edits_that_suit_it():
    names = [edit.name for edit in edits_of(REFERENCE, 1)]
    assert names == ["none", "scene", "accessory", "colour", "size", "style", "added object", "plain class"]
    assert "accessory" not in {edit.name for edit in edits_of(load_reference("chair_lamp"), 1)}
    assert "plain class" not in {edit.name for edit in edits_of(load_reference("dog_dog"), 0)}
    assert {edit.name: edit.asked for edit in edits_of(load_reference("woman_dog"), 0)}["scene"] == "street"
    assert edits_of(load_reference("cat_dog_bird"), 2)[-1].template == "photo of a {} and a cat"


def test_an_edit_needs_the_concept_too(judge, scorer):
    edits = {edit.name: edit for edit in edits_of(REFERENCE, 0)}
    other = rendered(replace(STRANGER, centre=(32.0, 40.0)), place="snow")
    scores = measure_edits(judge, scorer, [Edited(edits["scene"], 0, "", [*pictures_of("scene"), other])], REFERENCE)
    assert {measure: score.values for measure, score in scores["scene"].items()} == {
        "edit found": (1, 0, 1),
        "recognised": (1, 1, 0),
        "both": (1, 0, 0),
    }


def test_a_repainted_concept_is_known_by_its_design(judge, scorer):
    edits = {edit.name: edit for edit in edits_of(REFERENCE, 0)}
    repainted = pictures_of("colour")[:1]
    assert not recognised(judge, scorer, repainted, REFERENCE, 0).any()
    assert recognised_by_design(judge, scorer, repainted, REFERENCE, 0).all()
    flat = replace(CAT, design=designs_of("cat")[0])
    assert not recognised_by_design(judge, scorer, [rendered(flat), rendered(DOG)], REFERENCE, 0).any()
    scores = measure_edits(judge, scorer, [Edited(edits["colour"], 0, "", repainted)], REFERENCE)
    assert scores["colour"]["both"].values == (1,)


def test_edits_are_pooled_over_concepts_and_named_in_a_table(judge, scorer):
    first, second = (edits_of(REFERENCE, index)[0] for index in (0, 1))
    drawn = [Edited(first, 0, "", [rendered(CAT)] * 3), Edited(second, 1, "", [rendered(CAT)])]
    scores = measure_edits(judge, scorer, drawn, REFERENCE)
    assert [scores["none"][measure].values for measure in MEASURES] == [(1, 1, 1, 0)] * 3
    head, row = edit_table(scores).splitlines()
    assert head.split() == ["edit", "edit", "found", "recognised", "both", "pictures"]
    assert row.startswith("none  0.75 (0.30 to 0.95)") and row.endswith("  4")


def test_every_concept_is_drawn_under_every_edit(tiny_pipe):
    add_modifiers(tiny_pipe, ("<a>", "<b>"), ("ktn", "pll"))
    config = emoji(inference_steps=1)
    drawn = draw_edits(tiny_pipe, REFERENCE, ("<a>", "<b>"), config, count=2, seed=3)
    assert [each.concept for each in drawn] == [0] * 8 + [1] * 8
    assert {len(each.pictures) for each in drawn} == {2}
    assert drawn[3].prompt == "photo of an orange <a> cat" and drawn[15].prompt == "photo of a <b> dog and a cat"
    again = generate(tiny_pipe, drawn[15].prompt, count=2, seed=3, config=config)
    assert np.allclose(drawn[15].pictures[1], again[1], atol=1)


def test_what_has_no_line_up_cannot_be_judged(judge, scorer):
    drawn = [Edited(edits_of(REFERENCE, 0)[0], 0, "", [rendered(CAT)])]
    with pytest.raises(UserError, match="no such probes of mine"):
        measure_edits(judge, scorer, drawn, replace(REFERENCE, name="mine"))
