"""Attention records hold what capture_attention sees, with the right words, and survive being written to a file."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from PIL import Image

from disendiff_lite.attention import average_maps, capture_attention
from disendiff_lite.attention_record import AttentionRecord, mean_maps
from disendiff_lite.config import emoji
from disendiff_lite.recording import maps_on_picture, record_maps
from disendiff_lite.runs.generate import generate
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.images import to_tensor
from disendiff_lite.tokens import add_modifiers, find_positions

CONFIG = emoji(inference_steps=3)
PROMPT = "photo of a <new1> cat and <new2> dog"


@pytest.fixture
def pipe(tiny_pipe):
    add_modifiers(tiny_pipe, ("<new1>", "<new2>"), ("ktn", "pll"))
    return tiny_pipe


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_record_has_each_step_layer_head_and_word(pipe):
    concepts = find_positions(pipe.tokenizer, PROMPT, ("<new1>", "<new2>"), ("cat", "dog"))
    record = record_maps(pipe, PROMPT, config=CONFIG, seed=1, concepts=concepts, resolutions=(16, 8))
    assert record.words == tuple(PROMPT.split())
    assert record.positions == tuple(range(1, 9))
    assert record.roles == ("", "", "", "modifier", "class", "", "modifier", "class")
    assert record.maps["16x16"].shape == (3, 3, 2, 8, 16, 16)
    assert record.maps["8x8"].shape == (3, 4, 2, 8, 8, 8)
    assert record.maps["16x16"].dtype == np.float16
    assert [len(record.layers[grid]) for grid in ("16x16", "8x8")] == [3, 4]
    assert record.picture.shape == (64, 64, 3)
    assert len(record.times) == 3 and list(record.times) == sorted(record.times, reverse=True)


@pytest.mark.parametrize("guidance", [6.0, 1.0])
def test_a_record_is_what_capture_attention_sees_of_the_guided_prompt(pipe, guidance):
    config = dataclasses.replace(CONFIG, guidance_scale=guidance)
    with capture_attention(pipe.unet, 16, tokens=[5, 8], detach=True) as store:
        pictures = generate(pipe, PROMPT, count=2, seed=1, config=config, batch_size=1)
    record = record_maps(pipe, PROMPT, config=config, seed=1, index=1, positions=[5, 8])
    second = average_maps(store, call=4)[-1]  # the second picture's second step
    assert np.allclose(mean_maps(record, step=1), second, atol=2e-5)
    layer = list(store.maps)[2]
    assert record.layers["16x16"][2] == layer
    one = average_maps(store, layer=layer, head=1, call=5)[-1]
    assert np.allclose(mean_maps(record, 16, step=2, layer=2, head=1), one, atol=2e-5)
    assert np.array_equal(record.picture, np.asarray(pictures[1]))


def test_maps_on_a_picture_are_those_of_one_denoising_of_it(pipe, picture):
    record = maps_on_picture(pipe, picture, PROMPT, config=CONFIG, seed=4, times=(200, 600), positions=[5])
    square = picture.crop((0, 8, 64, 72))
    assert np.array_equal(record.picture, np.asarray(square)) and record.times == (200, 600)

    generator = torch.Generator().manual_seed(4)
    with torch.no_grad(), capture_attention(pipe.unet, 16, tokens=[5]) as store:
        latents = (
            pipe.vae.encode(to_tensor(square)[None]).latent_dist.sample(generator) * pipe.vae.config.scaling_factor
        )
        noise = torch.randn(2, 4, 16, 16, generator=generator)
        kept = pipe.scheduler.alphas_cumprod[[200, 600]].view(2, 1, 1, 1)
        text = pipe.encode_prompt([PROMPT] * 2, "cpu", 1, False)[0]
        pipe.unet(kept.sqrt() * latents + (1 - kept).sqrt() * noise, torch.tensor([200, 600]), text)
    assert np.allclose(mean_maps(record), average_maps(store).mean(dim=0), atol=2e-5)
    assert np.allclose(mean_maps(record, step=1), average_maps(store)[1], atol=2e-5)


def test_maps_on_a_picture_change_with_the_model_and_not_without(pipe, picture):
    before = maps_on_picture(pipe, picture, PROMPT, config=CONFIG)
    assert before.maps["16x16"].shape == (7, 3, 2, 8, 16, 16)
    assert np.array_equal(before.maps["16x16"], maps_on_picture(pipe, picture, PROMPT, config=CONFIG).maps["16x16"])
    with torch.no_grad():
        for name, weight in pipe.unet.named_parameters():
            if name.endswith("attn2.to_k.weight"):
                weight *= 3
    after = maps_on_picture(pipe, picture, PROMPT, config=CONFIG)
    assert not np.allclose(before.maps["16x16"], after.maps["16x16"], atol=1e-3)


def test_a_record_comes_back_from_its_file(pipe, tmp_path):
    record = record_maps(pipe, PROMPT, config=CONFIG, resolutions=(16, 8))
    record.save(tmp_path / "new" / "record.npz")
    loaded = AttentionRecord.load(tmp_path / "new" / "record.npz")
    for field in dataclasses.fields(record):
        if field.name not in ("picture", "maps"):
            assert getattr(loaded, field.name) == getattr(record, field.name)
    assert np.array_equal(loaded.picture, record.picture)
    assert all(np.array_equal(loaded.maps[grid], record.maps[grid]) for grid in record.layers)


def test_a_missing_damaged_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no"):
        AttentionRecord.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", record=np.array([{}], dtype=object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:80])
    for name in ("text", "other", "pickle", "cut"):
        with pytest.raises(UserError, match="damaged"):
            AttentionRecord.load(tmp_path / f"{name}.npz")


def test_mean_maps_of_known_numbers():
    maps = np.arange(2 * 2 * 2 * 1 * 2 * 2, dtype=np.float16).reshape(2, 2, 2, 1, 2, 2)
    record = AttentionRecord(
        "a", ("a",), (1,), ("",), (9, 1), np.zeros((4, 4, 3), np.uint8), {"2x2": ("x", "y")}, {"2x2": maps}
    )
    assert np.array_equal(mean_maps(record), [[[14, 15], [16, 17]]])
    assert np.array_equal(mean_maps(record, 2, step=0, layer=1, head=0), [[[8, 9], [10, 11]]])
    assert np.array_equal(mean_maps(record, (2, 2), step=-1), [[[22, 23], [24, 25]]])
    with pytest.raises(UserError, match="2x2"):
        mean_maps(record, 16)
    with pytest.raises(UserError, match="step 2"):
        mean_maps(record, step=2)


def test_what_cannot_be_recorded_is_explained(pipe, picture):
    with pytest.raises(UserError, match="16x16, 8x8"):
        record_maps(pipe, PROMPT, config=CONFIG, resolutions=(7,))
    with pytest.raises(UserError, match=r"\[10\]"):
        record_maps(pipe, PROMPT, config=CONFIG, positions=[10])
    with pytest.raises(UserError, match="No word"):
        record_maps(pipe, "", config=CONFIG)
    with pytest.raises(UserError, match="<new3>"):
        record_maps(pipe, "a <new3> cat", config=CONFIG)
    with pytest.raises(UserError, match="999"):
        maps_on_picture(pipe, picture, PROMPT, config=CONFIG, times=(1000,))


def compile_whole(pipe):
    for part in ("unet", "text_encoder", "vae"):
        setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))


def compile_in_place(pipe):
    for part in ("unet", "text_encoder", "vae"):
        getattr(pipe, part).compile(backend="eager")


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(compile_whole, marks=pytest.mark.slow),
        pytest.param(compile_in_place, marks=pytest.mark.slow),
        lambda pipe: pipe.unet.compile_repeated_blocks(backend="eager"),
    ],
    ids=["whole", "in place", "repeated blocks"],
)
def test_a_compiled_pipeline_has_the_record_of_a_plain_one(wrap, new_tiny_pipe, picture):
    pipe, plain = new_tiny_pipe(), new_tiny_pipe()
    wrap(pipe)
    drawn = generate(pipe, "a cat", count=1, seed=1, config=CONFIG)[0]  # it has run compiled before
    records = [record_maps(each, "a cat", config=CONFIG, seed=1, resolutions=(16, 8)) for each in (pipe, plain)]
    seen = [maps_on_picture(each, picture, "a cat", config=CONFIG) for each in (pipe, plain)]
    for record, expected in (records, seen):
        assert (record.times, record.layers) == (expected.times, expected.layers)
        assert np.array_equal(record.picture, expected.picture)
        assert all(np.array_equal(record.maps[grid], expected.maps[grid]) for grid in expected.maps)
    assert np.array_equal(records[0].picture, np.asarray(drawn))
    assert np.array_equal(np.asarray(generate(pipe, "a cat", count=1, seed=1, config=CONFIG)[0]), np.asarray(drawn))


def test_maps_that_no_picture_is_made_of_are_not_recorded(pipe, picture):
    for name, layer in pipe.unet.named_modules():
        if name.endswith(".attn2"):
            sizes = dict(hidden_size=layer.to_q.in_features, cross_attention_dim=layer.to_k.in_features)
            layer.set_processor(CustomDiffusionAttnProcessor2_0(train_kv=True, train_q_out=False, **sizes))
    with pytest.raises(UserError, match="^CustomDiffusionAttnProcessor2_0, the processor of"):
        record_maps(pipe, PROMPT, config=CONFIG)
    with pytest.raises(UserError, match="^CustomDiffusionAttnProcessor2_0, the processor of"):
        maps_on_picture(pipe, picture, PROMPT, config=CONFIG)
