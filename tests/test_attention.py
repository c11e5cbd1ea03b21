"""capture_attention: it sees what the layers do, changes nothing, and leaves nothing behind."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models import attention_processor as stock
from peft import LoraConfig
from torch import nn
from torch._dynamo.testing import CompileCounter

from disendiff_lite.attention import (
    AttentionStore,
    CapturingProcessor,
    average_maps,
    capture_attention,
    check_processors,
)
from disendiff_lite.support.errors import UserError

LAYER = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
TOKENS = 77
SD2 = dict(use_linear_projection=True, upcast_attention=True, attention_head_dim=(2, 4))


def inputs(unet, batch=2, height=16, width=16, seed=0):
    """Arguments of a UNet call: latents, a timestep and a prompt's states."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, height, width, generator=generator).to(unet.dtype)
    text = torch.randn(batch, TOKENS, unet.config.cross_attention_dim, generator=generator).to(unet.dtype)
    return latents, torch.tensor(500), text


def names_at(unet, grid, **size):
    """The attn2 layers with a grid, found the long way: a hook on each transformer notes the shape that it gets."""
    found, handles = [], []
    for path, module in unet.named_modules():
        if path.split(".")[-2:-1] == ["attentions"]:

            def note(_, args, path=path):
                if tuple(args[0].shape[-2:]) == grid:
                    found.append(f"{path}.transformer_blocks.0.attn2")

            handles.append(module.register_forward_pre_hook(note))
    with torch.no_grad():
        unet(*inputs(unet, **size))
    for handle in handles:
        handle.remove()
    return found


def hooks_left(unet):
    return [name for name, module in unet.named_modules() if module._forward_pre_hooks]


@pytest.mark.parametrize("changes", [{}, SD2], ids=["sd1", "sd2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_output_is_unchanged_and_the_probabilities_are_those_that_the_layer_used(tiny_unet, changes, dtype):
    unet = tiny_unet(**changes).to(dtype)
    layer = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    attn = unet.get_submodule(layer)
    outputs = []
    handle = attn.register_forward_hook(lambda _, args, output: outputs.append(output))
    with torch.no_grad():
        latents, timestep, text = inputs(unet)
        plain = unet(latents, timestep, text).sample
        with capture_attention(unet, 16) as store:
            captured = unet(latents, timestep, text).sample
        handle.remove()
        probabilities = store.maps[layer][0]  # (B, H, Q, T)
        value = attn.to_v(text).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, H, T, d)
        rebuilt = attn.to_out[0]((probabilities.to(dtype) @ value).transpose(1, 2).flatten(2))  # (B, Q, channels)
    assert torch.equal(plain, captured)
    assert probabilities.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, attn.heads, 256), atol=tolerance, rtol=0)
    assert probabilities.std() > 1e-3  # the prompt matters, or the next line would show little
    torch.testing.assert_close(rebuilt, outputs[-1], atol=tolerance, rtol=tolerance)


# With only_cross_attention the attn1 layers read the prompt too, and still stay as they are.
@pytest.mark.parametrize("changes", [{}, {"only_cross_attention": True}])
@pytest.mark.parametrize("side, layers", [(16, 3), (8, 4)])
def test_only_layers_of_the_wanted_grid_are_touched(tiny_unet, side, layers, changes):
    unet = tiny_unet(**changes)
    before = unet.attn_processors
    with capture_attention(unet, side) as store, torch.no_grad():
        unet(*inputs(unet))
        during = unet.attn_processors
    touched = [name.removesuffix(".processor") for name in before if during[name] is not before[name]]
    assert sorted(touched) == sorted(names_at(unet, (side, side))) and len(touched) == layers
    assert list(store.maps) == names_at(unet, (side, side))  # in the order in which they run
    assert all(maps[0].shape == (2, 2, side * side, TOKENS) for maps in store.maps.values())


def test_stable_diffusion_at_512_px_has_five_layers_of_eight_heads_at_16x16():
    with torch.device("meta"):  # the real structure, without its weights or arithmetic
        unet = UNet2DConditionModel(cross_attention_dim=768)
        latents, timestep, text = torch.empty(1, 4, 64, 64), torch.tensor(1), torch.empty(1, TOKENS, 768)
    with capture_attention(unet, 16) as store, torch.no_grad():
        unet(latents, timestep, text)
    assert [maps[0].shape for maps in store.maps.values()] == [(1, 8, 256, TOKENS)] * 5


def test_a_picture_that_is_not_square(tiny_unet):
    unet = tiny_unet()
    size = dict(height=24, width=16)
    before = unet.attn_processors
    with torch.no_grad(), capture_attention(unet, (24, 16)) as upright:
        unet(*inputs(unet, **size))
    assert list(upright.maps) == names_at(unet, (24, 16), **size) and len(upright.maps) == 3
    assert average_maps(upright).shape == (2, TOKENS, 24, 16)
    with torch.no_grad(), capture_attention(unet, (16, 24)) as lying:  # as many cells, but another shape
        unet(*inputs(unet, **size))
        assert all(unet.attn_processors[name] is before[name] for name in before)
    assert lying.maps == {}


def test_originals_are_back_after_an_exception(tiny_unet):
    unet = tiny_unet()
    unet.enable_gradient_checkpointing()
    before = unet.attn_processors
    flags = [getattr(module, "gradient_checkpointing", None) for module in unet.modules()]
    with pytest.raises(KeyboardInterrupt):
        with capture_attention(unet, 16):
            unet(*inputs(unet))
            assert any(unet.attn_processors[name] is not before[name] for name in before)
            raise KeyboardInterrupt
    assert all(unet.attn_processors[name] is before[name] for name in before)
    assert [getattr(module, "gradient_checkpointing", None) for module in unet.modules()] == flags
    assert hooks_left(unet) == []


def test_tokens_keep_only_their_columns_in_their_order(tiny_unet):
    unet = tiny_unet()
    with torch.no_grad(), capture_attention(unet, 16) as everything, capture_attention(unet, 16, tokens=[5, 2]) as two:
        unet(*inputs(unet))
    for name, (maps,) in two.maps.items():
        assert torch.equal(maps, everything.maps[name][0][..., [5, 2]])
        assert maps.untyped_storage().nbytes() == maps.numel() * 4  # a copy, not a window on all columns


@pytest.mark.parametrize("token", [-1, TOKENS])
def test_a_token_outside_the_prompt_is_refused(tiny_unet, token):
    unet = tiny_unet()
    with pytest.raises(UserError, match="0 to 76"), torch.no_grad(), capture_attention(unet, 16, tokens=[token]):
        unet(*inputs(unet))


def test_guidance_puts_the_prompt_in_the_second_half(tiny_pipe):
    def first_step(guidance_scale):
        with capture_attention(tiny_pipe.unet, 16, detach=True) as store:
            tiny_pipe(
                "photo of a cat",
                num_inference_steps=2,
                guidance_scale=guidance_scale,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
            )
        assert all(len(calls) == 2 for calls in store.maps.values())  # one a denoising step
        return average_maps(store, call=0)

    guided, plain = first_step(6.0), first_step(1.0)
    assert guided.shape[0] == 2 and plain.shape[0] == 1
    torch.testing.assert_close(guided[1:], plain)
    assert not torch.allclose(guided[:1], plain, atol=1e-6)


def key_gradients(unet, *, late):
    """Gradients of a loss on the maps alone with respect to every to_k, taken inside the block or after it."""
    unet.zero_grad()
    latents, timestep, text = inputs(unet)
    with capture_attention(unet, 16, tokens=[3]) as store:
        unet(latents, timestep, text)
        loss = average_maps(store).square().sum()
        if not late:
            loss.backward()
    if late:
        loss.backward()
    assert all(len(calls) == 1 for calls in store.maps.values())
    return {name: weight.grad for name, weight in unet.named_parameters() if name.endswith("attn2.to_k.weight")}


@pytest.mark.parametrize("late", [False, True])
def test_gradient_checkpointing_changes_neither_gradients_nor_what_is_stored(tiny_unet, late):
    unet = tiny_unet().train()
    expected = key_gradients(unet, late=late)
    unet.enable_gradient_checkpointing()
    gradients = key_gradients(unet, late=late)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient)
    assert sum(gradient is not None and gradient.abs().max() > 0 for gradient in expected.values()) >= 3


def test_other_blocks_stay_checkpointed(tiny_unet):
    unet = tiny_unet().train()
    unet.enable_gradient_checkpointing()
    with capture_attention(unet, 8):
        unet(*inputs(unet))
        assert unet.get_submodule("down_blocks.0.attentions.0").gradient_checkpointing  # 16x16
        assert not unet.get_submodule("mid_block.attentions.0").gradient_checkpointing  # 8x8


def test_detach_cuts_the_gradient_of_the_maps_but_not_of_the_output(tiny_unet):
    unet = tiny_unet()
    with capture_attention(unet, 16, detach=True) as store:
        prediction = unet(*inputs(unet)).sample
    assert not average_maps(store).requires_grad
    prediction.sum().backward()
    assert unet.get_submodule("up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k").weight.grad.abs().max() > 0


def test_the_gradient_of_a_map_reaches_its_keys_and_not_its_values(tiny_unet):
    unet = tiny_unet()
    with capture_attention(unet, 16, tokens=[3]) as store:
        unet(*inputs(unet))
    last = "up_blocks.1.attentions.1.transformer_blocks.0.attn2"
    average_maps(store, layer=last).square().sum().backward()
    attn = unet.get_submodule(last)
    assert attn.to_k.weight.grad.abs().max() > 0
    assert attn.to_v.weight.grad is None  # P = softmax(Q K^T / sqrt(d)) has no V


def test_lora_wrapped_layers(tiny_unet):
    unet = tiny_unet()
    latents, timestep, text = inputs(unet)
    with torch.no_grad(), capture_attention(unet, 16) as base:
        unet(latents, timestep, text)
    unet.add_adapter(LoraConfig(r=4, target_modules=r".*attn2\.(to_k|to_v)$", init_lora_weights=False))
    before = unet.attn_processors
    plain = unet(latents, timestep, text).sample
    with capture_attention(unet, 16) as store:
        captured = unet(latents, timestep, text).sample
    assert torch.equal(plain, captured)
    assert all(unet.attn_processors[name] is before[name] for name in before)
    assert list(store.maps) == list(base.maps)
    assert not torch.allclose(average_maps(store), average_maps(base), atol=1e-6)  # the adapter is seen
    average_maps(store)[:, 3].square().sum().backward()
    adapter = unet.get_submodule("up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k")
    assert adapter.lora_A["default"].weight.grad.abs().max() > 0
    assert adapter.base_layer.weight.grad is None  # frozen by add_adapter


def test_a_masked_token_gets_no_attention(tiny_unet):
    unet = tiny_unet()
    mask = torch.ones(2, TOKENS)
    mask[:, 10:] = 0
    with torch.no_grad(), capture_attention(unet, 16) as store:
        unet(*inputs(unet), encoder_attention_mask=mask)
    maps = average_maps(store)
    assert maps[:, 10:].max() == 0 and maps[:, :10].min() > 0


def test_captures_can_be_nested(tiny_unet):
    unet = tiny_unet()
    before = unet.attn_processors
    with torch.no_grad(), capture_attention(unet, 16) as outer:
        with capture_attention(unet, 16) as inner, capture_attention(unet, 8) as coarse:
            unet(*inputs(unet))
        unet(*inputs(unet, seed=1))  # only the outer one is left
    assert [len(calls) for calls in inner.maps.values()] == [1] * 3
    assert [len(calls) for calls in coarse.maps.values()] == [1] * 4
    assert [len(calls) for calls in outer.maps.values()] == [2] * 3
    assert torch.equal(average_maps(inner), average_maps(outer, call=0))
    assert all(unet.attn_processors[name] is before[name] for name in before)


def test_a_call_with_another_grid_is_not_stored(tiny_unet):
    unet = tiny_unet()
    with torch.no_grad(), capture_attention(unet, 16) as store:
        unet(*inputs(unet))
        unet(*inputs(unet, height=8, width=8))
        unet(*inputs(unet, height=32, width=32))  # here other layers have the grid
    assert {name: len(calls) for name, calls in store.maps.items()} == {
        name: 1 for name in names_at(unet, (16, 16)) + names_at(unet, (16, 16), height=32, width=32)
    }


def test_average_maps_folds_rows_first_and_takes_the_mean_over_layers_heads_and_calls():
    cells = torch.arange(6.0)  # a grid of 2 rows and 3 columns
    first = cells[None, None, :, None].repeat(1, 2, 1, 1)  # (B, H, Q, T), one batch entry, two heads, one token
    second = first + torch.tensor([10.0, 20.0])[None, :, None, None]
    store = AttentionStore(grid=(2, 3), maps={"a": [first, first + 4], "b": [second, second + 4]})
    grid = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    assert torch.equal(average_maps(store), grid[None, None] + 15 / 2 + 2)
    assert torch.equal(average_maps(store, layer="b", head=1, call=-1), grid[None, None] + 24)


@pytest.mark.parametrize("choice", [dict(layer="c"), dict(head=2), dict(call=1)])
def test_average_maps_refuses_what_is_not_there(choice):
    store = AttentionStore(grid=(1, 1), maps={"a": [torch.zeros(1, 2, 1, 1)]})
    with pytest.raises(UserError, match="layers a, heads 0 to 1 and calls 0 to 0"):
        average_maps(store, **choice)


def test_an_empty_store_says_what_was_forgotten(tiny_unet):
    unet = tiny_unet()
    with capture_attention(unet, 16) as store:
        pass
    with pytest.raises(UserError, match="run the UNet inside"):
        average_maps(store)
    with torch.no_grad(), capture_attention(unet, 64) as store:
        unet(*inputs(unet))
    with pytest.raises(UserError, match="the grid 64x64: .* 16x16, 8x8"):
        average_maps(store)


# Compiled UNets


# One block down and one up: tracing takes its time.
SMALL = dict(
    down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), block_out_channels=(16,)
)


def compile_parts(unet, backend):
    """Parts within parts, each in a wrapper of its own."""
    up, transformer = unet.up_blocks[0], unet.up_blocks[0].attentions[0]
    block = transformer.transformer_blocks[0]
    block.attn2.to_k = torch.compile(block.attn2.to_k, backend=backend)
    block.attn2 = torch.compile(block.attn2, backend=backend)
    up.attentions[0] = torch.compile(transformer, backend=backend)
    unet.up_blocks[0] = torch.compile(up, backend=backend)
    return unet


def compile_forward(unet, backend):
    unet.forward = torch.compile(unet.forward, backend=backend)
    return unet


WAYS = {
    "whole": lambda unet, backend: torch.compile(unet, backend=backend),
    "in place": lambda unet, backend: unet.compile(backend=backend) or unet,
    "repeated blocks": lambda unet, backend: unet.compile_repeated_blocks(backend=backend) or unet,
    "parts": compile_parts,
    "forward": compile_forward,
}
SLOW = ("whole", "in place", "forward")


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow) if way in SLOW else way for way in WAYS])
@torch.no_grad()
def test_a_unet_that_ran_compiled_is_captured_and_runs_compiled_again(way, tiny_unet):
    plain, counter = tiny_unet(**SMALL), CompileCounter()
    unet = WAYS[way](tiny_unet(**SMALL), counter)
    with capture_attention(plain, 16) as expected:
        plain(*inputs(plain))
    before, processors = unet(*inputs(unet)).sample, unet.attn_processors
    compiled = counter.frame_count
    with capture_attention(unet, 16) as store:
        captured = unet(*inputs(unet)).sample
        unet(*inputs(unet, seed=1))
    after = unet(*inputs(unet)).sample
    assert torch.equal(captured, before) and torch.equal(after, before)
    assert compiled > 0 and counter.frame_count == compiled
    assert list(store.maps) == list(expected.maps) and {len(calls) for calls in store.maps.values()} == {2}
    assert torch.equal(average_maps(store, call=0), average_maps(expected))
    assert all(unet.attn_processors[name] is processors[name] for name in processors)
    with capture_attention(unet, 16) as again:  # nor is anything left of the first block
        unet(*inputs(unet))
    assert torch.equal(average_maps(again), average_maps(expected))
    assert {len(calls) for calls in store.maps.values()} == {2}


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_function_around_the_unet(tiny_unet):
    unet = tiny_unet(**SMALL)

    @torch.compile(backend="eager")
    def predict(*arguments):
        return unet(*arguments).sample

    @torch.compile(backend="eager")
    def look(*arguments):
        with capture_attention(unet, 16):
            return unet(*arguments).sample

    plain = predict(*inputs(unet))
    with capture_attention(unet, 16) as store:
        assert torch.equal(predict(*inputs(unet)), plain)
    assert len(store.maps) == 4
    with pytest.raises(UserError, match="put the `with` block around its call"):
        look(*inputs(unet))


def test_a_layer_with_the_processor_compiles_to_one_graph(tiny_unet):
    attn, seen = tiny_unet().get_submodule(LAYER), []
    attn.set_processor(CapturingProcessor(stock.AttnProcessor(), seen.append))  # as a training of one's own may do

    def look(picture, prompt):
        seen.clear()
        return attn(picture, prompt), seen[0]

    arguments = torch.randn(2, 9, attn.to_q.in_features), torch.randn(2, 5, attn.to_k.in_features)
    output, probabilities = torch.compile(look, backend="eager", fullgraph=True)(*arguments)
    assert probabilities.shape == (2, attn.heads, 9, 5)
    for compiled, expected in zip((output, probabilities), look(*arguments)):
        assert torch.equal(compiled, expected)


def test_blocks_may_end_in_any_order(tiny_unet):
    unet, counter = tiny_unet(), CompileCounter()
    first, second = capture_attention(unet, 16), capture_attention(unet, 8)
    first.__enter__(), second.__enter__()
    double = torch.compile(lambda number: 2 * number, backend=counter)
    first.__exit__(None, None, None)
    assert double(torch.ones(1)) == 2 and counter.frame_count == 0  # the second block is still open
    second.__exit__(None, None, None)
    assert double(torch.ones(1)) == 2 and counter.frame_count == 1


def test_a_model_without_the_layers_is_refused():
    with pytest.raises(UserError, match="no cross-attention layers: give a UNet"), capture_attention(nn.Linear(1, 1)):
        pass


# Other processors


def set_cross(unet, new):
    """Give each attn2 layer the processor new(layer); the others keep theirs."""
    for name, module in unet.named_modules():
        if name.endswith(".attn2"):
            module.set_processor(new(module))
    return unet


def sizes(layer):
    return dict(hidden_size=layer.to_q.in_features, cross_attention_dim=layer.to_k.in_features)


def unusual(layer):
    """A layer with what diffusers' processors look for, and a scale of its own."""
    layer.norm_cross, layer.group_norm = nn.LayerNorm(32), nn.GroupNorm(4, layer.to_q.in_features)
    nn.init.normal_(layer.norm_cross.weight), nn.init.normal_(layer.group_norm.weight)
    layer.scale, layer.upcast_attention = 1.5, True


XFORMERS = SimpleNamespace(  # what diffusers calls of it, where it is not installed
    memory_efficient_attention=lambda query, key, value, attn_bias, op, scale: (
        nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_bias, scale=scale)
    )
)


@pytest.mark.parametrize("change", [None, unusual], ids=["usual", "unusual"])
@pytest.mark.parametrize(
    "processor",
    [stock.AttnProcessor(), stock.AttnProcessor2_0(), stock.SlicedAttnProcessor(1), stock.XFormersAttnProcessor()],
    ids=lambda processor: type(processor).__name__,
)
@torch.no_grad()
def test_the_output_is_made_of_the_maps_whatever_the_processor(processor, change, tiny_unet, monkeypatch):
    monkeypatch.setattr(stock, "xformers", SimpleNamespace(ops=XFORMERS))
    unet = set_cross(tiny_unet(), lambda _: processor)
    attn = unet.get_submodule(LAYER)
    if change:
        change(attn)
    mask = torch.ones(2, TOKENS)
    mask[0, 10:] = 0
    plain = unet(*inputs(unet), encoder_attention_mask=mask).sample
    values, outputs = [], []
    attn.to_v.register_forward_hook(lambda _, args, value: values.append(value))
    attn.register_forward_hook(lambda _, args, output: outputs.append(output))
    with capture_attention(unet, 16) as store:
        captured = unet(*inputs(unet), encoder_attention_mask=mask).sample
    assert torch.equal(captured, plain)
    value = values[0].unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, H, T, d)
    rebuilt = attn.to_out[0]((store.maps[LAYER][0] @ value).transpose(1, 2).flatten(2))  # (B, Q, channels)
    torch.testing.assert_close(rebuilt, outputs[0], atol=1e-6, rtol=1e-5)


class OwnProcessor(stock.AttnProcessor2_0):
    """As in prompt-to-prompt: it may change the attention on its way, and nobody can see that from outside."""


FOREIGN = {
    "CustomDiffusionAttnProcessor": lambda layer: stock.CustomDiffusionAttnProcessor(True, False, **sizes(layer)),
    "CustomDiffusionAttnProcessor2_0": lambda layer: stock.CustomDiffusionAttnProcessor2_0(True, False, **sizes(layer)),
    "IPAdapterAttnProcessor": lambda layer: stock.IPAdapterAttnProcessor(**sizes(layer)),
    "IPAdapterAttnProcessor2_0": lambda layer: stock.IPAdapterAttnProcessor2_0(**sizes(layer)),
    "FusedAttnProcessor2_0": lambda layer: layer.fuse_projections() or stock.FusedAttnProcessor2_0(),
    "AttnAddedKVProcessor": lambda _: stock.AttnAddedKVProcessor(),
    "SlicedAttnAddedKVProcessor": lambda _: stock.SlicedAttnAddedKVProcessor(1),
    "JointAttnProcessor2_0": lambda _: stock.JointAttnProcessor2_0(),
    "PAGIdentitySelfAttnProcessor2_0": lambda _: stock.PAGIdentitySelfAttnProcessor2_0(),
    "OwnProcessor": lambda _: OwnProcessor(),
    "function": lambda _: lambda attn, hidden_states, **others: hidden_states,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_processor_whose_maps_would_be_wrong_is_refused_by_name(name, tiny_unet):
    unet = set_cross(tiny_unet(), FOREIGN[name])
    before = unet.attn_processors
    mend = "unload_ip_adapter" if name.startswith("IP") else "set_attn_processor"
    for look in (lambda: unet(*inputs(unet)), lambda: check_processors(unet)):
        with pytest.raises(UserError, match=f"^{name}, the processor of .*: call pipe.*{mend}"):
            with capture_attention(unet, 16):
                look()
    assert all(unet.attn_processors[name] is before[name] for name in before) and hooks_left(unet) == []
    unet.set_attn_processor(stock.AttnProcessor2_0())
    with torch.no_grad(), capture_attention(unet, 16) as store:
        unet(*inputs(unet))
    assert len(store.maps) == 3


def test_the_processors_of_other_grids_and_of_self_attention_do_not_matter(tiny_unet):
    unet = tiny_unet()
    block = unet.mid_block.attentions[0].transformer_blocks[0]  # 8x8
    block.attn1.set_processor(OwnProcessor()), block.attn2.set_processor(OwnProcessor())
    with torch.no_grad(), capture_attention(unet, 16) as store:
        unet(*inputs(unet))
    assert len(store.maps) == 3


def test_norms_of_queries_and_keys_are_refused_where_the_processor_heeds_them(tiny_unet):
    unet = tiny_unet()
    attn = unet.get_submodule(LAYER)
    attn.norm_q = attn.norm_k = nn.LayerNorm(attn.to_q.out_features // attn.heads)
    with pytest.raises(UserError, match="AttnProcessor2_0, the processor of .*: call .*AttnProcessor\\(\\)"):
        check_processors(unet)
    unet.set_attn_processor(stock.AttnProcessor())
    check_processors(unet)


def own_forward(unet):
    for name, module in unet.named_modules():
        if name.endswith(".attn2"):
            module.forward = lambda hidden_states, **others: hidden_states


@pytest.mark.parametrize("change", [own_forward, lambda unet: unet.set_attn_processor(stock.AttnProcessor())])
def test_a_layer_that_passes_its_processor_by_is_an_error_and_no_gap(change, tiny_unet):
    unet = tiny_unet()
    with torch.no_grad(), pytest.raises(UserError, match="was not captured: set no processor in the block"):
        with capture_attention(unet, 16):
            unet(*inputs(unet))
            change(unet)
            unet(*inputs(unet))


# To the last bit


class Shift(nn.Module):
    """In the place of a spatial norm, which depends on `temb`."""

    def forward(self, features, temb):
        return features + temb


def with_spatial_norm(unet):
    unet.get_submodule(LAYER).spatial_norm = Shift()
    return unet, {"temb": torch.full((1,), 0.3)}


def with_lora(unet, **settings):
    unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False, **settings))
    return unet, {"scale": 0.5}


def with_dropout(unet):
    for module in unet.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    return with_lora(unet, lora_dropout=0.3)[0].train(), {}


def with_checkpointing(unet):
    unet.enable_gradient_checkpointing()
    return with_dropout(unet)


@pytest.mark.parametrize("change", [with_spatial_norm, with_lora, with_dropout, with_checkpointing])
def test_what_goes_into_a_layer_and_what_chance_does_there_stays_the_same(change, tiny_unet):
    unet, arguments = change(tiny_unet())
    torch.manual_seed(0)
    plain = unet(*inputs(unet), cross_attention_kwargs=arguments).sample
    chance = torch.get_rng_state()
    torch.manual_seed(0)
    with capture_attention(unet, 16) as store:
        captured = unet(*inputs(unet), cross_attention_kwargs=arguments).sample
    assert torch.equal(captured, plain) and torch.equal(torch.get_rng_state(), chance)
    assert len(store.maps) == 3
    if arguments:  # and they have an effect
        assert not torch.allclose(unet(*inputs(unet), cross_attention_kwargs={"temb": torch.zeros(1)}).sample, plain)


def test_pictures_are_the_same_under_capture(tiny_pipe):
    def draw():
        generator = torch.Generator().manual_seed(0)
        return tiny_pipe("a cat", num_inference_steps=2, generator=generator, output_type="latent").images

    plain = draw()
    with capture_attention(tiny_pipe.unet, 16, detach=True), capture_attention(tiny_pipe.unet, 8, detach=True):
        assert torch.equal(draw(), plain)
