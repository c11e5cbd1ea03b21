"""The evaluation's table: intervals, rows, and the maps of class words."""

import numpy as np
import pytest
import torch

from disendiff_lite.attention import average_maps, capture_attention
from disendiff_lite.emoji_world.check import evaluate, word_maps
from disendiff_lite.emoji_world.check.table import mean_row, share_row, table


def test_rows_of_known_values():
    row = share_row("x", np.array([True, True, False, True]))
    assert row.value == 0.75 and row.count == 4 and row.low < 0.75 < row.high
    row = mean_row("y", np.array([1.0, 3.0]), unit="dB")
    assert row.value == 2 and row.high - row.value == pytest.approx(1.96)
    printed = table([row])
    assert "2.00 dB" in printed and "0.04 dB to 3.96 dB" in printed


def test_class_maps_pick_the_word_and_the_mask_of_each_thing(tiny_pipe, scenes):
    part = [scene for scene in scenes if len(scene.things) == 2 and all(mask.any() for mask in scene.masks)][:2]
    ids = tiny_pipe.tokenizer([s.caption for s in part], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad(), capture_attention(tiny_pipe.unet, 16) as store:
        tiny_pipe.unet(torch.zeros(2, 4, 16, 16), 500, tiny_pipe.text_encoder(ids)[0])
    maps = average_maps(store)
    chosen, masks = word_maps.class_maps(maps, ids, part, tiny_pipe.tokenizer)
    assert chosen.shape == (4, 16, 16) and masks.shape == (4, 64, 64)
    words = tiny_pipe.tokenizer.convert_ids_to_tokens(ids[1].tolist())
    place = words.index(part[1].things[0].design.class_ + "</w>")
    assert torch.equal(chosen[2], maps[1, place]) and torch.equal(masks[2], torch.from_numpy(part[1].masks[0]))


def test_an_untrained_pipeline_can_be_measured(tiny_pipe, scenes):
    rows = [evaluate.autoencoder_row(tiny_pipe, scenes[:4]), *word_maps.map_rows(tiny_pipe, scenes[:4], seed=0)]
    assert rows[0].unit == "dB" and rows[0].count == 4
    assert 0 <= rows[1].value <= 1 and 0 <= rows[2].value <= 1
    assert rows[1].count == len(word_maps.LEVELS) * sum(mask.any() for s in scenes[:4] for mask in s.masks)
