"""Pictures and maps: something is in them, scales are shared where maps are compared, and nothing is shown or left
open.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from disendiff_lite.show.maps import outline_cell, plot_map_grid, plot_maps, plot_pictures
from disendiff_lite.support.errors import UserError

WORDS = ("<new1>", "cat", "<new2>", "dog")
RANDOM = np.random.default_rng(0)
# A little picture that compresses as drawn ones do: a ramp with a square.
PICTURE = np.stack([np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))] * 3, axis=-1)
PICTURE[20:40, 20:40] = (200, 30, 30)


def maps(*shape: int) -> np.ndarray:
    centre = np.hypot(*(np.mgrid[:16, :16] - 8))
    return np.exp(-centre / 4) * RANDOM.uniform(0.01, 0.2, (*shape, 1, 1))


def pixels(figure) -> np.ndarray:
    """The figure as it would be saved; checks on the way that it is small and not left open for a notebook to show
    again.
    """
    assert not plt.get_fignums()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.tell() < 60_000
    return np.asarray(Image.open(file).convert("RGB"))


def pictured(figure) -> list:
    return [ax for ax in figure.axes if ax.images]


def test_pictures_stand_in_rows_with_crisp_pixels():
    figure = plot_pictures([PICTURE, Image.fromarray(PICTURE)] * 3, list("abcdef"), 4, row_titles=["one", "two"])
    drawn = pictured(figure)
    assert [ax.get_title() for ax in drawn] == list("abcdef")
    assert np.array_equal(drawn[0].images[0].get_array(), PICTURE)
    assert {ax.images[0].get_interpolation() for ax in drawn} == {"nearest"}
    assert (pixels(figure) == (200, 30, 30)).all(axis=-1).sum() > 1000


def test_long_titles_are_wrapped_and_large_pictures_shrunk():
    figure = plot_pictures([Image.fromarray(PICTURE).resize((512, 512))], ["photo of a <new1> cat and <new2> dog"])
    assert "\n" in figure.axes[0].get_title()
    assert figure.axes[0].images[0].get_array().shape == (256, 256, 3)
    assert pixels(figure).std() > 10


def test_maps_share_one_scale_unless_each_is_stretched():
    shown = maps(4)
    figure = plot_maps(shown, WORDS, PICTURE)
    drawn = pictured(figure)[1:]  # the first is the picture
    assert [ax.get_title() for ax in drawn] == list(WORDS)
    assert {(ax.images[-1].norm.vmin, ax.images[-1].norm.vmax) for ax in drawn} == {(0, np.float32(shown.max()))}
    assert np.allclose(drawn[2].images[-1].get_array(), shown[2])
    assert pixels(figure).std() > 10

    stretched = pictured(plot_maps(shown, WORDS, shared_scale=False))
    assert len(stretched) == 4
    for ax in stretched:
        assert ax.images[-1].get_array().min() == 0 and ax.images[-1].get_array().max() == pytest.approx(1)


@pytest.mark.parametrize(
    "pictures, panels",
    [(None, 8), (PICTURE, 10), ([PICTURE, PICTURE], 10), ([[PICTURE] * 4, [PICTURE] * 4], 8)],
)
def test_a_grid_of_maps_has_a_row_a_run_and_one_colour_bar(pictures, panels):
    figure = plot_map_grid(maps(2, 4), WORDS, ("before", "after"), pictures)
    assert len(pictured(figure)) == panels
    assert sum(ax.get_label() == "<colorbar>" for ax in figure.axes) == 1
    assert {text.get_text() for ax in figure.axes for text in ax.texts} == {"before", "after"}
    assert pixels(figure).std() > 10


def test_pictures_and_maps_can_stand_in_a_larger_figure():
    figure, axes = plt.subplots(2, 1, figsize=(7, 4), layout="constrained")
    assert plot_pictures([PICTURE] * 3, ax=axes[0]) is figure
    assert plot_maps(maps(4), WORDS, PICTURE, ax=axes[1]) is figure
    plt.close(figure)
    assert pixels(figure).std() > 10
    with pytest.raises(UserError, match="subplots"):
        plot_pictures([PICTURE], ax=figure.add_axes((0, 0, 1, 1)))


def test_a_frame_goes_around_the_cell_and_leaves_the_original():
    picture = Image.new("RGB", (64, 64))
    red = np.asarray(outline_cell(picture, (2, 5), (16, 16))).sum(axis=-1) > 0
    assert np.argwhere(red).min(axis=0).tolist() == [7, 19] and np.argwhere(red).max(axis=0).tolist() == [12, 24]
    assert not red[8:12, 20:24].any() and not np.asarray(picture).any()
