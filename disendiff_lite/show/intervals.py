"""Intervals as dots with whiskers: how methods stand, or how they differ from one of them."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disendiff_lite.evaluate.intervals import Interval
from disendiff_lite.show.charts import BLUE, GREY
from disendiff_lite.show.maps import FONT, make_panels

ROW = 0.24  # height of a row, inches


def plot_intervals(
    panels: Mapping[str, Mapping[str, Interval]], *, zero: bool = False, ax: Axes | None = None
) -> Figure:
    """A panel for each measure, in it a row for each method: a dot at the mean, a whisker from low to high.

    panels: measure -> method -> interval, such as bootstrap gives; a method that a measure lacks leaves its row empty.
    zero: draw a line at zero, for differences; what lies wholly to one side of it is drawn full, the rest hollow.
    """
    methods = list(dict.fromkeys(method for rows in panels.values() for method in rows))
    size = (1.5 + 2.1 * len(panels), 0.7 + ROW * len(methods))
    figure, axes = make_panels(1, len(panels), size, ax, share_y=True)
    for panel, (measure, rows) in zip(axes[0], panels.items()):
        if zero:
            panel.axvline(0, color=GREY, linewidth=0.8)
        for place, method in enumerate(methods):
            if method in rows:
                found = rows[method]
                told = not zero or found.low > 0 or found.high < 0
                panel.plot([found.low, found.high], [place, place], color=BLUE, linewidth=1.6)
                face = BLUE if told else "white"
                panel.plot(found.mean, place, "o", markersize=5, markerfacecolor=face, markeredgecolor=BLUE)
        panel.set_title(measure, fontsize=FONT, loc="left")
        panel.set_xlabel("difference, 95 % interval" if zero else "mean, 95 % interval", fontsize=FONT - 1, color=GREY)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="x", labelsize=FONT - 1)
        panel.tick_params(axis="y", length=0)
        panel.margins(x=0.15)
    axes[0][0].set_yticks(range(len(methods)), methods, fontsize=FONT)
    axes[0][0].set_ylim(len(methods) - 0.5, -0.5)  # the first method on top
    return figure
