"""What a picture should show, and whether the judge finds it there.

An `Expectation` comes from a prompt, for generated pictures, or from the truth of a rendered scene, for checking the
judge itself: both go through the same `outcomes`, so that the judge's own accuracy is measured by exactly the questions
that it answers about the model.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES
from disendiff_lite.emoji_world.draw.scenes import ACCESSORY_PHRASES, SIZE_WORDS, STYLES, Scene, Thing, caption
from disendiff_lite.emoji_world.draw.views import ACCESSORIES, COLOUR_WORDS, PLACES, STYLE_NAMES
from disendiff_lite.emoji_world.draw.world import COLOURS, classes, designs, designs_of
from disendiff_lite.evaluate.judge import BIG_ABOVE, SMALL_BELOW, Findings

QUESTIONS = (
    "one object",
    "both objects",
    "colour",
    "colour of a found object",
    "place",
    "accessory",
    "size",
    "style",
    "look",
    "shape",
)
DETAILS = ("colour", "accessory", "size", "look", "shape")  # of a thing


@dataclass(frozen=True)
class ExpectedThing:
    """One object that a picture should show; "" where nothing is asked."""

    class_: str
    colour: str = ""
    accessory: str = ""
    size: str = ""
    look: str = ""
    shape: str = ""


@dataclass(frozen=True)
class Expectation:
    """Objects, place and style that a picture should show; "" where nothing is asked."""

    things: tuple[ExpectedThing, ...] = ()
    place: str = ""
    style: str = ""


def caption_expectation(scene: Scene, *, with_place: bool = True) -> Expectation:
    """What a scene's caption asks for: of each thing what it mentions, the place if `with_place`, the style."""
    things = tuple(_expected_thing(thing, thing.mentions) for thing in scene.things)
    return Expectation(things, scene.place if with_place else "", scene.style)


def true_expectation(scene: Scene) -> Expectation:
    """What a scene truly shows; of a stylised one the style alone, because styles hide colours and places."""
    if scene.style:
        return Expectation(style=scene.style)
    return Expectation(tuple(_expected_thing(thing, DETAILS) for thing in scene.things), scene.place)


def _expected_thing(thing: Thing, details: Collection[str]) -> ExpectedThing:
    words = {
        "colour": thing.colour_word,
        "accessory": thing.accessory.class_ if thing.accessory else "",
        "size": thing.size_word,
        "look": thing.design.look,
        "shape": thing.design.shape,
    }
    return ExpectedThing(thing.design.class_, **{detail: words[detail] for detail in details})


def outcomes(expectations: Sequence[Expectation], findings: Findings) -> dict[str, np.ndarray]:
    """For each of QUESTIONS, whether each expectation that asks it is met: bool, one value a picture or expected thing.

    Colour, accessory, size, look and shape count as met only where the object itself is found, except in "colour of a
    found object", which leaves out the others. "both objects" and size are asked of pictures of two objects alone.

    findings: of as many pictures as there are expectations.
    """
    answers: dict[str, list[bool]] = {question: [] for question in QUESTIONS}
    for row, expectation in enumerate(expectations):
        things = expectation.things
        presence = [bool(findings.shows(thing.class_)[row]) for thing in things]
        if 1 <= len(things) <= 2 and not expectation.style:
            answers["one object" if len(things) == 1 else "both objects"].append(all(presence))
        for thing, present in zip(things, presence, strict=True):
            column = classes().index(thing.class_)
            if thing.colour:
                right = findings.colours[row, column] == COLOUR_WORDS.index(thing.colour)
                answers["colour"].append(present and right)
                if present:
                    answers["colour of a found object"].append(right)
            if thing.accessory:
                right = findings.accessories[row, column] == ACCESSORIES.index(thing.accessory)
                answers["accessory"].append(present and right)
            if thing.size and len(things) == 2:
                size = findings.sizes[row, column]
                answers["size"].append(present and (size < SMALL_BELOW if thing.size == "small" else size > BIG_ABOVE))
            design = designs()[findings.designs[row, column]]
            if thing.look:
                answers["look"].append(present and design.look == thing.look)
            if thing.shape:
                answers["shape"].append(present and design.shape == thing.shape)
        if expectation.place and not expectation.style:
            answers["place"].append(findings.places[row] == PLACES.index(expectation.place))
        if expectation.style:
            answers["style"].append(findings.styles[row] == STYLE_NAMES.index(expectation.style))
    return {question: np.array(values, bool) for question, values in answers.items()}


def false_alarms(scenes: Sequence[Scene], findings: Findings) -> np.ndarray:
    """Whether the judge finds a class that a scene does not show: bool, one value a scene and absent class."""
    alarms = []
    for row, scene in enumerate(scenes):
        present = {thing.design.class_ for thing in scene.things}
        alarms += [bool(findings.shows(name)[row]) for name in classes() if name not in present]
    return np.array(alarms, bool)


def prompts(count: int, seed: int) -> tuple[list[str], list[Expectation]]:
    """Prompts of every kind with what they ask for, `count` of two objects and fewer of the others.

    Colours are named for half of the objects and places in three quarters of the prompts; accessories, sizes, styles,
    looks and shapes have `count`/3 prompts each.
    """
    rng = np.random.default_rng([11, seed])
    some = max(1, count // 3)
    kinds = ["two"] * count + ["one"] * (count // 2)
    kinds += [kind for kind in ("accessory", "size", "style", "look", "shape") for _ in range(some)]
    pairs = [_prompt(kind, rng) for kind in kinds]
    return [text for text, _ in pairs], [expectation for _, expectation in pairs]


def _prompt(kind: str, rng: np.random.Generator) -> tuple[str, Expectation]:
    # The caption of a scene that is described and never drawn.
    words = [c for c in classes() if kind != "accessory" or any(d.eyes is not None for d in designs_of(c))]
    if kind == "shape":
        words = [c for c in words if any(d.shape for d in designs_of(c))]
    chosen = rng.choice(words, size=2 if kind in ("two", "size") else 1, replace=False)
    things = [Thing(designs_of(str(c))[0], (32, 32), 32) for c in chosen]
    place, with_place = str(rng.choice(list(PHRASES))), kind in ("two", "one") and rng.random() < 0.75
    style = str(rng.choice(list(STYLES))) if kind == "style" else ""
    if kind in ("two", "one"):
        for index, thing in enumerate(things):
            if rng.random() < 0.5:
                things[index] = _mention(thing, "colour", colour_word=str(rng.choice(list(COLOURS))))
    elif kind == "accessory":
        worn = designs_of(str(rng.choice(list(ACCESSORY_PHRASES))), kind="accessory")[0]
        things = [_mention(things[0], "accessory", accessory=worn)]
    elif kind == "size":
        things[0] = _mention(things[0], "size", size_word=str(rng.choice(list(SIZE_WORDS))))
    elif kind in ("look", "shape"):
        pool = [design for design in designs_of(str(chosen[0])) if getattr(design, kind)]
        things = [_mention(things[0], kind, design=pool[rng.integers(len(pool))])]
    text = caption(tuple(things), place, opening=STYLES.get(style, "photo of"), with_place=with_place)
    return text, caption_expectation(Scene(tuple(things), place, text, style), with_place=with_place)


def _mention(thing: Thing, detail: str, **changes) -> Thing:
    return replace(thing, mentions=frozenset({detail}), **changes)
