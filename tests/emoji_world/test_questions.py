"""What is asked of pictures: prompts, and the answers to hand-made findings."""

import numpy as np

from disendiff_lite.emoji_world.check.questions import Expectation, ExpectedThing, false_alarms, outcomes, prompts
from disendiff_lite.emoji_world.draw import views
from disendiff_lite.emoji_world.draw.backgrounds import PHRASES
from disendiff_lite.emoji_world.draw.scenes import ACCESSORY_PHRASES, STYLES
from disendiff_lite.emoji_world.draw.world import classes, designs_of
from disendiff_lite.evaluate.judge import Findings


def hand_made_findings(**changes) -> Findings:
    """One picture in which a red cat of 32 px stands on the beach, and nothing else."""
    shape = (1, len(classes()))
    cells = np.full((1, 8, 8), len(classes()))
    cells[0, :5] = classes().index("cat")
    values = {
        "classes": tuple(classes()),
        "cells": cells,
        "designs": np.full(shape, next(design.index for design in designs_of("cat") if design.look == "noto")),
        "colours": np.full(shape, views.COLOUR_WORDS.index("red")),
        "accessories": np.zeros(shape, int),
        "sizes": np.full(shape, 32.0),
        "places": np.array([views.PLACES.index("beach")]),
        "styles": np.array([0]),
    }
    return Findings(**(values | changes))


def test_outcomes_of_a_hand_made_picture():
    cat = ExpectedThing("cat", colour="red")
    answers = outcomes([Expectation((cat,), "beach")], hand_made_findings())
    assert {question: values.tolist() for question, values in answers.items() if len(values)} == {
        "one object": [True],
        "colour": [True],
        "colour of a found object": [True],
        "place": [True],
    }
    missed = Expectation((cat, ExpectedThing("dog", "red", "hat", "small")), "snow")
    answers = outcomes([missed], hand_made_findings())
    assert answers["both objects"].tolist() == [False] and answers["place"].tolist() == [False]
    assert answers["colour"].tolist() == [True, False] and answers["colour of a found object"].tolist() == [True]
    assert answers["accessory"].tolist() == [False] and answers["size"].tolist() == [False]
    looks = [
        Expectation((ExpectedThing(name, look=look),))
        for name, look in (("cat", "noto"), ("cat", "firefox"), ("dog", "noto"))
    ]
    followed = [outcomes([expectation], hand_made_findings())["look"].item() for expectation in looks]
    assert followed == [True, False, False]
    lantern = next(design.index for design in designs_of("lamp") if design.shape == "lantern")
    everywhere = np.full((1, 8, 8), classes().index("lamp"))
    findings = hand_made_findings(cells=everywhere, designs=np.full((1, len(classes())), lantern))
    shapes = [Expectation((ExpectedThing("lamp", shape=shape),)) for shape in ("lantern", "bulb")]
    assert [outcomes([expectation], findings)["shape"].item() for expectation in shapes] == [True, False]
    assert outcomes([Expectation(style="pencil")], hand_made_findings())["style"].tolist() == [False]


def test_small_and_big_are_judged_by_their_side():
    pair = (ExpectedThing("cat", size="small"), ExpectedThing("cat", size="big"))
    for side, expected in ((20, [True, False]), (30, [False, False]), (45, [False, True])):
        findings = hand_made_findings(sizes=np.full((1, len(classes())), float(side)))
        assert outcomes([Expectation(pair)], findings)["size"].tolist() == expected


def test_three_objects_are_not_asked_as_both_and_absent_classes_are_counted(scenes):
    three = Expectation(tuple(ExpectedThing(name) for name in ("cat", "dog", "car")))
    assert not any(len(values) for values in outcomes([three], hand_made_findings()).values())
    without_cat = next(scene for scene in scenes if "cat" not in {thing.design.class_ for thing in scene.things})
    alarms = false_alarms([without_cat], hand_made_findings())
    assert alarms.sum() == 1 and len(alarms) == len(classes()) - len(without_cat.things)


def test_prompts_say_what_their_expectations_ask():
    texts, expectations = prompts(12, seed=0)
    assert (texts, expectations) == prompts(12, seed=0) and texts != prompts(12, seed=1)[0]
    assert len(texts) == 12 + 6 + 5 * 4
    for text, expectation in zip(texts, expectations, strict=True):
        for thing in expectation.things:  # each has one detail at most
            assert f"{thing.colour}{thing.look}{thing.shape} {thing.class_}".strip() in text
        assert all(ACCESSORY_PHRASES[thing.accessory] in text for thing in expectation.things if thing.accessory)
        assert not expectation.place or PHRASES[expectation.place] in text
        assert not expectation.style or text.startswith(STYLES[expectation.style])
