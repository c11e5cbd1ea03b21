"""Draw the probes of the references, whose kinds evaluate/probes.py names: the same things elsewhere, or wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES, SIDE
from disendiff_lite.emoji_world.draw.pairs import PAIRS, SHIPPED, draw
from disendiff_lite.emoji_world.draw.rivals import rivals
from disendiff_lite.emoji_world.draw.scenes import Scene, Thing, draw_thing, render
from disendiff_lite.emoji_world.draw.views import mean_colour, random_individual
from disendiff_lite.evaluate.probes import GREY, LEAKED, RIGHT, RIVALS, Probes, no_probes
from disendiff_lite.tokens import class_caption

CENTRE, SIZE = (32.0, 38.0), 36.0  # of a thing that stands alone, pixels
SAME_DESIGN = 4  # rivals that differ from the individual in colour alone, so that its design is not enough


def draw_together(name: str, seed: int) -> Probes:
    """The probes of both things. seed: of the background and the strangers. Raises UserError if `name` is no pair."""
    scene, rng = _draw_pair(name), np.random.default_rng(seed)
    first, second = scene.things
    backdrop = _Backdrop(_places_elsewhere(scene)[0], int(rng.integers(2**32)))
    exchanged = [replace(second, centre=first.centre), replace(first, centre=second.centre)]
    recoloured = [replace(first, colour=_rgb(second)), replace(second, colour=_rgb(first))]
    strangers = [_stranger(thing, rng) for thing in scene.things]
    taken = {thing.design.class_ for thing in scene.things}
    scenes = (draw(pair) for pair in PAIRS)
    others = next(other for other in scenes if not taken & {thing.design.class_ for thing in other.things})
    pictures = {
        RIGHT: backdrop.picture([first, second]),
        "copy": Image.fromarray(scene.picture),
        "blended": Image.blend(backdrop.picture([first, second]), backdrop.picture(exchanged), 0.5),
        "colours swapped": backdrop.picture(recoloured),
        "strangers": backdrop.picture(strangers),
        "other classes": backdrop.picture(others.things),
    }
    return Probes(backdrop.prompt([first, second]), pictures)


def draw_alone(name: str, index: int, seed: int) -> Probes:
    """The probes of one thing alone. Raises UserError if `name` is no shipped reference; otherwise as draw_together."""
    scene = _draw_shipped(name)
    # Place, background and stranger are this thing's own. Were they shared, both blends would be the very same picture.
    rng = np.random.default_rng([seed, 1 + index])  # numpy takes [seed, 0] for the stream of draw_together
    own, *others = [replace(thing, centre=CENTRE, size=SIZE) for thing in _own_first(scene, index)]
    other = others[0]
    backdrop = _Backdrop(_places_elsewhere(scene)[index], int(rng.integers(2**32)))
    pictures = {
        RIGHT: backdrop.picture([own]),
        "blended": Image.blend(backdrop.picture([own]), backdrop.picture([other]), 0.5),
        **{kind: backdrop.picture([replace(own, colour=_rgb(each))]) for kind, each in zip(LEAKED, others)},
        "stranger": backdrop.picture([_stranger(own, rng)]),
        "the other": backdrop.picture([other]),
    }
    return Probes(backdrop.prompt([own]), pictures)


def draw_line_up(name: str, index: int, seed: int) -> tuple[list[Thing], list[Image.Image]]:
    """One thing of a reference and its rivals: who they are, and a picture of each, all but the thing grey.

    Others of its class in the reference are its first rivals. seed: of the rest. Raises UserError as draw_alone does.
    """
    rng = np.random.default_rng([seed, 3 + index])  # apart from the streams of draw_together and draw_alone
    own, *others = [replace(thing, centre=CENTRE, size=SIZE) for thing in _own_first(_draw_shipped(name), index)]
    others = [thing for thing in others if thing.design.class_ == own.design.class_]
    everyone = [own, *others, *rivals(own, rng, RIVALS - len(others), same_design=SAME_DESIGN)]
    return everyone, [_on_grey(thing) for thing in everyone]


def _on_grey(thing: Thing) -> Image.Image:
    canvas = np.full((SIDE, SIDE, 3), GREY, np.float32) / 255
    draw_thing(canvas, thing)
    return Image.fromarray((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def _draw_pair(name: str) -> Scene:
    if name not in PAIRS or len(PAIRS[name]) != 3:  # a place and two things
        raise no_probes(name)
    return draw(name)


def _draw_shipped(name: str) -> Scene:
    if name not in SHIPPED:
        raise no_probes(name)
    return draw(name)


def _own_first(scene: Scene, index: int) -> list[Thing]:
    # The things in their order, beginning with one of them.
    return [*scene.things[index:], *scene.things[:index]]


def _places_elsewhere(scene: Scene) -> list[str]:
    return [place for place in PHRASES if place != scene.place]


@dataclass(frozen=True)
class _Backdrop:
    # One place with one background, so that two pictures of it can be blended.
    place: str
    seed: int

    def picture(self, things: Sequence[Thing]) -> Image.Image:
        rng = np.random.default_rng(self.seed)
        return Image.fromarray(render(Scene(tuple(things), self.place, ""), rng).picture)

    def prompt(self, things: Sequence[Thing]) -> str:
        return f"photo of {class_caption([thing.design.class_ for thing in things])} {PHRASES[self.place]}"


def _stranger(thing: Thing, rng: np.random.Generator) -> Thing:
    # In the place and size of `thing`, and of another design, so that it cannot be the same individual by chance.
    while (stranger := random_individual(rng, thing.design.class_)).design == thing.design:
        pass
    return replace(stranger, centre=thing.centre, size=thing.size)


def _rgb(thing: Thing) -> tuple[float, float, float]:
    return tuple(float(value) for value in mean_colour(thing))
