"""The explorer widget, driven as a front end drives it: each control changes the picture at once, and no model is there
to call.
"""

import io
import statistics
import time

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from disendiff_lite.show.explorer.picture import draw_view
from disendiff_lite.show.explorer.view import View
from disendiff_lite.show.explorer.widget import AttentionExplorer
from disendiff_lite.support.errors import UserError

LONGEST = 0.05  # seconds that a change may take


def drawn(explorer: AttentionExplorer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(explorer._image.value)))


def test_each_control_changes_the_picture(new_record):
    explorer = AttentionExplorer(new_record())
    assert explorer.view == View((1, 2, 5), "16x16")
    assert [chip.description for chip in explorer._chips] == [
        "a",
        "<new1> · modifier",
        "cat · class",
        "and",
        "a (2)",
        "dog · class",
    ]
    changes = {
        "_step": 3,
        "_layer": 2,
        "_head": 3,
        "_strength": 0.9,
        "_shared": False,
        "_grid": "8x8",
    }
    for name, value in changes.items():
        before = explorer._image.value
        getattr(explorer, name).value = value
        assert explorer._image.value != before, name
    assert explorer.view == View(
        (1, 2, 5), "8x8", step=3, strength=0.9, shared=False
    )  # other layers and heads: means again
    explorer._chips[2].value = False
    assert explorer.view.words == (1, 5)
    assert np.array_equal(drawn(explorer), draw_view((new_record(),), [""], explorer.view))
    explorer._play.value = 2
    assert explorer.view.step == 1 and "noise level 700" in explorer._step.label


def test_two_records_side_by_side_under_the_same_controls(new_record):
    records = (new_record(), new_record(1))
    explorer = AttentionExplorer(*records, names=("Custom Diffusion", "DisenDiff"), words=["cat", "a (2)"])
    explorer._step.value = 4
    expected = draw_view(records, ["Custom Diffusion", "DisenDiff"], View((2, 4), "16x16", step=4))
    assert np.array_equal(drawn(explorer), expected)


def test_the_static_figure_shows_the_same(new_record):
    records = (new_record(), new_record(1))
    explorer = AttentionExplorer(*records, words=["cat", "dog"])
    explorer._step.value, explorer._strength.value = 1, 0.5
    figure = explorer.figure()
    panels = [ax for ax in figure.axes if ax.get_title() or len(ax.images) == 2]
    maps = [ax.images[-1] for ax in panels if len(ax.images) == 2]
    assert isinstance(figure, Figure) and len(maps) == 4
    assert np.allclose(
        maps[3].get_array(), records[1].maps["16x16"][1, :, :, 5].astype(np.float32).mean(axis=(0, 1)), atol=1e-4
    )
    assert np.allclose(maps[0].cmap(0.0)[3], 0.25) and np.allclose(maps[0].cmap(1.0)[3], 0.75)
    for chip in explorer._chips:
        chip.value = False
    with pytest.raises(UserError, match="No word is chosen"):
        explorer.figure()
    assert drawn(explorer).shape[2] == 3  # the pictures alone


def test_save_the_picture(new_record, tmp_path):
    explorer = AttentionExplorer(new_record())
    explorer.save(tmp_path / "new" / "one.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "one.png")), drawn(explorer))
    explorer._path.value = str(tmp_path / "two")
    explorer._save.click()
    assert (tmp_path / "two").read_bytes()[1:4] == b"PNG" and explorer._message.value == f"saved {tmp_path / 'two'}"
    explorer._path.value = str(tmp_path / "two" / "three.png")
    explorer._save.click()
    assert explorer._message.value.startswith("Cannot write")


def test_what_cannot_be_shown_is_explained(new_record):
    with pytest.raises(UserError, match="did you mean 'dog'"):
        AttentionExplorer(new_record(), words=["dgo"])
    with pytest.raises(UserError, match="differ in their words"):
        AttentionExplorer(new_record(), new_record(words=("a", "<new1>", "cow", "and", "a", "dog")))


def test_a_notebook_without_widgets_shows_a_line(new_record):
    assert (
        repr(AttentionExplorer(new_record()))
        == "AttentionExplorer of 'a <new1> cat and a dog': run the notebook to use it"
    )


def test_a_change_is_fast(new_record):
    """A record of the usual size: 25 steps, 3 layers, 4 heads, 8 words; four of them and two records are shown."""
    random = np.random.default_rng(0)
    words = ("photo", "of", "a", "<new1>", "cat", "and", "<new2>", "dog")
    maps = random.random((25, 3, 4, 8, 16, 16)).astype(np.float16)
    usual = {
        "words": words,
        "positions": tuple(range(1, 9)),
        "roles": ("", "", "", "modifier", "class", "", "modifier", "class"),
        "times": tuple(range(961, 0, -40)),
        "layers": {"16x16": ("x", "y", "z")},
        "maps": {"16x16": maps},
    }
    explorer = AttentionExplorer(new_record(**usual), new_record(1, **usual))
    seconds = []
    for step in range(25):
        begun = (
            time.process_time()
        )  # others may compete for the cores in a test run: this is what the work itself takes
        explorer._step.value = step
        seconds.append(time.process_time() - begun)
    assert statistics.median(seconds) < LONGEST
