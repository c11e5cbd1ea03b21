"""What a picture should show, and whether the judge finds it there.

A `Wish` comes from a prompt, for generated pictures, or from a drawn scene's truth, for checking the judge itself: both go through the
same `outcomes`, so that the judge's own accuracy is measured by exactly the questions that it answers about the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from disendiff_lite.emoji_world.check.judge import Findings
from disendiff_lite.emoji_world.draw.backgrounds import PHRASES
from disendiff_lite.emoji_world.draw.scenes import ACCESSORY_PHRASES, SIZE_WORDS, STYLES, Scene, Thing, caption
from disendiff_lite.emoji_world.draw.views import ACCESSORIES, COLOUR_WORDS, PLACES, STYLE_NAMES
from disendiff_lite.emoji_world.draw.world import COLOURS, classes, designs, designs_of

QUESTIONS = ("one object", "both objects", "colour", "colour of a found object", "place", "accessory", "size", "style", "look", "shape")
# Among two objects of ordinary size (26 to 34 px), what counts as small or big: half way to the sizes that the words are drawn with.
SMALL_BELOW, BIG_ABOVE = 24.5, 37.0


@dataclass(frozen=True)
class WishedThing:
    """One object that a picture should show; "" where nothing is said."""

    class_: str
    colour: str = ""
    accessory: str = ""
    size: str = ""
    look: str = ""
    shape: str = ""


@dataclass(frozen=True)
class Wish:
    """Objects, place and style; "" where nothing is said."""

    things: tuple[WishedThing, ...] = ()
    place: str = ""
    style: str = ""


def said(scene: Scene, *, place: bool = True) -> Wish:
    """What a scene's caption asks for: of each thing what it says, the place if `place`, the style."""
    things = tuple(
        WishedThing(
            t.design.class_,
            t.colour_word if "colour" in t.said else "",
            t.accessory.class_ if t.accessory and "accessory" in t.said else "",
            t.size_word if "size" in t.said else "",
            t.design.look if "look" in t.said else "",
            t.design.shape if "shape" in t.said else "",
        )
        for t in scene.things
    )
    return Wish(things, scene.place if place else "", scene.style)


def shown(scene: Scene) -> Wish:
    """What a drawn scene truly shows, said or not; of a stylised one the style alone, because styles hide colours and places."""
    if scene.style:
        return Wish(style=scene.style)
    things = tuple(
        WishedThing(
            t.design.class_, t.colour_word, t.accessory.class_ if t.accessory else "", t.size_word, t.design.look, t.design.shape
        )
        for t in scene.things
    )
    return Wish(things, scene.place)


def outcomes(wishes: Sequence[Wish], findings: Findings) -> dict[str, np.ndarray]:
    """For each of QUESTIONS, whether each wish that asks it was met: bool arrays, one value a picture or wished thing.

    Colour, accessory, size, look and shape count as met only where the object itself is found, except in "colour of a found object",
    which leaves out objects that are not found. "both objects" and size are asked of pictures of two objects alone.
    findings: of as many pictures as there are wishes.
    """
    met: dict[str, list[bool]] = {question: [] for question in QUESTIONS}
    for row, wish in enumerate(wishes):
        column = [classes().index(thing.class_) for thing in wish.things]
        found = [bool(findings.shows(thing.class_)[row]) for thing in wish.things]
        if found and len(found) <= 2 and not wish.style:
            met["one object" if len(found) == 1 else "both objects"].append(all(found))
        for thing, c, there in zip(wish.things, column, found):
            if thing.colour:
                right = findings.colours[row, c] == COLOUR_WORDS.index(thing.colour)
                met["colour"].append(there and right)
                if there:
                    met["colour of a found object"].append(right)
            if thing.accessory:
                met["accessory"].append(there and findings.accessories[row, c] == ACCESSORIES.index(thing.accessory))
            if thing.size and len(found) == 2:
                size = findings.sizes[row, c]
                met["size"].append(there and (size < SMALL_BELOW if thing.size == "small" else size > BIG_ABOVE))
            design = designs()[findings.designs[row, c]]
            if thing.look:
                met["look"].append(there and design.look == thing.look)
            if thing.shape:
                met["shape"].append(there and design.shape == thing.shape)
        if wish.place and not wish.style:
            met["place"].append(findings.places[row] == PLACES.index(wish.place))
        if wish.style:
            met["style"].append(findings.styles[row] == STYLE_NAMES.index(wish.style))
    return {question: np.array(values, bool) for question, values in met.items()}


def false_alarms(scenes: Sequence[Scene], findings: Findings) -> np.ndarray:
    """Whether each class that a drawn scene does not show is found in it all the same: bool, one value a scene and absent class."""
    claimed = []
    for row, scene in enumerate(scenes):
        there = {thing.design.class_ for thing in scene.things}
        claimed += [bool(findings.shows(name)[row]) for name in classes() if name not in there]
    return np.array(claimed, bool)


def prompts(count: int, seed: int) -> tuple[list[str], list[Wish]]:
    """Prompts of every kind with what they wish for, `count` of two objects and fewer of the others; the same for a seed.

    Colours are named for half of the objects and places in three quarters of the prompts; accessories, sizes, styles, looks and
    shapes have `count`/3 prompts each.
    """
    rng = np.random.default_rng([11, seed])
    some = max(1, count // 3)
    kinds = ["two"] * count + ["one"] * (count // 2)
    kinds += [kind for kind in ("accessory", "size", "style", "look", "shape") for _ in range(some)]
    made = [_prompt(kind, rng) for kind in kinds]
    return [scene.caption for scene, _ in made], [said(scene, place=place_said) for scene, place_said in made]


def _prompt(kind: str, rng: np.random.Generator) -> tuple[Scene, bool]:
    # A scene that is described and never drawn, and whether its place is said.
    words = [c for c in classes() if kind != "accessory" or any(d.eyes is not None for d in designs_of(c))]
    if kind == "shape":
        words = [c for c in words if any(d.shape for d in designs_of(c))]
    chosen = rng.choice(words, size=2 if kind in ("two", "size") else 1, replace=False)
    things = [Thing(designs_of(str(c))[0], (32, 32), 32) for c in chosen]
    place, place_said = str(rng.choice(list(PHRASES))), kind in ("two", "one") and rng.random() < 0.75
    style = str(rng.choice(list(STYLES))) if kind == "style" else ""
    if kind in ("two", "one"):
        things = [_say(t, "colour", colour_word=str(rng.choice(list(COLOURS)))) if rng.random() < 0.5 else t for t in things]
    elif kind == "accessory":
        worn = designs_of(str(rng.choice(list(ACCESSORY_PHRASES))), kind="accessory")[0]
        things = [_say(things[0], "accessory", accessory=worn)]
    elif kind == "size":
        things[0] = _say(things[0], "size", size_word=str(rng.choice(list(SIZE_WORDS))))
    elif kind in ("look", "shape"):
        pool = [design for design in designs_of(str(chosen[0])) if getattr(design, kind)]
        things = [_say(things[0], kind, design=pool[rng.integers(len(pool))])]
    text = caption(tuple(things), place, opening=STYLES.get(style, "photo of"), say_place=place_said)
    return Scene(tuple(things), place, text, style), place_said


def _say(thing: Thing, what: str, **changes) -> Thing:
    return replace(thing, said=frozenset({what}), **changes)
