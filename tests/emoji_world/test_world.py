"""The things of the world: designs, sprites, colours, and the hues that are held out."""

import numpy as np
import pytest

from disendiff_lite.emoji_world.draw.world import (
    COLOURS,
    classes,
    designs,
    designs_of,
    is_held_out_hue,
    recolour,
    sprite,
)


def test_every_class_of_the_world_has_designs_for_pretraining_and_held_out_ones():
    assert len(classes()) >= 20
    for class_ in classes():
        assert len(designs_of(class_)) >= 8 and designs_of(class_, held_out=True)
        assert all(d.set != "fluent-emoji" for d in designs_of(class_))


def test_every_sprite_fills_its_cell_by_its_longer_side():
    for design in designs():
        alpha = sprite(design.index)[..., 3] > 0.1
        rows, columns = np.nonzero(alpha.any(axis=1))[0], np.nonzero(alpha.any(axis=0))[0]
        assert max(np.ptp(rows), np.ptp(columns)) >= 60, design


def test_recolouring_gives_the_named_colour_and_keeps_the_shape():
    picture = sprite(designs_of("cat")[0].index)
    for word, colour in COLOURS.items():
        wanted = np.array(colour) / 255
        painted = recolour(picture, tuple(wanted))
        assert (painted[..., 3] == picture[..., 3]).all()
        middle = np.median(painted[painted[..., 3] > 0.5][:, :3], axis=0)
        nearest = min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) / 255 - middle).sum())
        assert nearest == word


@pytest.mark.parametrize(
    "hue, held_out", [(80, True), (89, True), (91, False), (175, True), (305, True), (296, True), (0, False)]
)
def test_hues_near_the_held_out_ones_are_held_out(hue, held_out):
    assert is_held_out_hue(hue) == held_out
    assert is_held_out_hue(hue + 360) == held_out
