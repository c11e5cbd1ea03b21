"""Pictures that no model drew, to find out what a score can see: the same things elsewhere, blended, recoloured, or strangers.

What is true of each picture is known, because the world drew it. A score that likes a wrong one better than the right one is blind
to what is wrong with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES
from disendiff_lite.emoji_world.draw.draw_references import PAIRS, draw
from disendiff_lite.emoji_world.draw.scenes import Scene, Thing, render
from disendiff_lite.emoji_world.draw.views import mean_colour, random_individual
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import class_caption

RIGHT = "as asked"
CENTRE, SIZE = (32.0, 38.0), 36.0  # of a thing that stands alone, pixels


@dataclass(frozen=True)
class Forgeries:
    """Pictures for one prompt, 64 px, by what is right or wrong with them; RIGHT is what a perfect model would draw.

    prompt: without modifiers, which a score leaves out anyway.
    """

    prompt: str
    pictures: dict[str, Image.Image]


def forge_together(name: str, seed: int) -> Forgeries:
    """Pictures of both things of a reference pair, asked for in a place where the reference does not show them.

    name: of a shipped pair. seed: of backgrounds and strangers. Raises UserError if it is not a pair.

    By name: RIGHT, the two individuals in that place; "copy", the reference itself, whose place is another; "blended", each thing
    a double exposure of both; "colours swapped", each in the other's mean colour; "strangers", other individuals of the same
    classes; "other classes", the individuals of a pair that shares no class with this one.
    """
    scene, rng = _draw_pair(name), np.random.default_rng(seed)
    place = next(other for other in PHRASES if other != scene.place)
    first, second = scene.things
    backdrop = _Backdrop(place, int(rng.integers(2**32)))
    exchanged = [replace(second, centre=first.centre), replace(first, centre=second.centre)]
    recoloured = [replace(thing, colour=_rgb(other)) for thing, other in ((first, second), (second, first))]
    strangers = [_stranger(thing, rng) for thing in scene.things]
    taken = {thing.design.class_ for thing in scene.things}
    others = next(pair for pair in map(draw, PAIRS) if not taken & {thing.design.class_ for thing in pair.things}).things
    pictures = {
        RIGHT: backdrop.picture([first, second]),
        "copy": Image.fromarray(scene.picture),
        "blended": Image.blend(backdrop.picture([first, second]), backdrop.picture(exchanged), 0.5),
        "colours swapped": backdrop.picture(recoloured),
        "strangers": backdrop.picture(strangers),
        "other classes": backdrop.picture(others),
    }
    return Forgeries(_prompt([first, second], place), pictures)


def forge_alone(name: str, index: int, seed: int) -> Forgeries:
    """Pictures of one thing of a reference pair alone, in a place where the reference does not show it.

    index: of the thing, 0 or 1. Others as for forge_together.

    By name: RIGHT; "blended", a double exposure of it and the other thing; "the other's colour", in the mean colour of the other;
    "stranger", another individual of its class; "the other", the other thing in its stead.
    """
    scene, rng = _draw_pair(name), np.random.default_rng(seed)
    place = next(other for other in PHRASES if other != scene.place)
    own, other = (replace(scene.things[i], centre=CENTRE, size=SIZE) for i in (index, 1 - index))
    backdrop = _Backdrop(place, int(rng.integers(2**32)))
    pictures = {
        RIGHT: backdrop.picture([own]),
        "blended": Image.blend(backdrop.picture([own]), backdrop.picture([other]), 0.5),
        "the other's colour": backdrop.picture([replace(own, colour=_rgb(other))]),
        "stranger": backdrop.picture([_stranger(own, rng)]),
        "the other": backdrop.picture([other]),
    }
    return Forgeries(_prompt([own], place), pictures)


def _draw_pair(name: str) -> Scene:
    if name not in PAIRS or len(PAIRS[name]) != 3:  # a place and two things
        raise UserError(f"{name} is not a shipped pair, and answers can be forged for those alone: choose one, such as cat_dog.")
    return draw(name)


@dataclass(frozen=True)
class _Backdrop:
    # One place with one background, so that two pictures of it can be blended.
    place: str
    seed: int

    def picture(self, things: Sequence[Thing]) -> Image.Image:
        return Image.fromarray(render(Scene(tuple(things), self.place, ""), np.random.default_rng(self.seed)).picture)


def _stranger(thing: Thing, rng: np.random.Generator) -> Thing:
    # In the place and size of `thing`, and of another design, so that it cannot be the same individual by chance.
    while (found := random_individual(rng, thing.design.class_)).design == thing.design:
        pass
    return replace(found, centre=thing.centre, size=thing.size)


def _rgb(thing: Thing) -> tuple[float, float, float]:
    return tuple(float(value) for value in mean_colour(thing))


def _prompt(things: Sequence[Thing], place: str) -> str:
    return f"photo of {class_caption([thing.design.class_ for thing in things])} {PHRASES[place]}"
