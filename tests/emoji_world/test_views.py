"""Scenes on disk, and pairs of views of the same individuals."""

import numpy as np

from disendiff_lite.emoji_world.draw import views
from disendiff_lite.emoji_world.draw.dataset import load_scenes, shrink_masks
from disendiff_lite.emoji_world.draw.world import classes, designs


def test_a_cell_of_a_shrunk_mask_holds_its_covered_share():
    mask = np.zeros((1, 64, 64), bool)
    mask[0, :4, :2] = True
    shrunk = shrink_masks(mask)
    assert shrunk.shape == (1, 16, 16) and shrunk[0, 0, 0] == 0.5 and shrunk.sum() == 0.5


def test_scenes_are_kept_on_disk_and_differ_between_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr("disendiff_lite.emoji_world.draw.dataset.SHARD", 6)
    first = load_scenes(tmp_path, 8, seed=0, workers=1)
    again = load_scenes(tmp_path, 8, seed=0, workers=1)
    other = load_scenes(tmp_path, 8, seed=1, workers=1)
    assert len(first) == 8 and first.masks.shape == (8, 3, 16, 16)
    assert (first.pictures == again.pictures).all() and first.captions == again.captions
    assert first.captions != other.captions
    assert all(word in caption for words, caption in zip(first.classes, first.captions, strict=True) for word in words)
    assert not list(tmp_path.glob("*.part.npz"))


def test_two_views_show_the_same_individuals_differently(some_views):
    assert (some_views.pictures[:, 0] != some_views.pictures[:, 1]).any(axis=(1, 2, 3)).all()
    kinds = views.class_indices(some_views)
    for row in range(len(some_views)):
        for kind, design in zip(kinds[row], some_views.designs[row], strict=True):
            if design >= 0:
                assert classes()[kind] == designs()[design].class_
                assert all(classes()[kind] in text for text in some_views.captions[row])
    assert any(designs()[d].held_out for d in some_views.designs.ravel() if d >= 0)


def test_views_are_the_same_for_a_seed_and_come_back_from_disk(tmp_path):
    first, kept = views.random_views(5, seed=3), views.cached_views(tmp_path, 5, seed=3)
    again = views.cached_views(tmp_path, 5, seed=3)
    for other in (kept, again):
        assert (first.pictures == other.pictures).all() and (first.captions == other.captions).all()


def test_owner_maps_count_from_one_and_need_half_a_cell():
    masks = np.zeros((2, 64, 64), bool)
    masks[0, :4, :2] = masks[1, :4, 4:8] = masks[1, 4:8, :1] = True
    owners = views.owner_map(masks)
    assert owners[0, 0] == 1 and owners[0, 1] == 2 and owners.sum() == 3
