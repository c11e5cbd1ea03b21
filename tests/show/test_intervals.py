"""Intervals: dots and whiskers stand where the numbers say, and a difference that cannot be told is hollow."""

import pytest

from disendiff_lite.evaluate.intervals import Interval
from disendiff_lite.show.intervals import plot_intervals

PANELS = {
    "co-occurrence": {"full": Interval(0.2, 0.1, 0.3, 10, 30), "Custom Diffusion": Interval(-0.1, -0.2, 0.05, 10, 30)},
    "mix-up": {"Custom Diffusion": Interval(-0.4, -0.5, -0.3, 10, 30)},
}


@pytest.fixture
def dots():
    """By panel, (mean, row, whether it is filled) of each dot."""

    def of(figure):
        found = {}
        for panel in figure.axes:
            lines = [line for line in panel.lines if line.get_marker() == "o"]
            found[panel.get_title(loc="left")] = [
                (line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white") for line in lines
            ]
        return found

    return of


def test_dots_stand_in_the_row_of_their_method(dots):
    assert dots(plot_intervals(PANELS)) == {
        "co-occurrence": [(0.2, 0, True), (-0.1, 1, True)],
        "mix-up": [(-0.4, 1, True)],
    }


def test_what_cannot_be_told_from_zero_is_hollow(dots):
    assert [full for *_, full in dots(plot_intervals(PANELS, zero=True))["co-occurrence"]] == [True, False]


def test_whiskers_reach_from_low_to_high():
    panel = plot_intervals(PANELS).axes[1]
    (whisker,) = [line for line in panel.lines if len(line.get_xdata()) == 2]
    assert list(whisker.get_xdata()) == [-0.5, -0.3]
