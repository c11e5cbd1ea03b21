"""Maps against masks, with answers that can be counted by hand."""

import numpy as np
import pytest
import torch

from disendiff_lite.evaluate.maps import enlarge, map_density, map_hits, map_iou, mask_to_grid
from disendiff_lite.support.errors import UserError


def mask(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    pixels = np.zeros((64, 64), bool)
    pixels[top:bottom, left:right] = True
    return pixels


def test_a_cell_belongs_to_the_object_if_half_of_it_is_covered():
    grid = mask_to_grid(mask(0, 8, 0, 6)[None], (16, 16))[0]  # cells are 4 px: two rows, one and a half columns
    assert grid.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert mask_to_grid(mask(0, 8, 0, 5)[None], (16, 16)).sum() == 2


def test_an_object_too_thin_for_any_cell_still_has_cells():
    grid = mask_to_grid(mask(0, 64, 20, 21)[None], (16, 16))[0]
    assert grid[:, 5].all() and grid.sum() == 16


def test_hits_count_the_peaks_on_the_mask():
    maps = torch.zeros(3, 16, 16)
    maps[0, 1, 1] = 1.0  # on it
    maps[1, 9, 9] = 1.0  # off it
    maps[2] = 0.5  # flat: no peak
    score = map_hits(maps, np.stack([mask(0, 16, 0, 16)] * 3))
    assert score.values == (1, 0, 0)
    assert score.mean == pytest.approx(1 / 3)


def test_iou_after_stretching():
    maps = np.full((2, 16, 16), 0.01, np.float16)
    maps[0, :4, :4] = 0.03  # exactly the mask, although far from 0 and 1
    maps[1, :4, 2:6] = 0.03  # half of it: 8 cells in both, 24 in either
    score = map_iou(maps, torch.from_numpy(np.stack([mask(0, 16, 0, 16)] * 2)))
    assert score.values == pytest.approx((1, 1 / 3))
    maps[0, 0, 0] = 0.025  # at 3/4 of the way
    assert map_iou(maps[:1], mask(0, 16, 0, 16)[None], threshold=0.8).mean == pytest.approx(15 / 16)


def test_density_is_one_without_preference_and_counts_how_much_more_is_inside():
    maps = np.full((2, 16, 16), 0.02)
    maps[1, :4, :4] = 0.06  # three times the rest, on a sixteenth of the picture
    score = map_density(maps, np.stack([mask(0, 16, 0, 16)] * 2))
    assert score.values == pytest.approx((1, 3 / (1 + 2 / 16)))


def test_an_enlarged_map_is_measured_in_pixels():
    maps = np.zeros((1, 8, 8))
    maps[0, 1, 2] = 1
    large = enlarge(maps, (64, 64))
    assert large.nonzero().amin(dim=0).tolist() == [0, 8, 16] and large.sum() == 64
    assert map_iou(large, mask(8, 16, 16, 20)[None]).mean == pytest.approx(0.5)  # in cells of the grid it would be 1


def test_empty_masks_and_wrong_numbers_are_refused():
    with pytest.raises(UserError, match=r"\[1\] are empty"):
        map_hits(np.ones((2, 16, 16)), np.stack([mask(0, 16, 0, 16), mask(0, 0, 0, 0)]))
    with pytest.raises(UserError, match="2 masks"):
        map_iou(np.ones((1, 16, 16)), np.ones((2, 64, 64)))
