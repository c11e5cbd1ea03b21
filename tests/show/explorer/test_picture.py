"""The picture of a view: right colours in right places, true numbers beside them, whatever the sizes."""

import numpy as np
import pytest

from disendiff_lite.show.explorer.picture import (
    SIDE,
    colour_places,
    draw_view,
    legend_ends,
    map_colours,
    overlay_tile,
    picture_tile,
    range_label,
)
from disendiff_lite.show.explorer.view import View


def test_a_shared_scale_ends_at_the_highest_value_and_an_own_one_at_each_maps():
    maps = np.array([[[0.1, 0.2]], [[0.05, 0.4]]], dtype=np.float32)
    assert colour_places(maps, True).tolist() == [[[64, 128]], [[32, 255]]]
    assert colour_places(maps, False).tolist() == [[[0, 255]], [[0, 255]]]
    assert legend_ends(maps, True) == ("0", "0.4000") and legend_ends(maps, False) == ("lowest", "highest")
    assert range_label(maps[1], True) == "max 0.4000" and range_label(maps[1], False) == "0.0500 to 0.4000"


def test_a_tile_goes_from_the_grey_picture_to_the_colours_of_the_map():
    tile = np.full((SIDE, SIDE, 3), (200, 30, 30), dtype=np.uint8)
    places = np.array([[0, 255], [100, 50]], dtype=np.uint8)
    grey = overlay_tile(places, tile, 0.0)
    assert (grey == 81).all()  # 0.299 * 200 + (0.587 + 0.114) * 30
    half = SIDE // 2
    full = overlay_tile(places, tile, 1.0)
    assert (full[:half, half:] == map_colours()[255]).all() and (full[half:, :half] == map_colours()[100]).all()
    between = overlay_tile(places, tile, 0.6)
    assert np.allclose(between[0, -1], 81 * 0.16 + map_colours()[255] * 0.84, atol=1)


@pytest.mark.parametrize("shape, expected", [((64, 64), (192, 192)), ((512, 256), (192, 96)), ((3, 500), (1, 192))])
def test_tiles_keep_the_shape_of_the_picture(shape, expected):
    assert picture_tile(np.zeros((*shape, 3), np.uint8)).shape == (*expected, 3)


def test_small_pictures_keep_crisp_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(picture_tile(pixels)[1::3, 1::3], pixels)


def test_pictures_grow_with_words_and_records(new_record):
    records = (new_record(), new_record(1))
    one = draw_view(records[:1], [""], View((1, 2), "16x16"))
    both = draw_view(records, ["before", "after"], View((1, 2), "16x16"))
    wrapped = draw_view(records[:1], [""], View(tuple(range(6)), "8x8", shared=False))  # seven cards, in two rows
    none = draw_view(records[:1], [""], View((), "16x16"))
    assert one.height < both.height and one.height + SIDE < wrapped.height and one.width < wrapped.width
    assert both.height - one.height > SIDE and none.height == one.height


def test_long_names_and_prompts_do_not_widen_the_picture(new_record):
    record = new_record(
        prompt="a very long prompt " * 12, words=("counterrevolutionaries-in-chief" * 2, *new_record().words[1:])
    )
    plain = draw_view((new_record(),) * 2, ["before", "after"], View((0, 1), "16x16"))
    long = draw_view((record, record), ["before" * 9, "after" * 9], View((0, 1), "16x16"))
    assert long.width == plain.width and long.height > plain.height
