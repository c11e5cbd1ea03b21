"""Queries and keys: they make the very attention that capture_attention sees, and leave nothing behind."""

import pytest
import torch
from diffusers.models import attention_processor as stock

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


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda unet: torch.compile(unet, backend="eager"), marks=pytest.mark.slow),
        lambda unet: unet.compile_repeated_blocks(backend="eager") or unet,
    ],
    ids=["whole", "repeated blocks"],
)
def test_a_unet_that_ran_compiled_is_seen_too(wrap, tiny_unet):
    unet, plain = wrap(tiny_unet()), tiny_unet()
    before = call(unet)
    with watch_layer(unet, LAYER) as seen:
        assert torch.equal(call(unet), before)
    with watch_layer(plain, LAYER) as expected:
        call(plain)
    assert torch.equal(seen.queries, expected.queries) and torch.equal(seen.keys, expected.keys)
    seen.keys = None
    assert torch.equal(call(unet), before) and seen.keys is None


def test_a_processor_with_keys_of_its_own_is_refused(tiny_unet):
    unet = tiny_unet()
    attn = unet.get_submodule(LAYER)
    attn.set_processor(stock.CustomDiffusionAttnProcessor2_0(True, False, attn.to_q.in_features, attn.to_k.in_features))
    with pytest.raises(UserError, match="^CustomDiffusionAttnProcessor2_0, the processor of mid_block"):
        with watch_layer(unet, LAYER):
            pass
    other = LAYER.replace("mid_block", "down_blocks.0")
    with watch_layer(unet, other) as seen:
        call(unet)
    assert seen.queries.shape[2] == 256


def test_what_the_processor_does_before_the_projections_is_seen(tiny_unet):
    unet = tiny_unet()
    unet.get_submodule(LAYER).norm_cross = torch.nn.LayerNorm(32, bias=False)
    torch.nn.init.constant_(unet.get_submodule(LAYER).norm_cross.weight, 2.0)
    with capture_attention(unet, 8) as store, watch_layer(unet, LAYER) as seen:
        call(unet)
    scores = seen.queries @ seen.keys.mT / seen.keys.shape[-1] ** 0.5  # (B, H, Q, T)
    assert torch.allclose(scores.softmax(dim=-1), store.maps[LAYER][0], atol=1e-6)
