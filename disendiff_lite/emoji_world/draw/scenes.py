"""Scenes of the emoji world: what is in a picture, the caption that says (some of) it, the picture, and the true masks.

A `Scene` is drawn from a description (`Thing`s and a place), so the same functions make the random scenes of
pretraining, the reference pictures, and any scene that a test needs. Pictures are uint8 (64, 64, 3), masks are bool
(64, 64), both indexed (y, x).
"""

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageFilter

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES, SIDE, paint
from disendiff_lite.emoji_world.draw.world import (
    COLOURS,
    Design,
    classes,
    designs_of,
    hue_colour,
    is_held_out_hue,
    recolour,
    sprite,
)
from disendiff_lite.support.text import enumeration

STYLES = {"pencil": "a pencil drawing of", "sepia": "an old photo of"}
OPENINGS = ("photo of", "photo of", "photo of", "a picture of", "")
ACCESSORY_PHRASES = {"hat": "wearing a hat", "sunglasses": "wearing sunglasses"}
SIZE_WORDS = {"small": (18, 23), "big": (40, 48)}  # longest side, pixels
# How often designs of these sets are drawn, relative to the others: a typical look is learned from fewer pictures.
TYPICAL = {"fluent-emoji-flat": 16, "noto": 4}
# How often these classes are drawn, relative to the others: the hardest to tell apart, people above all when repainted.
HARD = {"man": 1.5, "woman": 1.5, "mother": 1.5, "child": 1.5, "baby": 1.5, "lamp": 1.5}
# As in the concept augmentation.
DISTANCE_PREFIXES = {"far": ("a far away", "very small"), "near": ("zoomed in", "close up")}


@dataclass(frozen=True)
class Thing:
    """One object of a scene. `centre` (x, y) and `size` (longest side) are in pixels of the 64 px picture."""

    design: Design
    centre: tuple[float, float]
    size: float
    colour: tuple[float, float, float] | None = None  # RGB in [0, 1]; None keeps the artist's colours
    colour_word: str = ""  # the word in COLOURS that names `colour`, if any
    mentions: frozenset = frozenset()  # which of "colour", "size", "accessory", "look", "shape" the caption names
    size_word: str = ""
    accessory: Design | None = None
    flipped: bool = False

    def phrase(self) -> str:
        """The noun phrase without its article, such as "big red noto cat wearing a hat"."""
        words = {
            "size": self.size_word,
            "colour": self.colour_word,
            "look": self.design.look,
            "shape": self.design.shape,
            "class": self.design.class_,
            "accessory": ACCESSORY_PHRASES[self.accessory.class_] if self.accessory else "",
        }
        return " ".join(word for kind, word in words.items() if word and kind in {*self.mentions, "class"})


@dataclass(frozen=True)
class Scene:
    """A described picture.

    picture: uint8 (64, 64, 3). masks: bool (number of things, 64, 64), what is visible of each. None until it is drawn.
    """

    things: tuple[Thing, ...]  # in the order in which the caption names them
    place: str
    caption: str
    style: str = ""
    picture: np.ndarray = field(default=None, repr=False)
    masks: np.ndarray = field(default=None, repr=False)


def _paste(canvas: np.ndarray, picture: np.ndarray, centre: tuple[float, float], size: float) -> np.ndarray:
    """Draw a sprite on `canvas` (float32 (64, 64, 3), changed in place); returns its alpha on the canvas, (64, 64)."""
    side = max(4, round(size))
    image = Image.fromarray((picture * 255 + 0.5).astype(np.uint8)).resize((side, side), Image.BOX)
    small = np.asarray(image, dtype=np.float32) / 255
    left, top = round(centre[0] - side / 2), round(centre[1] - side / 2)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(SIDE, left + side), min(SIDE, top + side)
    alpha = np.zeros((SIDE, SIDE), np.float32)
    if x1 > x0 and y1 > y0:
        part = small[y0 - top : y1 - top, x0 - left : x1 - left]
        canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - part[..., 3:]) + part[..., :3] * part[..., 3:]
        alpha[y0:y1, x0:x1] = part[..., 3]
    return alpha


def draw_thing(canvas: np.ndarray, thing: Thing) -> np.ndarray:
    """Draw one thing with what it wears; returns its alpha on the canvas, (64, 64).

    canvas: float32 (64, 64, 3) in [0, 1], changed in place.
    """
    picture = sprite(thing.design.index)
    if thing.colour is not None:
        picture = recolour(picture, thing.colour)
    if thing.flipped:
        picture = picture[:, ::-1]
    alpha = _paste(canvas, picture, thing.centre, thing.size)
    if thing.accessory is not None:
        rows = np.nonzero(picture[..., 3].max(axis=1) > 0.5)[0] / picture.shape[0] - 0.5
        top, height = rows.min() * thing.size, (rows.max() - rows.min()) * thing.size
        x, y = thing.centre
        if thing.accessory.class_ == "hat":
            worn = _paste(canvas, sprite(thing.accessory.index), (x, y + top + 0.02 * height), 0.55 * thing.size)
        else:
            worn = _paste(
                canvas, sprite(thing.accessory.index), (x, y + top + thing.design.eyes * height), 0.72 * thing.size
            )
        alpha = np.maximum(alpha, worn)
    return alpha


def stylise(picture: np.ndarray, style: str) -> np.ndarray:
    """Turn a picture, uint8 (h, w, 3), into a pencil drawing or an old (sepia) photo; "" returns it as it is."""
    if style == "pencil":
        grey = Image.fromarray(picture).convert("L")
        light = np.asarray(grey, np.float32)
        blurred = np.asarray(grey.filter(ImageFilter.GaussianBlur(2.5)), np.float32)
        dodge = np.clip(light / (blurred + 1) * 255, 0, 255)
        return np.repeat((dodge**3 / 255**2)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
    if style == "sepia":
        light = (picture @ np.array([0.299, 0.587, 0.114]))[..., None] / 255
        return (np.array([70, 45, 20]) + light * np.array([180, 175, 150])).clip(0, 255).astype(np.uint8)
    return picture


def render(scene: Scene, rng: np.random.Generator) -> Scene:
    """Draw a scene: its background, then its things from back (smallest y) to front; adds the picture and the masks."""
    canvas = paint(scene.place, rng).astype(np.float32) / 255
    masks = np.zeros((len(scene.things), SIDE, SIDE), bool)
    for index in sorted(range(len(scene.things)), key=lambda i: scene.things[i].centre[1]):
        alpha = draw_thing(canvas, scene.things[index])
        masks[:, alpha > 0.5] = False  # what lies behind is hidden
        masks[index] |= alpha > 0.5
    picture = (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return replace(scene, picture=stylise(picture, scene.style), masks=masks)


def caption(
    things: tuple[Thing, ...], place: str, *, opening: str, with_place: bool, prefix: str = "", articles=None
) -> str:
    """The sentence for a scene, such as "photo of a red cat and a dog on the beach"."""
    articles = articles or ["a "] * len(things)
    parts = [article + thing.phrase() for article, thing in zip(articles, things, strict=True)]
    words = (prefix, opening, enumeration(parts), PHRASES[place] if with_place else "")
    return " ".join(word for word in words if word)


def random_thing(
    rng: np.random.Generator, centre: tuple[float, float], size: float, class_: str | None = None
) -> Thing:
    """A thing as pretraining sees it: a design that is not held out, its class's typical look most often.

    About half are repainted, a fourth of those in hues that no word names. Captions mostly name an untypical design.
    """
    class_ = class_ or str(rng.choice(classes()))
    pool = designs_of(class_)
    shares = np.array([TYPICAL.get(design.set, 1) for design in pool], float)
    design = pool[rng.choice(len(pool), p=shares / shares.sum())]
    colour, word, mentions = None, "", set()
    draw = rng.random()
    if draw < 0.40:
        word = str(rng.choice(list(COLOURS)))
        jitter = rng.normal(0, 0.03, 3)
        colour = tuple(np.clip(np.array(COLOURS[word]) / 255 + jitter, 0, 1))
        if rng.random() < 0.8:
            mentions.add("colour")
    elif draw < 0.54:
        hue = rng.uniform(0, 360)
        while is_held_out_hue(hue):
            hue = rng.uniform(0, 360)
        colour = hue_colour(hue, rng.uniform(0.45, 0.9), rng.uniform(0.55, 0.95))
    if design.look and rng.random() < 0.8:
        mentions.add("look")
    if design.shape and rng.random() < 0.5:
        mentions.add("shape")
    accessory = None
    if design.eyes is not None and rng.random() < 0.16:
        worn = designs_of(str(rng.choice(list(ACCESSORY_PHRASES))), kind="accessory")
        accessory = worn[rng.integers(len(worn))]
        if rng.random() < 0.9:
            mentions.add("accessory")
    size_word = ""
    if rng.random() < 0.16:
        size_word = str(rng.choice(list(SIZE_WORDS)))
        size = rng.uniform(*SIZE_WORDS[size_word])
        if rng.random() < 0.8:
            mentions.add("size")
    flipped = bool(rng.random() < 0.5)
    return Thing(design, centre, size, colour, word, frozenset(mentions), size_word, accessory, flipped)


def describe_scene(rng: np.random.Generator, count: int | None = None) -> Scene:
    """A scene of one, two (most often) or three things, with its caption, as pretraining sees it; not drawn yet."""
    count = count or int(rng.choice([1, 2, 3], p=[0.33, 0.59, 0.08]))
    floor = rng.uniform(44, 56)
    if count == 1:
        spots, sizes = [(rng.uniform(24, 40), 0)], rng.uniform(30, 44, 1)
    elif count == 2:
        gap = rng.uniform(26, 32)
        left = rng.uniform(32 - gap / 2 - 3, 32 - gap / 2 + 3)
        spots, sizes = [(left, 0), (left + gap, 0)], rng.uniform(26, 34, 2)
    else:
        spots, sizes = [(x + rng.uniform(-2, 2), 0) for x in (12, 32, 52)], rng.uniform(19, 24, 3)
    shares = np.array([HARD.get(name, 1) for name in classes()], float)
    chosen = rng.choice(classes(), size=count, replace=False, p=shares / shares.sum())
    things = [random_thing(rng, spot, size, str(c)) for spot, size, c in zip(spots, sizes, chosen, strict=True)]
    things = [replace(t, centre=(t.centre[0], floor + rng.uniform(-5, 5) - t.size / 2)) for t in things]
    distance = str(rng.choice(["", "far", "near"], p=[0.92, 0.04, 0.04]))
    if distance:
        factor = rng.uniform(0.4, 0.6) if distance == "far" else rng.uniform(1.2, 1.4)
        things = [
            replace(t, size=t.size * factor, centre=tuple(32 + (c - 32) * factor for c in t.centre)) for t in things
        ]
    rng.shuffle(things)  # the order of the words says nothing about left and right
    place = str(rng.choice(list(PHRASES)))
    style = str(rng.choice(list(STYLES))) if rng.random() < 0.08 else ""
    opening = STYLES[style] if style and rng.random() < 0.9 else str(rng.choice(OPENINGS))
    prefix = str(rng.choice(DISTANCE_PREFIXES[distance])) if distance else ""
    articles = ["a "] + [("a " if rng.random() < 0.7 else "") for _ in things[1:]]
    text = caption(
        tuple(things), place, opening=opening, with_place=bool(rng.random() < 0.7), prefix=prefix, articles=articles
    )
    return Scene(tuple(things), place, text, style)


def random_scene(rng: np.random.Generator, count: int | None = None) -> Scene:
    """A scene of describe_scene, drawn: with its picture and masks."""
    return render(describe_scene(rng, count), rng)
