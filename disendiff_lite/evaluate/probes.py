"""Probes: pictures that no model drew, to find out what a score can see.

What is true of each picture is known, because the emoji world drew it. A score that likes a wrong one better than the
right one is blind to what is wrong with it.

The folder of a reference in data/references holds them as strips of 64 px pictures side by side, for each concept an
ALONE_STRIP, and of a pair TOGETHER_STRIP; `reference.json` has their prompts and kinds under "probes". Beside them lies
for each concept a LINE_UP, the individual and others of its class, whose looks `reference.json` has under "line_ups".
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from disendiff_lite.runs.references import concept_file
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_json
from disendiff_lite.support.paths import REFERENCES, check_shipped

RIGHT, OTHERS_COLOUR, THIRDS_COLOUR = "as asked", "the other's colour", "the third's colour"
LEAKED = (OTHERS_COLOUR, THIRDS_COLOUR)  # a thing in the colour of each other one
TOGETHER_STRIP, ALONE_STRIP = "probes_together.png", "probes_alone_{}.png"  # {}: the concept
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
    probes = _described(name)["probes"]
    if "together" not in probes:
        raise no_probes(name)
    return _read(REFERENCES / name / TOGETHER_STRIP, probes["together"])


def probes_alone(name: str, index: int) -> Probes:
    """Pictures of one thing of a reference alone, in a place where the reference does not show it.

    By name: RIGHT; "blended", a double exposure of it and the next thing; "the other's colour", in the mean colour of
    the next thing, and "the third's colour", if there are three; "stranger", another individual of its class; "the
    other", the next thing in its stead. The next thing of the last is the first.

    name: of a shipped reference. index: of the thing; each has a place, a background and a stranger of its own. Raises
    UserError if there are no probes of it.
    """
    described = _described(name)
    strip = concept_file(ALONE_STRIP, described["classes"], index)
    return _read(REFERENCES / name / strip, described["probes"]["alone"][index])


def line_up(name: str, index: int) -> list[Image.Image]:
    """The individual of a reference and then RIVALS others of its class, cut out, the rest of each picture grey.

    They differ in design, in colour or in both; if the reference shows two of the class, the other one comes first
    among the rivals. index: of the thing. Raises UserError as probes_alone does.
    """
    pictures = _pictures(REFERENCES / name / concept_file(LINE_UP, _described(name)["classes"], index))
    grey = Image.new("RGB", pictures[0].size, GREY)
    return [picture.crop(ImageChops.difference(picture, grey).getbbox()) for picture in pictures]


def line_up_designs(name: str, index: int) -> list[str]:
    """The design of each picture of line_up, such as "fluent-emoji/cat-face"."""
    return [looks.partition(",")[0] for looks in _described(name)["line_ups"][index]]


def has_probes(name: str) -> bool:
    """Whether there are probes and line-ups of each thing of a reference alone."""
    return (REFERENCES / name / "reference.json").is_file()


def no_probes(name: str) -> UserError:
    """The error for a name whose probes are asked for and not there."""
    return UserError(f"There are no such probes of {name}: choose a shipped pair, such as cat_dog.")


def _described(name: str) -> dict:
    # What reference.json holds.
    check_shipped(REFERENCES)
    path = REFERENCES / name / "reference.json"
    if not has_probes(name):
        raise no_probes(name)
    return read_json(path, "is damaged: restore it from the repository.")


def _read(path: Path, entry: dict) -> Probes:
    return Probes(entry["prompt"], dict(zip(entry["kinds"], _pictures(path), strict=True)))


def _pictures(path: Path) -> list[Image.Image]:
    # Those of a strip.
    strip = Image.open(path).convert("RGB")
    side = strip.height
    return [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]
