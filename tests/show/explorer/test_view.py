"""Views of records: the right words, steps, layers and heads, the wording that goes with them, and what cannot be
compared.
"""

import dataclasses

import numpy as np
import pytest

from disendiff_lite.attention_record import layer_label
from disendiff_lite.show.explorer.view import (
    View,
    check_records,
    chosen_words,
    describe,
    overlay_opacities,
    select_maps,
    word_labels,
)
from disendiff_lite.show.maps import OVERLAY
from disendiff_lite.support.errors import UserError


def test_words_are_told_apart_and_found(new_record):
    record = new_record()
    assert word_labels(record) == ("a", "<new1>", "cat", "and", "a (2)", "dog")
    assert chosen_words(record, None) == (1, 2, 5)
    assert chosen_words(record, ["dog", "a (2)", "dog"]) == (4, 5)
    assert chosen_words(new_record(roles=("",) * 6), None) == tuple(range(6))
    with pytest.raises(UserError, match="There is no word 'cta': did you mean 'cat'?"):
        chosen_words(record, ["dog", "cta"])


def test_maps_of_a_view_are_those_of_the_record(new_record):
    records = (new_record(), new_record(1))
    maps = select_maps(records, View((5, 1), "8x8", step=2, layer=1, head=0))
    assert np.array_equal(maps, [record.maps["8x8"][2, 1, 0][[5, 1]] for record in records])
    means = select_maps(records, View((2,), "16x16"))
    assert np.allclose(
        means[1, 0], records[1].maps["16x16"][:, :, :, 2].astype(np.float32).mean(axis=(0, 1, 2)), atol=1e-6
    )


def test_a_view_in_words(new_record):
    record = new_record()
    assert describe(record, View((1,), "16x16")) == "mean of 5 steps, 16x16 maps, mean of 3 layers, mean of 4 heads"
    one = View((1,), "8x8", step=1, layer=1, head=0)
    assert describe(record, one) == "step 2 of 5, noise level 700, 8x8 maps, up 1, head 1 of 2"


def test_an_overlay_goes_from_the_picture_alone_to_the_map_alone():
    assert overlay_opacities(0) == (0, 0) and overlay_opacities(1) == (1, 1)
    assert np.allclose(overlay_opacities(0.6), OVERLAY, atol=0.05)


@pytest.mark.parametrize(
    "changes, what",
    [
        (
            {"words": ("a", "<new1>", "cow", "and", "a", "dog")},
            r"words \(a <new1> cat and a dog and a <new1> cow and a dog\)",
        ),
        ({"times": (900, 700, 500, 300, 0)}, "noise levels"),
        ({"layers": {"16x16": ("x",) * 3, "8x8": ("y",) * 2}}, "layers"),
    ],
)
def test_records_that_cannot_be_compared(new_record, changes, what):
    record = new_record()
    assert check_records(record, None, ("same", "same")) == (record,)
    with pytest.raises(UserError, match=f"differ in their {what}.*: record both"):
        check_records(record, dataclasses.replace(record, **changes), ("before", "after"))


def test_other_grids_heads_names_and_broken_maps_are_refused(new_record):
    record = new_record()
    one_grid = new_record(layers={"8x8": record.layers["8x8"]}, maps={"8x8": record.maps["8x8"]})
    with pytest.raises(UserError, match=r"grids \(16x16, 8x8 and 8x8\)"):
        check_records(record, one_grid, ("before", "after"))
    fewer = {grid: maps[:, :, :2] for grid, maps in record.maps.items()}
    with pytest.raises(UserError, match=r"heads \(4, 2 and 2, 2\)"):
        check_records(record, new_record(maps=fewer), ("before", "after"))
    for names in (("one",), ("same", "same")):
        with pytest.raises(UserError, match="two different"):
            check_records(record, record, names)
    broken = {grid: np.where(maps > 0.3, np.nan, maps) for grid, maps in record.maps.items()}
    with pytest.raises(UserError, match="no numbers"):
        check_records(new_record(maps=broken), None, ())


def test_layers_have_short_names():
    assert layer_label("up_blocks.1.attentions.0.transformer_blocks.0.attn2") == "up 1.0"
    assert layer_label("mid_block.attentions.0.transformer_blocks.0.attn2") == "mid 0"
