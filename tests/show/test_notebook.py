"""Views of a training: records pass through unchanged, one figure stays, and maps are kept at the right steps."""

import IPython.display
import numpy as np
import pytest

from disendiff_lite import losses
from disendiff_lite.attention_record import AttentionRecord
from disendiff_lite.show import notebook as training_views
from disendiff_lite.show.notebook import code_listing, follow_maps, live_losses, read_followed
from disendiff_lite.support.errors import UserError
from disendiff_lite.training import StepRecord


class Handle:
    def __init__(self):
        self.figures = []

    def update(self, figure):
        self.figures.append(figure)


@pytest.fixture
def shown(monkeypatch):
    """The displays that were made, each with the figures that took the place of its first one."""
    made = []

    def display(figure, display_id):
        made.append(Handle())
        made[-1].update(figure)
        return made[-1]

    monkeypatch.setattr(IPython.display, "display", display)
    return made


def write_losses(folder, steps):
    columns = "step,reconstruction,bind,separate,total,learning_rate,seconds"
    lines = [f"{step},0.5,0.4,0.2,0.506,0.001,0.1" for step in range(1, steps + 1)]
    (folder / "losses.csv").write_text("\n".join([columns, *lines]) + "\n")


def train(folder, steps):
    for step in range(1, steps + 1):
        write_losses(folder, step)
        yield StepRecord(step, 0.5, 0.4, 0.2, 0.506, 1e-3, 0.1)


@pytest.mark.parametrize("watched, figures", [(True, 4), (False, 1)])
def test_one_figure_changes_in_place(watched, figures, shown, tmp_path, monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 1.5))
    monkeypatch.setattr(training_views.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(training_views, "is_watched", lambda: watched)
    assert [record.step for record in live_losses(train(tmp_path, 7), tmp_path)] == list(range(1, 8))
    (display,) = shown
    assert len(display.figures) == figures
    assert len(display.figures[-1].axes[0].lines[0].get_xdata()) == 7  # the last one shows the whole run


def test_a_run_that_is_only_loaded_is_drawn_too(shown, tmp_path):
    write_losses(tmp_path, 5)
    assert list(live_losses([], tmp_path)) == []
    assert [len(display.figures) for display in shown] == [1]


def record_of(value) -> AttentionRecord:
    maps = {"16x16": np.full((1, 1, 1, 1, 16, 16), value, dtype=np.float16)}
    return AttentionRecord(
        "a cat", ("cat",), (2,), ("class",), (500,), np.zeros((8, 8, 3), np.uint8), {"16x16": ("mid",)}, maps
    )


def test_maps_are_kept_every_so_many_steps(tmp_path):
    seen = []

    def look():
        return record_of(len(seen))

    for record in follow_maps(train(tmp_path, 7), look, tmp_path / "maps", every=3, before=record_of(0)):
        seen.append(record.step)
    assert seen == list(range(1, 8))
    kept = read_followed(tmp_path / "maps")
    assert list(kept) == [0, 3, 6]
    assert [record.maps["16x16"].max() for record in kept.values()] == [0, 2, 5]  # before the caller sees the step


def test_maps_that_were_never_followed(tmp_path):
    with pytest.raises(UserError, match="no maps"):
        read_followed(tmp_path)


def bare(a):
    # a comment stays
    return a


def test_docstrings_are_left_out_and_the_code_stays():
    text = code_listing(losses.bind_loss, losses.suppress).data
    assert text.startswith("```python\ndef bind_loss(") and text.endswith("```") and '"""' not in text
    assert "    return (1 - soft_iou(class_maps.detach(), modifier_maps)).sum()\n" in text
    assert text.count("\ndef ") == 2 and "\n\n\n" not in text


def test_a_function_without_one_is_shown_whole():
    assert code_listing(bare).data == "```python\ndef bare(a):\n    # a comment stays\n    return a\n```"
