"""Queries and keys: they make the very attention that capture_attention sees, and leave nothing behind."""

import pytest
import torch

from disendiff_lite.attention import capture_attention
from disendiff_lite.show.queries import watch_layer
from disendiff_lite.support.errors import UserError

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


def call(unet) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 9, 32, generator=generator)
    with torch.no_grad():
        return unet(latents, 500, text).sample


def test_scores_and_softmax_give_the_captured_attention(tiny_unet):
    unet = tiny_unet()
    plain = call(unet)
    with capture_attention(unet, 8) as store, watch_layer(unet, LAYER) as seen:
        assert seen.queries is None
        watched = call(unet)
    assert seen.queries.shape[:3] == (2, 2, 64) and seen.keys.shape[:3] == (2, 2, 9)
    scores = seen.queries @ seen.keys.mT / seen.keys.shape[-1] ** 0.5  # (B, H, Q, T)
    assert torch.allclose(scores.softmax(dim=-1), store.maps[LAYER][0], atol=1e-6)
    assert torch.equal(watched, plain)


def test_nothing_stays_behind_after_an_error(tiny_unet):
    unet = tiny_unet()
    with pytest.raises(ZeroDivisionError), watch_layer(unet, LAYER):
        raise ZeroDivisionError
    assert not [name for name, module in unet.named_modules() if module._forward_pre_hooks]


@pytest.mark.parametrize("layer", ["mid_block", LAYER.replace("attn2", "attn1")])
def test_a_layer_that_is_no_cross_attention_is_refused(tiny_unet, layer):
    with pytest.raises(UserError, match="choose one of down_blocks"), watch_layer(tiny_unet(), layer):
        pass
