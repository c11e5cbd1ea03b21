"""Attention maps of a view as one picture, in a few milliseconds: numpy and PIL, where a
matplotlib figure takes a second.

A card for each word holds its map from each record, the first card the pictures themselves. The
offline page draws the same.
"""

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from disendiff_lite.attention_record import AttentionRecord
from disendiff_lite.losses import normalise
from disendiff_lite.show.explorer.view import View, describe, overlay_opacities, select_maps, word_labels
from disendiff_lite.show.maps import MAP_COLOURS, SMALL

SIDE = 192  # of a tile, pixels: a multiple of the usual grids and of small pictures, so that their cells are drawn even
COLUMNS = 6  # cards in a row
GAP, MARGIN = 14, 16  # pixels
HEADER, CAPTION, TEXT = 24, 22, 13  # heights of the lines over and under a tile and of letters, pixels
BAR = (150, 10)  # the legend's colours, pixels
INK, MUTED = (27, 27, 27), (105, 105, 105)
ROLE_COLOURS = {"modifier": (178, 72, 0), "class": (0, 98, 158), "": INK}
SCALES = {True: "attention, one scale for all maps", False: "each map from its lowest to its highest attention"}


def draw_view(records: Sequence[AttentionRecord], names: Sequence[str], view: View) -> Image.Image:
    """The view's maps as a picture with labels and legend.

    records: one, or two of one size. names: of the records, shown if there are two. Raises UserError as mean_maps does.
    """
    maps = select_maps(records, view)  # (records, words, h, w)
    tiles = [picture_tile(record.picture) for record in records]  # uint8 (height, width, 3) each
    labels, roles = word_labels(records[0]), records[0].roles
    places = colour_places(maps, view.shared)  # (records, words, h, w)
    cards = [("picture", "", tiles, [""] * len(records))]
    for column, word in enumerate(view.words):
        drawn = [overlay_tile(each, tile, view.strength) for each, tile in zip(places[:, column], tiles)]
        cards.append(
            (labels[word], roles[word], drawn, [range_label(values, view.shared) for values in maps[:, column]])
        )
    sheet = _Sheet(tiles, len(cards), textwrap.wrap(records[0].prompt, 90))
    sheet.write_title(describe(records[0], view))
    for place, card in enumerate(cards):
        sheet.draw_card(place, *card, names if len(records) > 1 else [""])
    sheet.draw_legend(legend_colours(view.strength), *legend_ends(maps, view.shared), SCALES[view.shared])
    return sheet.image


def picture_tile(picture: np.ndarray) -> np.ndarray:
    """A picture at the size of a tile, uint8 (height, width, 3): its longer side is SIDE, small ones stay crisp."""
    image = Image.fromarray(picture)
    scale = SIDE / max(image.size)
    crisp = max(image.size) <= SMALL
    size = tuple(max(1, round(length * scale)) for length in image.size)
    return np.asarray(image.resize(size, Image.Resampling.NEAREST if crisp else Image.Resampling.LANCZOS))


def colour_places(maps: np.ndarray, shared: bool) -> np.ndarray:
    """Where on the colour scale each value lies, uint8 of the shape of `maps`, (..., h, w)."""
    places = maps / max(maps.max(initial=0), 1e-8) if shared else normalise(torch.from_numpy(maps)).numpy()
    return np.rint(places * 255).astype(np.uint8)


def overlay_tile(places: np.ndarray, tile: np.ndarray, strength: float) -> np.ndarray:
    """A map over the grey picture, uint8 (height, width, 3). places: (h, w), from colour_places. tile: from
    picture_tile.
    """
    height, width = tile.shape[:2]
    enlarged = np.asarray(Image.fromarray(places).resize((width, height), Image.Resampling.NEAREST))  # (height, width)
    opacity = _opacities(strength)  # (256, 1)
    grey = np.asarray(Image.fromarray(tile).convert("L"))[..., None]  # (height, width, 1)
    # What each place adds is looked up and not computed anew for each pixel; + 0.5 rounds.
    over, through = (
        (map_colours() * opacity + 0.5)[enlarged],
        (1 - opacity)[enlarged],
    )  # (height, width, 3), (height, width, 1)
    return (grey * through + over).astype(np.uint8)


@cache
def map_colours() -> np.ndarray:
    """The colour scale of all attention maps here, uint8 (256, 3)."""
    return matplotlib.colormaps[MAP_COLOURS](np.arange(256), bytes=True)[:, :3]


def legend_colours(strength: float) -> np.ndarray:
    """The colour scale as it looks over a middle grey, uint8 (256, 3)."""
    opacity = _opacities(strength)  # (256, 1)
    return np.rint(128 * (1 - opacity) + map_colours() * opacity).astype(np.uint8)


def legend_ends(maps: np.ndarray, shared: bool) -> tuple[str, str]:
    """What stands at the two ends of the colour scale; a shared one tells the true highest value."""
    return ("0", number(maps.max(initial=0))) if shared else ("lowest", "highest")


def range_label(values: np.ndarray, shared: bool) -> str:
    """What stands under a map: its true highest value, and its lowest where that is where the colours begin."""
    highest = number(values.max())
    return f"max {highest}" if shared else f"{number(values.min())} to {highest}"


def number(value: float) -> str:
    """An attention probability as text."""
    return f"{value:.4f}"


class _Sheet:
    """The canvas: it knows where things stand, and nothing about attention."""

    def __init__(self, tiles: Sequence[np.ndarray], cards: int, title: Sequence[str]):
        self.tile_heights = [tile.shape[0] for tile in tiles]
        self.tile_width = max(tile.shape[1] for tile in tiles)
        self.columns = min(cards, COLUMNS)
        self.top = MARGIN + 20 * len(title) + 30
        self.card_height = HEADER + sum(self.tile_heights) + CAPTION * len(tiles) + GAP
        rows = -(-cards // self.columns)
        width = max(2 * MARGIN + self.columns * (self.tile_width + GAP) - GAP, 640)
        self.image = Image.new("RGB", (width, self.top + rows * self.card_height + 3 * MARGIN), "white")
        self.draw = ImageDraw.Draw(self.image)
        for line, text in enumerate(title):
            self.draw.text((MARGIN, MARGIN + 20 * line), text, INK, _font(TEXT + 2, bold=True))

    def write_title(self, text: str) -> None:
        self.draw.text((MARGIN, self.top - 28), text, MUTED, _font(TEXT))

    def draw_card(self, place, label, role, tiles, values, names) -> None:
        row, column = divmod(place, self.columns)
        left, top = MARGIN + column * (self.tile_width + GAP), self.top + row * self.card_height
        right = left + self.tile_width
        room = self.draw.textlength(role, _font(TEXT - 1))
        self._text(left, top, label, INK, _font(TEXT + 1, bold=True), self.tile_width - room - 6)
        self.draw.text((right, top + 1), role, ROLE_COLOURS[role], _font(TEXT - 1), anchor="ra")
        top += HEADER
        for tile, value, name in zip(tiles, values, names):
            self.image.paste(Image.fromarray(tile), (left, top))
            top += tile.shape[0] + 4
            room = self.draw.textlength(value, _font(TEXT - 1))
            self._text(left, top, name, INK, _font(TEXT - 1), self.tile_width - room - 6)
            self.draw.text((right if name else left, top), value, MUTED, _font(TEXT - 1), anchor="ra" if name else "la")
            top += CAPTION - 4

    def draw_legend(self, colours: np.ndarray, low: str, high: str, text: str) -> None:
        top, font = self.image.height - 2 * MARGIN - 2, _font(TEXT - 1)
        self.draw.text((MARGIN, top), low, INK, font)
        left = MARGIN + round(self.draw.textlength(low, font)) + 8
        self.image.paste(Image.fromarray(colours[None]).resize(BAR), (left, top + 3))
        self.draw.text((left + BAR[0] + 8, top), high, INK, font)
        self.draw.text((left + BAR[0] + 24 + self.draw.textlength(high, font), top), text, MUTED, font)

    def _text(self, left: int, top: int, text: str, colour, font, width: float) -> None:
        """Text that is cut to a width."""
        if self.draw.textlength(text, font) > width:
            while text and self.draw.textlength(text + "…", font) > width:
                text = text[:-1]
            text += "…"
        self.draw.text((left, top), text, colour, font)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib brings this font along; PIL's own has few letters beyond the Latin ones.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _opacities(strength: float) -> np.ndarray:
    return np.linspace(*overlay_opacities(strength), 256, dtype=np.float32)[:, None]  # (256, 1)
