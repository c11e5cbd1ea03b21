"""Figures: pictures, attention maps over pictures, loss curves and scores.

Each function takes arrays or pictures and perhaps an `ax`, whose place it then fills; it returns the figure and never shows it.
Colours are Okabe and Ito's, which colour-blind readers can tell apart; maps that are compared share one colour scale.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from disendiff_lite.errors import UserError
from disendiff_lite.losses import normalise
from disendiff_lite.runs import StepRecord
from disendiff_lite.scores import Score

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
MAP_COLOURS = "inferno"
OVERLAY = (0.4, 0.85)  # opacity of the lowest and of the highest attention over a picture
PANEL = 1.35  # side of a picture, inches
LINE = 0.15  # height of a line of a title, inches
TITLE_WIDTH = 20  # letters that fit over a picture
SMALL, LARGE = 128, 256  # pictures up to the first are drawn with crisp pixels, those above the second are shrunk to it
DPI = 96
FONT = 8  # points

Picture = Image.Image | np.ndarray  # an array is uint8 (height, width, 3)


def show_pictures(
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
    lines = [max((title.count("\n") + 1 for title in titles[row * columns : (row + 1) * columns]), default=0)
             for row in range(rows)]
    figure, panels = _picture_panels(rows, columns, ax, title_lines=sum(lines))
    for panel, picture in zip(panels.flat, pictures):
        _draw_picture(panel, picture)
    for panel, title in zip(panels.flat, titles):
        panel.set_title(title, fontsize=FONT, pad=3)
    _label_rows(panels, row_titles)
    return figure


def show_maps(
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
    ax: Axes | None = None,
) -> Figure:
    """Attention maps, a row for each model, step or run and a column for each word, with one colour bar.

    maps: (rows, words, h, w), probabilities. row_titles: such as ("before", "after").
    pictures: lie in grey under the maps. One for all rows, or one a row, is drawn in front of its row too; a list a row holds one
        a word.
    shared_scale: True gives all maps one scale, from 0 to their highest value, so that strengths can be compared; False stretches
        each map from its lowest to its highest value, so that shapes can.
    """
    maps = np.asarray(maps, dtype=np.float32)  # (rows, words, h, w)
    rows, count = maps.shape[:2]
    pictures = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures] * rows
    in_front = isinstance(pictures[0], Picture)
    if not shared_scale:
        maps = normalise(torch.from_numpy(maps)).numpy()
    colours = _map_colours(over_picture=pictures[0] is not None)
    drawn = ScalarMappable(Normalize(0, maps.max() if shared_scale else 1), colours)
    figure, panels = _picture_panels(rows, count + in_front, ax, title_lines=1, extra_width=0.6)
    for row, picture in enumerate(pictures):
        if in_front:
            _draw_picture(panels[row, 0], picture)
        under = picture if isinstance(picture, list) else [picture] * count
        for column in range(count):
            _draw_map(panels[row, column + in_front], maps[row, column], under[column], drawn)
    for panel, word in zip(panels[0, int(in_front) :], words):
        panel.set_title(word, fontsize=FONT, pad=3)
    _label_rows(panels, row_titles)
    bar = figure.colorbar(drawn, ax=list(panels.flat), fraction=0.06, pad=0.015, aspect=14 * rows)
    bar.set_label("attention" if shared_scale else "attention, stretched", fontsize=FONT)
    bar.locator = MaxNLocator(4)
    bar.ax.tick_params(labelsize=FONT - 1, length=2)
    bar.outline.set_visible(False)
    return figure


def plot_losses(records: Sequence[StepRecord], *, window: int | None = None, ax: Axes | None = None) -> Figure:
    """The loss terms of a run: left what is minimised, right the calibration's terms before their weight.

    records: what train.train yields, or runs.read_losses reads. window: steps in the running mean; None takes a tenth of the run.

    Dots are single steps, lines running means. Without calibration there is only the left panel.
    """
    window = window or max(1, len(records) // 10)
    steps, *_ = columns = [
        np.array([getattr(record, name) for record in records])
        for name in ("step", "reconstruction", "bind", "separate", "total")
    ]
    reconstruction, bind, separate, total = columns[1:]
    calibrated = not np.isnan(bind).all()
    figure, panels = _chart_panels(1 + calibrated, 2.3, ax)
    _draw_term(panels[0], steps, reconstruction, window, BLUE, "reconstruction")
    panels[0].set_title("what is minimised", fontsize=FONT, loc="left")
    panels[0].set_yscale("log")  # the weighted calibration is a hundred times smaller, and yet it acts
    if calibrated:
        weighted = np.where(np.isnan(bind), np.nan, total - reconstruction)
        _draw_term(panels[0], steps, weighted, window, GREY, "calibration, weighted by λ")
        _draw_term(panels[1], steps, bind, window, ORANGE, "bind")
        _draw_term(panels[1], steps, separate, window, GREEN, "separate")
        panels[1].set_title("calibration terms, unweighted", fontsize=FONT, loc="left")
        panels[1].set_ylim(bottom=0)
    for panel in panels:
        panel.set_xlabel("step", fontsize=FONT)
        panel.legend(fontsize=FONT - 1, frameon=False)
    return figure


def plot_scores(table: Mapping[str, Mapping[str, Score]], *, ax: Axes | None = None) -> Figure:
    """Bars of mean scores with their spread: a panel for each measure, a bar for each run.

    table: run -> measure -> Score; a measure that a run lacks is left empty. The whiskers are one standard deviation each way.
    """
    measures = list(dict.fromkeys(measure for scores in table.values() for measure in scores))
    figure, panels = _chart_panels(len(measures), 0.75 + 0.27 * len(table), ax, share_y=True)
    for panel, measure in zip(panels, measures):
        for place, scores in enumerate(table.values()):
            if measure in scores:
                _draw_bar(panel, place, scores[measure])
        panel.set_title(measure, fontsize=FONT, loc="left")
        panel.axvline(0, color=GREY, linewidth=0.8)
        panel.margins(x=0.25)
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel("mean ± standard deviation", fontsize=FONT - 1, color=GREY)
    panels[0].set_yticks(range(len(table)), list(table), fontsize=FONT)
    panels[0].set_ylim(len(table) - 0.5, -0.5)  # the first run on top
    return figure


def _picture_panels(
    rows: int, columns: int, ax: Axes | None, *, title_lines: int, extra_width: float = 0.0
) -> tuple[Figure, np.ndarray]:
    size = (columns * PANEL + extra_width, rows * PANEL + LINE * title_lines)
    figure, panels = _panels(rows, columns, size, ax)
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, panels


def _chart_panels(count: int, height: float, ax: Axes | None, share_y: bool = False) -> tuple[Figure, np.ndarray]:
    figure, panels = _panels(1, count, (0.9 + 2.6 * count, height), ax, share_y)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=FONT - 1)
    return figure, panels[0]


def _panels(
    rows: int, columns: int, size: tuple[float, float], ax: Axes | None, share_y: bool = False
) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns) in a new figure of `size` inches, or in the place of `ax`."""
    if ax is None:
        figure = plt.figure(figsize=size, dpi=DPI, layout="constrained")
        plt.close(figure)  # else a notebook shows it twice: at the end of the cell, and as the value returned
        return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    if ax.get_subplotspec() is None:
        raise UserError("This ax has no place in a grid: make it with plt.subplots.")
    ax.set_axis_off()
    return ax.figure, ax.get_subplotspec().subgridspec(rows, columns).subplots(squeeze=False, sharey=share_y)


def _draw_picture(panel: Axes, picture: Picture, **style) -> None:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    crisp = max(image.size) <= SMALL
    if max(image.size) > LARGE:
        image = image.copy()
        image.thumbnail((LARGE, LARGE))
    panel.imshow(np.asarray(image), extent=(0, 1, 1, 0), interpolation="nearest" if crisp else "antialiased", **style)


def _draw_map(panel: Axes, values: np.ndarray, picture: Picture | None, drawn: ScalarMappable) -> None:
    if picture is not None:
        grey = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        _draw_picture(panel, grey.convert("L"), cmap="gray", vmin=0, vmax=255)
    panel.imshow(values, cmap=drawn.cmap, norm=drawn.norm, extent=(0, 1, 1, 0), interpolation="nearest")


def _map_colours(over_picture: bool) -> ListedColormap:
    """The colours of maps; over a picture low attention lets it show through, in the colour bar too."""
    colours = plt.get_cmap(MAP_COLOURS)(np.linspace(0, 1, 256))  # (256, 4), RGBA
    if over_picture:
        colours[:, 3] = np.linspace(*OVERLAY, 256)
    return ListedColormap(colours)


def _label_rows(panels: np.ndarray, titles: Sequence[str] | None) -> None:
    for panel, title in zip(panels[:, 0], titles or []):
        wrapped = textwrap.fill(title, TITLE_WIDTH)
        panel.text(-0.05, 0.5, wrapped, rotation=90, ha="right", va="center", fontsize=FONT, transform=panel.transAxes)


def _draw_term(panel: Axes, steps: np.ndarray, values: np.ndarray, window: int, colour: str, name: str) -> None:
    panel.plot(steps, values, ".", color=colour, markersize=3.5, alpha=0.35, markeredgewidth=0)
    panel.plot(steps, _running_mean(values, window), color=colour, linewidth=1.6, label=name)


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a window centred on each value, over what there is of it: shorter at the ends, nan left out."""
    there = ~np.isnan(values)
    ones = np.ones(min(window, len(values)))
    counts = np.convolve(there, ones, "same")
    sums = np.convolve(np.where(there, values, 0), ones, "same")
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0.5)


def _draw_bar(panel: Axes, place: int, score: Score) -> None:
    spread = 0.0 if math.isnan(score.spread) else score.spread
    panel.barh(place, score.mean, height=0.66, color=BLUE, xerr=spread, error_kw={"ecolor": "black", "elinewidth": 1})
    ahead = score.mean >= 0
    panel.annotate(
        f"{score.mean:.3f}",
        (score.mean + (spread if ahead else -spread), place),
        xytext=(3 if ahead else -3, 0),
        textcoords="offset points",
        ha="left" if ahead else "right",
        va="center",
        fontsize=FONT - 1,
    )
