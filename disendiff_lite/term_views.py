"""The calibration's terms made visible: where each of them pushes a map, and how they change while a run trains."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disendiff_lite.charts import BLUE, GREEN, GREY, ORANGE
from disendiff_lite.panels import FONT, make_panels

PUSHES = "RdBu_r"  # red where a step raises the map, blue where it lowers it
SIDE = 1.35  # of a map, inches


def push(loss: torch.Tensor, maps: torch.Tensor) -> np.ndarray:
    """Where a step down the gradient of `loss` raises the maps (above 0) and where it lowers them: -d loss / d maps.

    loss: a scalar. maps: (N, h, w), of which the loss is a function. Returns (N, h, w); zeros if no gradient reaches them.
    """
    (gradient,) = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True)
    return np.zeros(tuple(maps.shape), dtype=np.float32) if gradient is None else -gradient.numpy()


def plot_pushes(pushes: np.ndarray, titles: Sequence[str], *, ax: Axes | None = None) -> Figure:
    """Pushes in a row, with one colour scale that is symmetric around zero: red raises, blue lowers, white leaves alone.

    pushes: (N, h, w). titles: one each.
    """
    figure, panels = make_panels(1, len(pushes), (len(pushes) * SIDE + 0.8, SIDE + 0.15), ax)
    limit = float(np.abs(pushes).max()) or 1.0  # nothing is pushed: all white
    for panel, values, title in zip(panels.flat, pushes, titles):
        drawn = panel.imshow(values, cmap=PUSHES, vmin=-limit, vmax=limit, interpolation="nearest")
        panel.set_title(title, fontsize=FONT, pad=3)
        panel.set_xticks([])
        panel.set_yticks([])
    bar = figure.colorbar(drawn, ax=list(panels.flat), fraction=0.06, pad=0.015, ticks=[-limit, 0, limit])
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
            panel.plot(list(steps), [values[term] for values in steps.values()], "o-", color=colour, markersize=3.5, label=run)
        panel.set_title(term, fontsize=FONT, loc="left")
        panel.set_xlabel("step", fontsize=FONT)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=FONT - 1)
    panels.flat[0].legend(fontsize=FONT - 1, frameon=False)
    return figure
