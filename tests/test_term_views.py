"""The terms' pushes have the right sign and side, and the figures show what they were given."""

import numpy as np
import pytest
import torch
from test_plotting import pixels

from disendiff_lite.losses import bind_loss, separate_loss
from disendiff_lite.term_views import plot_pushes, plot_terms, push


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
    curves = {"DisenDiff": {0: {"bind": 1.0, "separate": 0.3}, 50: {"bind": 0.5, "separate": 0.2}},
              "Custom Diffusion": {0: {"bind": 1.0, "separate": 0.3}}}
    figure = plot_terms(curves)
    bind, separate = figure.axes
    assert [panel.get_title(loc="left") for panel in (bind, separate)] == ["bind", "separate"]
    assert list(separate.lines[0].get_ydata()) == [0.3, 0.2] and list(bind.lines[0].get_xdata()) == [0, 50]
    assert [line.get_label() for line in bind.lines] == list(curves)
    assert pixels(figure).std() > 5
