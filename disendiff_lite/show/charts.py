"""Charts: loss curves, scores, and the numbers behind attention.

Each function takes what was measured and perhaps an `ax`, whose place it then fills; it returns the figure and never
shows it. Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disendiff_lite.evaluate.score import Score
from disendiff_lite.show.maps import FONT, make_panels
from disendiff_lite.training import StepRecord

PUSHES = "RdBu_r"  # red where a step raises the map, blue where it lowers it
SIDE = 1.35  # of a map, inches
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"


def plot_losses(records: Sequence[StepRecord], *, window: int | None = None, ax: Axes | None = None) -> Figure:
    """The loss terms of a run: left what is minimised, right the calibration's terms before their weight.

    records: what train.train yields, or runs.read_losses reads. window: steps in the running mean;
        None takes a tenth of the run.

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

    table: run -> measure -> Score; a measure that a run lacks is left empty. The whiskers are one
        standard deviation each way.
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


def plot_one_query(words: Sequence[str], scores, shares, *, ax: Axes | None = None) -> Figure:
    """What one cell makes of each word: left the score q.k / sqrt(d), right its share of the
    attention after the softmax.

    words: those to show, a row each. scores, shares: (words,), tensors or arrays; the shares of all tokens sum to 1.
    """
    figure, panels = _chart_panels(2, 0.75 + 0.2 * len(words), ax, share_y=True)
    for panel, values, title in zip(panels, (scores, shares), ("score", "share of the attention")):
        panel.barh(range(len(words)), np.asarray(values), height=0.66, color=BLUE)
        panel.set_title(title, fontsize=FONT, loc="left")
        panel.axvline(0, color=GREY, linewidth=0.8)
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(words)), words, fontsize=FONT)
    panels[0].set_ylim(len(words) - 0.5, -0.5)  # the first word on top
    return figure


def plot_agreement(
    grids: Mapping[str, Mapping[str, np.ndarray]],
    times: Sequence[int],
    *,
    mean: str = "all layers",
    ax: Axes | None = None,
) -> Figure:
    """IoU of maps and masks against the noise level: a panel for each grid, a line for each layer.

    grids: grid -> layer -> (steps, words), as agreement.class_agreement gives it. times: (steps,),
        timesteps of the schedule.
    mean: the entry that stands for the layers together, drawn thick, with one standard deviation over the words each
        way.
    """
    figure, panels = _chart_panels(len(grids), 2.3, ax, share_y=True)
    for panel, (grid, layers) in zip(panels, grids.items()):
        for colour, (layer, values) in zip(_line_colours(len(layers)), layers.items()):
            middle, thick = values.mean(axis=1), layer == mean
            # The mean lies under the layers, for where one of them makes it they run together.
            style = (
                {"color": "black", "linewidth": 3, "zorder": 1}
                if thick
                else {"color": colour, "linewidth": 1.2, "zorder": 2}
            )
            panel.plot(times, middle, label=layer, **style)
            if thick:
                spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else 0
                panel.fill_between(times, middle - spread, middle + spread, color=GREY, alpha=0.2, linewidth=0)
        panel.set_title(grid, fontsize=FONT, loc="left")
        panel.set_xlabel("noise level (timestep)", fontsize=FONT)
        panel.legend(fontsize=FONT - 2, frameon=False)
        panel.set_ylim(0, 1)
    panels[0].set_ylabel("IoU with the true mask", fontsize=FONT)
    return figure


def plot_cosines(cosines, rows: Sequence[str], columns: Sequence[str], *, ax: Axes | None = None) -> Figure:
    """A table of cosines whose cells are the darker the larger they are, with the numbers in them.

    cosines: (rows, columns), tensor or array, in [-1, 1].
    """
    cosines = np.asarray(cosines, dtype=float)
    figure, ((panel,),) = make_panels(1, 1, (1.6 + 0.95 * len(columns), 0.6 + 0.27 * len(rows)), ax)
    panel.imshow(cosines, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    panel.set_xticks(range(len(columns)), [textwrap.fill(column, 16) for column in columns], fontsize=FONT)
    panel.set_yticks(range(len(rows)), rows, fontsize=FONT)
    panel.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    panel.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(cosines):
        panel.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=FONT,
            color="white" if value > 0.6 else "black",
        )
    return figure


def push(loss: torch.Tensor, maps: torch.Tensor) -> np.ndarray:
    """Where a step down the gradient of `loss` raises the maps (above 0) and where it lowers them: -d loss / d maps.

    loss: a scalar. maps: (N, h, w), of which the loss is a function. Returns (N, h, w); zeros if no gradient reaches
        them.
    """
    (gradient,) = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True)
    return np.zeros(tuple(maps.shape), dtype=np.float32) if gradient is None else -gradient.numpy()


def plot_pushes(pushes: np.ndarray, titles: Sequence[str], *, ax: Axes | None = None) -> Figure:
    """Pushes in a row, with one colour scale that is symmetric around zero: red raises, blue
    lowers, white leaves alone.

    pushes: (N, h, w). titles: one each.
    """
    figure, panels = make_panels(1, len(pushes), (len(pushes) * SIDE + 0.8, SIDE + 0.15), ax)
    limit = float(np.abs(pushes).max()) or 1.0  # nothing is pushed: all white
    for panel, values, title in zip(panels.flat, pushes, titles):
        image = panel.imshow(values, cmap=PUSHES, vmin=-limit, vmax=limit, interpolation="nearest")
        panel.set_title(title, fontsize=FONT, pad=3)
        panel.set_xticks([])
        panel.set_yticks([])
    bar = figure.colorbar(image, ax=list(panels.flat), fraction=0.06, pad=0.015, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels(["lower", "0", "raise"], fontsize=FONT - 1)
    bar.ax.tick_params(length=2)
    bar.outline.set_visible(False)
    return figure


def plot_terms(curves: Mapping[str, Mapping[int, Mapping[str, float]]], *, ax: Axes | None = None) -> Figure:
    """Measured terms over the steps: a panel for each term, a line for each run.

    curves: run -> step -> term -> value. Up to four runs, all with the same terms.
    """
    terms = list(next(iter(next(iter(curves.values())).values())))
    figure, panels = make_panels(1, len(terms), (0.9 + 2.6 * len(terms), 2.2), ax)
    for panel, term in zip(panels.flat, terms):
        for colour, (run, steps) in zip((BLUE, ORANGE, GREEN, GREY), curves.items()):
            panel.plot(
                list(steps), [values[term] for values in steps.values()], "o-", color=colour, markersize=3.5, label=run
            )
        panel.set_title(term, fontsize=FONT, loc="left")
        panel.set_xlabel("step", fontsize=FONT)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=FONT - 1)
    panels.flat[0].legend(fontsize=FONT - 1, frameon=False)
    return figure


def _line_colours(count: int) -> list[str]:
    colours = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
    return [colours[index % len(colours)] for index in range(count)]


def _chart_panels(count: int, height: float, ax: Axes | None, share_y: bool = False) -> tuple[Figure, np.ndarray]:
    figure, panels = make_panels(1, count, (0.9 + 2.6 * count, height), ax, share_y)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=FONT - 1)
    return figure, panels[0]


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
