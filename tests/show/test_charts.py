"""Charts: their terms and bars are what was measured, and nothing is shown or left open."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from disendiff_lite.evaluate.score import Score
from disendiff_lite.losses import bind_loss, separate_loss
from disendiff_lite.show.charts import (
    plot_agreement,
    plot_cosines,
    plot_losses,
    plot_one_query,
    plot_pushes,
    plot_scores,
    plot_terms,
    push,
)
from disendiff_lite.training import StepRecord
from tests.show.test_maps import pixels


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
    figure = plot_agreement(
        {"16x16": {"up 1": values, "all layers": values / 2}, "8x8": {"all layers": values}}, (100, 900)
    )
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["up 1", "all layers"] and len(right.lines) == 1
    assert left.lines[0].get_ydata() == pytest.approx([0.3, 0.7])
    assert left.lines[1].get_linewidth() > left.lines[0].get_linewidth()
    assert pixels(figure).std() > 10


def test_cosines_stand_in_their_cells():
    figure = plot_cosines(
        torch.tensor([[1.0, 0.25], [-0.1, 0.5]]), ["a picture", "another"], ["a cat", "a dog on the beach"]
    )
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


def test_bind_moves_the_modifier_alone_and_towards_its_class():
    classes = torch.zeros(1, 4, 4)
    classes[:, :2] = 1
    modifiers = torch.full((1, 4, 4), 0.5)
    loss = bind_loss(modifiers.requires_grad_(), classes.requires_grad_())
    pushed = push(loss, modifiers)
    assert (pushed[:, :2] > 0).all() and (pushed[:, 2:] < 0).all()
    assert not push(loss, classes).any()


def test_separate_lowers_what_is_shared_and_raises_the_rest():
    first, second = torch.zeros(2, 4, 4)
    first[:2], second[1:3] = 0.5, 0.5
    maps = torch.stack([first, second]).requires_grad_()
    pushed = push(separate_loss(maps), maps)
    assert (pushed[0, 1] < 0).all() and (pushed[0, 0] > 0).all()
    assert pushed[0, 1, 0] == pytest.approx(pushed[1, 1, 0])


def test_pushes_share_a_scale_around_zero():
    figure = plot_pushes(np.stack([np.full((4, 4), -2.0), np.full((4, 4), 1.0)]), ["cat", "dog"])
    first, second, _ = figure.axes
    assert [image.get_clim() for panel in (first, second) for image in panel.images] == [(-2, 2), (-2, 2)]
    assert [panel.get_title() for panel in (first, second)] == ["cat", "dog"]
    assert pixels(figure).std() > 10
    assert pixels(plot_pushes(np.zeros((1, 4, 4)), ["nothing"])).std() > 1


def test_terms_have_a_panel_each_and_a_line_a_run():
    curves = {
        "DisenDiff": {0: {"bind": 1.0, "separate": 0.3}, 50: {"bind": 0.5, "separate": 0.2}},
        "Custom Diffusion": {0: {"bind": 1.0, "separate": 0.3}},
    }
    figure = plot_terms(curves)
    bind, separate = figure.axes
    assert [panel.get_title(loc="left") for panel in (bind, separate)] == ["bind", "separate"]
    assert list(separate.lines[0].get_ydata()) == [0.3, 0.2] and list(bind.lines[0].get_xdata()) == [0, 50]
    assert [line.get_label() for line in bind.lines] == list(curves)
    assert pixels(figure).std() > 5
