"""Charts: their terms and bars are what was measured, and nothing is shown or left open."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from test_plotting import pixels

from disendiff_lite.charts import plot_agreement, plot_cosines, plot_losses, plot_one_query, plot_scores
from disendiff_lite.runs import StepRecord
from disendiff_lite.scores import Score


def records(count: int, calibrated: bool = True) -> list[StepRecord]:
    made = []
    for step in range(1, count + 1):
        there = calibrated and step % 7
        bind, separate = (1 / step, 0.2) if there else (math.nan, math.nan)
        made.append(StepRecord(step, 0.5, bind, separate, 0.5 + 0.01 * (bind + separate) if there else 0.5, 1e-4, 0.1))
    return made


def test_loss_curves_name_their_terms_and_leave_steps_without_a_term_out():
    figure = plot_losses(records(50), window=1)
    left, right = figure.axes
    assert [line.get_label() for line in right.lines][1::2] == ["bind", "separate"]
    assert "weighted" in left.lines[3].get_label() and "unweighted" in right.get_title(loc="left")
    bind = right.lines[1].get_ydata()
    assert np.isnan(bind[6]) and bind[9] == pytest.approx(0.1)
    assert left.lines[3].get_ydata()[9] == pytest.approx(0.01 * 0.3)
    smoothed = plot_losses(records(50), window=3).axes[1].lines[1].get_ydata()
    assert smoothed[9] == pytest.approx((1 / 9 + 1 / 10 + 1 / 11) / 3)
    assert smoothed[6] == pytest.approx((1 / 6 + 1 / 8) / 2)  # the seventh step has no term
    assert pixels(figure).std() > 10


def test_loss_curves_without_calibration_and_of_one_step():
    assert len(plot_losses(records(20, calibrated=False)).axes) == 1
    assert pixels(plot_losses(records(1))).std() > 5


def test_scores_have_a_panel_a_measure_and_a_bar_a_run():
    table = {
        "DisenDiff": {"image-alignment": Score((0.7, 0.9)), "leakage": Score((-0.1, -0.2))},
        "Custom Diffusion": {"image-alignment": Score((0.6,))},
    }
    figure = plot_scores(table)
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == pytest.approx([0.8, 0.6])
    assert [bar.get_width() for bar in second.patches] == pytest.approx([-0.15])
    assert [label.get_text() for label in first.get_yticklabels()] == list(table)
    assert [text.get_text() for text in first.texts + second.texts] == ["0.800", "0.600", "-0.150"]
    assert pixels(figure).std() > 10


def test_one_query_has_a_bar_a_word_in_both_panels():
    figure = plot_one_query(["[start]", "cat"], torch.tensor([2.0, -1.0]), torch.tensor([0.9, 0.1]))
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([2, -1])
    assert [bar.get_width() for bar in right.patches] == pytest.approx([0.9, 0.1])
    assert [label.get_text() for label in left.get_yticklabels()] == ["[start]", "cat"]
    assert pixels(figure).std() > 10


def test_agreement_has_a_panel_a_grid_and_a_line_a_layer():
    values = np.array([[0.2, 0.4], [0.6, 0.8]])
    figure = plot_agreement({"16x16": {"up 1": values, "all layers": values / 2}, "8x8": {"all layers": values}}, (100, 900))
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["up 1", "all layers"] and len(right.lines) == 1
    assert left.lines[0].get_ydata() == pytest.approx([0.3, 0.7])
    assert left.lines[1].get_linewidth() > left.lines[0].get_linewidth()
    assert pixels(figure).std() > 10


def test_cosines_stand_in_their_cells():
    figure = plot_cosines(torch.tensor([[1.0, 0.25], [-0.1, 0.5]]), ["a picture", "another"], ["a cat", "a dog on the beach"])
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["1.00", "0.25", "-0.10", "0.50"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a picture", "another"]
    assert pixels(figure).std() > 10


def test_charts_can_stand_in_a_larger_figure():
    figure, axes = plt.subplots(2, 1, figsize=(7, 5), layout="constrained")
    assert plot_losses(records(20), ax=axes[0]) is figure
    assert plot_scores({"run": {"score": Score((1.0, 2.0))}}, ax=axes[1]) is figure
    plt.close(figure)
    assert pixels(figure).std() > 10
