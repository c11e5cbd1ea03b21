"""Maps of all scales: each layer counts alike, whatever its grid."""

import pytest
import torch

from disendiff_lite.attention import AttentionStore, average_maps, capture_attention
from disendiff_lite.scales import average_scales, feature_grids
from disendiff_lite.support.errors import UserError


def test_the_mean_of_two_grids_is_over_their_layers():
    fine, coarse, empty = (AttentionStore((side, side)) for side in (4, 2, 1))
    fine.maps = {"a": [torch.full((1, 2, 16, 3), 0.9)]}
    coarse.maps = {"b": [torch.full((1, 2, 4, 3), 0.3)], "c": [torch.full((1, 2, 4, 3), 0.6)]}
    maps = average_scales([fine, coarse, empty], 4)
    assert maps.shape == (1, 3, 4, 4)
    torch.testing.assert_close(maps, torch.full_like(maps, 0.6))
    with pytest.raises(UserError):
        average_scales([empty], 4)


def test_a_coarse_map_stays_in_its_place():
    coarse = AttentionStore((2, 2))
    coarse.maps = {"a": [torch.tensor([[[[1.0], [0.0], [0.0], [0.0]]]])]}  # B, H, Q, T
    (row, column) = divmod(int(average_scales([coarse], 8)[0, 0].argmax()), 8)
    assert row < 4 and column < 4


def test_all_scales_of_a_model(tiny_unet):
    unet = tiny_unet()
    grids = feature_grids(unet, 16)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, unet.config.in_channels, 16, 16, generator=generator)
    text = torch.randn(1, 7, unet.config.cross_attention_dim, generator=generator)
    with capture_attention(unet, grids[0]) as first, capture_attention(unet, grids[1]) as second:
        unet(noisy, 300, text)
    both = average_scales([first, second], 16)
    assert both.shape == (1, 7, 16, 16) and both.requires_grad
    assert not torch.allclose(both, average_maps(first))
    assert both.sum(dim=1).sub(1).abs().max() < 1e-5  # of all tokens the shares still sum to one
