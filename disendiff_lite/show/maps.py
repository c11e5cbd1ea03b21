"""Pictures, and attention maps over pictures.

Each function takes arrays or pictures and perhaps an `ax`, whose place it then fills; it returns the figure and never
shows it. Maps that are compared share one colour scale.
"""

import math
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw

from disendiff_lite.losses import normalise
from disendiff_lite.support.errors import UserError

DPI = 96
FONT = 8  # points
MAP_COLOURS = "inferno"
OVERLAY = (0.4, 0.85)  # opacity of the lowest and of the highest attention over a picture
PANEL = 1.35  # side of a picture, inches
LINE = 0.15  # height of a line of a title, inches
TITLE_WIDTH = 20  # letters that fit over a picture
SMALL, LARGE = 128, 256  # pictures up to the first are drawn with crisp pixels, those above the second are shrunk to it

Picture = Image.Image | np.ndarray  # an array is uint8 (height, width, 3)


def plot_pictures(
    pictures: Sequence[Picture],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    *,
    row_titles: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Pictures in rows, small ones with crisp pixels.

    titles: one a picture, or fewer, for the first ones. columns: pictures in a row; None puts up to 8 in one.
    row_titles: one a row.
    """
    columns = columns or min(len(pictures), 8)
    rows = math.ceil(len(pictures) / columns)
    titles = [textwrap.fill(title, TITLE_WIDTH) for title in titles or []]
    lines = [
        max((title.count("\n") + 1 for title in titles[row * columns : (row + 1) * columns]), default=0)
        for row in range(rows)
    ]
    figure, panels = _picture_panels(rows, columns, ax, title_lines=sum(lines))
    for panel, picture in zip(panels.flat, pictures):
        _draw_picture(panel, picture)
    for panel, title in zip(panels.flat, titles):
        panel.set_title(title, fontsize=FONT, pad=3)
    _label_rows(panels, row_titles)
    return figure


def plot_maps(
    maps: np.ndarray,
    words: Sequence[str],
    pictures: Picture | Sequence[Picture] | None = None,
    shared_scale: bool = True,
    *,
    ax: Axes | None = None,
) -> Figure:
    """One row of attention maps, one a word, with one colour bar: plot_map_grid with a single row.

    maps: (words, h, w). pictures: one for all words, drawn in front too, or one a word, or None.
    """
    pictures = [list(pictures)] if isinstance(pictures, (list, tuple)) else pictures
    return plot_map_grid(np.asarray(maps)[None], words, None, pictures, shared_scale, ax=ax)


def plot_map_grid(
    maps: np.ndarray,
    words: Sequence[str],
    row_titles: Sequence[str] | None = None,
    pictures: Picture | Sequence[Picture] | Sequence[Sequence[Picture]] | None = None,
    shared_scale: bool = True,
    *,
    overlay: tuple[float, float] = OVERLAY,
    ax: Axes | None = None,
) -> Figure:
    """Attention maps, a row for each model, step or run and a column for each word, with one colour bar.

    maps: (rows, words, h, w), probabilities. row_titles: such as ("before", "after").
    pictures: lie in grey under the maps. One for all rows, or one a row, is drawn in front of its row too; a
        list a row holds one a word.
    shared_scale: True gives all maps one scale, from 0 to their highest value, so that strengths can be compared; False
        stretches each map from its lowest to its highest value, so that shapes can.
    overlay: opacity in [0, 1] of the lowest and of the highest attention over a picture.
    """
    maps = np.asarray(maps, dtype=np.float32)  # (rows, words, h, w)
    rows, count = maps.shape[:2]
    pictures = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures] * rows
    in_front = isinstance(pictures[0], Picture)
    if not shared_scale:
        maps = normalise(torch.from_numpy(maps)).numpy()
    colours = _map_colours(None if pictures[0] is None else overlay)
    scale = ScalarMappable(Normalize(0, maps.max() if shared_scale else 1), colours)
    figure, panels = _picture_panels(rows, count + in_front, ax, title_lines=1, extra_width=0.6)
    for row, picture in enumerate(pictures):
        if in_front:
            _draw_picture(panels[row, 0], picture)
        under = picture if isinstance(picture, list) else [picture] * count
        for column in range(count):
            _draw_map(panels[row, column + in_front], maps[row, column], under[column], scale)
    for panel, word in zip(panels[0, int(in_front) :], words):
        panel.set_title(word, fontsize=FONT, pad=3)
    _label_rows(panels, row_titles)
    bar = figure.colorbar(scale, ax=list(panels.flat), fraction=0.06, pad=0.015, aspect=14 * rows)
    bar.set_label("attention" if shared_scale else "attention, stretched", fontsize=FONT)
    bar.locator = MaxNLocator(4)
    bar.ax.tick_params(labelsize=FONT - 1, length=2)
    bar.outline.set_visible(False)
    return figure


def make_panels(
    rows: int, columns: int, size: tuple[float, float], ax: Axes | None, share_y: bool = False
) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns) in a new figure of `size` inches, or in the place of `ax`.

    Raises UserError if `ax` has no place in a grid.
    """
    if ax is None:
        figure = plt.figure(figsize=size, dpi=DPI, layout="constrained")
        plt.close(figure)  # else a notebook shows it twice: at the end of the cell, and as the value returned
        return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    if ax.get_subplotspec() is None:
        raise UserError("This ax has no place in a grid: make it with plt.subplots.")
    ax.set_axis_off()
    return ax.figure, ax.get_subplotspec().subgridspec(rows, columns).subplots(squeeze=False, sharey=share_y)


def outline_cell(picture: Image.Image, cell: tuple[int, int], grid: tuple[int, int]) -> Image.Image:
    """A copy of the picture with a red frame around one cell of a grid.

    cell: (row, column), from 0. grid: (h, w), in cells.
    """
    height, width = picture.height / grid[0], picture.width / grid[1]  # of a cell, pixels
    left, top = round(cell[1] * width), round(cell[0] * height)
    thick = max(1, picture.width // 64)
    framed = picture.copy()
    box = (left - thick, top - thick, round(left + width) + thick - 1, round(top + height) + thick - 1)
    ImageDraw.Draw(framed).rectangle(box, outline=(255, 0, 0), width=thick)
    return framed


def _picture_panels(
    rows: int, columns: int, ax: Axes | None, *, title_lines: int, extra_width: float = 0.0
) -> tuple[Figure, np.ndarray]:
    size = (columns * PANEL + extra_width, rows * PANEL + LINE * title_lines)
    figure, panels = make_panels(rows, columns, size, ax)
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, panels


def _draw_picture(panel: Axes, picture: Picture, **style) -> None:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    crisp = max(image.size) <= SMALL
    if max(image.size) > LARGE:
        image = image.copy()
        image.thumbnail((LARGE, LARGE))
    panel.imshow(np.asarray(image), extent=(0, 1, 1, 0), interpolation="nearest" if crisp else "antialiased", **style)


def _draw_map(panel: Axes, values: np.ndarray, picture: Picture | None, scale: ScalarMappable) -> None:
    if picture is not None:
        grey = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        _draw_picture(panel, grey.convert("L"), cmap="gray", vmin=0, vmax=255)
    panel.imshow(values, cmap=scale.cmap, norm=scale.norm, extent=(0, 1, 1, 0), interpolation="nearest")


def _map_colours(overlay: tuple[float, float] | None) -> ListedColormap:
    """The colours of maps; over a picture low attention lets it show through, in the colour bar too."""
    colours = plt.get_cmap(MAP_COLOURS)(np.linspace(0, 1, 256))  # (256, 4), RGBA
    if overlay is not None:
        colours[:, 3] = np.linspace(*overlay, 256)
    return ListedColormap(colours)


def _label_rows(panels: np.ndarray, titles: Sequence[str] | None) -> None:
    for panel, title in zip(panels[:, 0], titles or []):
        wrapped = textwrap.fill(title, TITLE_WIDTH)
        panel.text(-0.05, 0.5, wrapped, rotation=90, ha="right", va="center", fontsize=FONT, transform=panel.transAxes)
