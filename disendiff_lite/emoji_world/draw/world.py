"""The things of the emoji world: designs cut from the atlas, the colours they can take, and what they can wear.

An *individual* is one design in one colouring, for example "this cat's face, turquoise". A sprite is its picture:
float32 (CELL, CELL, 4), RGB in [0, 1] and alpha in [0, 1].
"""

import colorsys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from disendiff_lite.support.files import read_json
from disendiff_lite.support.paths import WORLD

CELL = 64  # side of one design in the atlas, pixels

# Colour words a caption may use, each with the colour that it names (RGB, 0 to 255).
COLOURS = {
    "red": (214, 45, 40),
    "orange": (242, 135, 25),
    "yellow": (250, 210, 60),
    "green": (60, 165, 65),
    "mint": (75, 215, 150),
    "aqua": (45, 190, 230),
    "blue": (50, 100, 220),
    "purple": (135, 70, 190),
    "pink": (245, 130, 180),
    "brown": (130, 80, 45),
    "white": (238, 238, 238),
    "black": (52, 52, 58),
}
# Hues (degrees) that pretraining never paints a design with; the reference individuals use them. Each lies between two
# named colours, so that captions have words for what is near it: for turquoise these are mint and aqua.
HELD_OUT_HUES = {"lime": 80, "turquoise": 175, "magenta": 305}
HUE_MARGIN = 10

# Words with which captions tell the designs of a class apart, before the class word: whose drawing it is, and which
# shape. Fluent's flat designs are what a class word means by itself, and so is a face, of an animal; the held-out 3-D
# designs have no word.
LOOKS = {"noto": "noto", "noto-v1": "android", "twemoji": "twitter", "emojione": "emojione", "fxemoji": "firefox"}
SHAPES = {
    "standing": ("cat", "dog", "pig", "cow", "horse", "rabbit"),
    "young": ("baby-chick",),
    "teddy": ("teddy-bear",),
    "robot": ("robot", "robot-face"),
    "padded": ("seat",),
    "bulb": ("light-bulb",),
    "lantern": ("red-paper-lantern",),
    "lidded": ("funeral-urn",),
    "tall": ("sport-utility-vehicle",),
    "tropical": ("tropical-fish",),
    "straw": ("hut",),
    "potted": ("potted-plant",),
    "cactus": ("cactus",),
}


@dataclass(frozen=True)
class Design:
    """One emoji design: where it comes from, what it shows, and where its eyes are (None if it can wear nothing)."""

    index: int
    set: str
    name: str
    kind: str  # "object" or "accessory"
    class_: str
    held_out: bool  # True: kept from pretraining, for the reference pictures
    eyes: float | None  # height of the eyes as a fraction of the sprite's visible height

    @property
    def look(self) -> str:
        """The word in LOOKS for whose drawing it is, "" if there is none."""
        return LOOKS.get(self.set, "")

    @property
    def shape(self) -> str:
        """The word in SHAPES for its shape, "" if there is none. Firefox's have none: its "cat" is a face."""
        words = [word for word, names in SHAPES.items() if self.name in names]
        return words[0] if words and self.set != "fxemoji" else ""


def design_entries() -> list[dict]:
    """The designs as designs.json lists them, in atlas order."""
    return read_json(WORLD / "designs.json", "is damaged: restore it from the repository.")["designs"]


@lru_cache(maxsize=1)
def designs() -> tuple[Design, ...]:
    """Every design of the atlas, in atlas order."""
    entries = design_entries()
    return tuple(
        Design(i, d["set"], d["name"], d["kind"], d["class"], d["held_out"], d.get("eyes"))
        for i, d in enumerate(entries)
    )


@lru_cache(maxsize=1)
def _atlas() -> np.ndarray:
    return np.asarray(Image.open(WORLD / "atlas.png").convert("RGBA"), dtype=np.float32) / 255


@lru_cache(maxsize=512)
def sprite(index: int) -> np.ndarray:
    """The design's picture as drawn by its artist: float32 (CELL, CELL, 4) in [0, 1]."""
    atlas = _atlas()
    columns = atlas.shape[1] // CELL
    top, left = index // columns * CELL, index % columns * CELL
    return atlas[top : top + CELL, left : left + CELL]


@lru_cache(maxsize=1)
def classes() -> tuple[str, ...]:
    """The class words of the world, in a fixed order."""
    return tuple(dict.fromkeys(d.class_ for d in designs() if d.kind == "object"))


def designs_of(class_: str, *, held_out: bool = False, kind: str = "object") -> list[Design]:
    """The designs of one class: those used in pretraining, or the held-out ones."""
    return [d for d in designs() if d.class_ == class_ and d.held_out == held_out and d.kind == kind]


def hue_colour(hue: float, saturation: float = 0.75, value: float = 0.8) -> tuple[float, float, float]:
    """RGB in [0, 1] of a hue given in degrees."""
    return colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)


def is_held_out_hue(hue: float) -> bool:
    """True when a hue (degrees) lies within HUE_MARGIN of one that is kept for the reference individuals."""
    return any(abs((hue - held + 180) % 360 - 180) <= HUE_MARGIN for held in HELD_OUT_HUES.values())


def recolour(picture: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Paint a sprite in one colour, keeping its light and dark parts: its outlines, eyes and highlights stay readable.

    Luminance 0 stays dark, the sprite's median luminance becomes `colour`, luminance 1 becomes a pale tint of it.
    """
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    # Not a float32 matrix product, whose last bit, and with it a pixel now and then, depends on the processor.
    luminance = (picture[..., :3].astype(np.float64) * weights).sum(axis=-1).astype(np.float32)
    visible = luminance[picture[..., 3] > 0.5]
    middle = float(np.clip(np.median(visible), 0.25, 0.85))
    target = np.array(colour, dtype=np.float32)
    stops = np.array([0.0, middle, 1.0], dtype=np.float32)
    ramp = np.stack([0.12 * target, target, 0.35 * target + 0.65])  # (3 stops, RGB)
    painted = np.stack([np.interp(luminance, stops, ramp[:, channel]) for channel in range(3)], axis=-1)
    return np.concatenate([painted.astype(np.float32), picture[..., 3:]], axis=-1)
