"""Probes: pictures that no model drew, to find out what a score can see.

What is true of each picture is known, because the emoji world drew it. A score that likes a wrong one better than the
right one is blind to what is wrong with it.

The folder of a pair in data/references holds them as strips of 64 px pictures side by side, TOGETHER_STRIP and for each
class an ALONE_STRIP; `reference.json` has their prompts and kinds under "probes". Beside them lies for each class a
LINE_UP, the individual and others of its class, whose looks `reference.json` has under "line_ups".
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_json
from disendiff_lite.support.paths import REFERENCES, check_shipped

RIGHT, OTHERS_COLOUR = "as asked", "the other's colour"
TOGETHER_STRIP, ALONE_STRIP = "probes_together.png", "probes_alone_{}.png"  # {}: the class
LINE_UP, RIVALS = "line_up_{}.png", 20
GREY = (127, 127, 127)  # what stands for everything but the thing, where it is cut out


@dataclass(frozen=True)
class Probes:
    """Pictures for one prompt, 64 px, by what is right or wrong with them; RIGHT is what a perfect model would draw.

    prompt: without modifiers, which a score leaves out anyway.
    """

    prompt: str
    pictures: dict[str, Image.Image]


def probes_together(name: str) -> Probes:
    """Pictures of both things of a reference pair, asked for in a place where the reference does not show them.

    By name: RIGHT, the two individuals in that place; "copy", the reference itself, whose place is another; "blended",
    each thing a double exposure of both; "colours swapped", each in the other's mean colour; "strangers", other
    individuals of the same classes; "other classes", the individuals of a pair that shares no class with this one.

    name: of a shipped pair. Raises UserError if it is not one.
    """
    return _read(REFERENCES / name / TOGETHER_STRIP, _described(name)["probes"]["together"])


def probes_alone(name: str, index: int) -> Probes:
    """Pictures of one thing of a reference pair alone, in a place where the reference does not show it.

    By name: RIGHT; "blended", a double exposure of it and the other thing; "the other's colour", in the mean colour of
    the other; "stranger", another individual of its class; "the other", the other thing in its stead.

    index: of the thing, 0 or 1; each has a place, a background and a stranger of its own. Otherwise as probes_together.
    """
    described = _described(name)
    strip = ALONE_STRIP.format(described["classes"][index])
    return _read(REFERENCES / name / strip, described["probes"]["alone"][index])


def line_up(name: str, index: int) -> list[Image.Image]:
    """The individual of a reference pair and then RIVALS others of its class, cut out, the rest of each picture grey.

    They differ in design, in colour or in both. index: of the thing, 0 or 1. Raises UserError as probes_together does.
    """
    pictures = _pictures(REFERENCES / name / LINE_UP.format(_described(name)["classes"][index]))
    grey = Image.new("RGB", pictures[0].size, GREY)
    return [picture.crop(ImageChops.difference(picture, grey).getbbox()) for picture in pictures]


def no_pair(name: str) -> UserError:
    """The error for a name that is no shipped pair."""
    return UserError(f"{name} is not a shipped pair, and there are probes of those alone: choose one, such as cat_dog.")


def _described(name: str) -> dict:
    # What reference.json holds.
    check_shipped(REFERENCES)
    path = REFERENCES / name / "reference.json"
    if not path.is_file():
        raise no_pair(name)
    described = read_json(path, "is damaged: restore it from the repository.")
    if "probes" not in described:
        raise no_pair(name)
    return described


def _read(path: Path, entry: dict) -> Probes:
    return Probes(entry["prompt"], dict(zip(entry["kinds"], _pictures(path), strict=True)))


def _pictures(path: Path) -> list[Image.Image]:
    # Those of a strip.
    strip = Image.open(path).convert("RGB")
    side = strip.height
    return [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]
