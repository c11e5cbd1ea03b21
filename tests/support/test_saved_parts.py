"""Every layout that save_pretrained writes is loaded, and what is missing of one is named."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderTiny

from disendiff_lite.models import load_pipeline
from disendiff_lite.support.errors import UserError

SMALL_SHARES = "60KB"  # several files a part


def load(folder):
    return load_pipeline(folder, device="cpu")


def halved(part):
    """The weights as a variant of half precision gives them back in float32; they differ from the whole ones."""
    return {name: value.half().float() if value.is_floating_point() else value for name, value in part.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def states(pipe):
    return {name: getattr(pipe, name).state_dict() for name in ("unet", "vae", "text_encoder")}


@pytest.fixture(scope="module")
def pipe(new_tiny_pipe):
    return new_tiny_pipe()


@pytest.fixture(scope="module")
def half(new_tiny_pipe):
    return new_tiny_pipe().to(dtype=torch.float16)


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema", "my.own"])
@pytest.mark.parametrize("shares", ["10GB", SMALL_SHARES])
def test_a_variant_is_loaded_in_float32(half, tmp_path, variant, shares):
    half.save_pretrained(tmp_path, variant=variant, max_shard_size=shares)
    loaded = load(tmp_path)
    assert loaded.unet.dtype == loaded.vae.dtype == loaded.text_encoder.dtype == torch.float32
    assert not (loaded.unet.training or loaded.vae.training or loaded.text_encoder.training)
    assert all(same(found, halved(states(half)[part])) for part, found in states(loaded).items())


def test_shares_without_a_variant_are_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, max_shard_size=SMALL_SHARES)
    assert len(list(tmp_path.glob("text_encoder/model-*-of-*.safetensors"))) > 1
    assert all(same(found, states(pipe)[part]) for part, found in states(load(tmp_path)).items())


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_variant_of_one_part_alone(pipe, half, tmp_path, part):
    pipe.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / part)
    getattr(half, part).save_pretrained(tmp_path / part, variant="fp16")
    expected = states(pipe) | {part: halved(states(half)[part])}
    assert all(same(found, expected[name]) for name, found in states(load(tmp_path)).items())


def test_each_part_may_have_another_variant(pipe, half, tmp_path):
    pipe.save_pretrained(tmp_path, variant="ema")
    for part, variant in (("unet", "bf16"), ("text_encoder", "fp16")):
        shutil.rmtree(tmp_path / part)
        getattr(half, part).save_pretrained(tmp_path / part, variant=variant)
    assert same(load(tmp_path).unet.state_dict(), halved(half.unet.state_dict()))


@pytest.mark.parametrize("plain, variant", [("10GB", "10GB"), (SMALL_SHARES, "10GB"), ("10GB", SMALL_SHARES)])
def test_plain_weights_win(pipe, half, tmp_path, plain, variant):
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size=variant)
    pipe.save_pretrained(tmp_path, max_shard_size=plain)
    assert all(same(found, states(pipe)[part]) for part, found in states(load(tmp_path)).items())


def test_the_finest_of_several_variants_wins(pipe, half, tmp_path):
    half.save_pretrained(tmp_path, variant="bf16")
    pipe.save_pretrained(tmp_path, variant="fp32")
    assert same(load(tmp_path).unet.state_dict(), pipe.unet.state_dict())


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_tiny_autoencoder(new_tiny_pipe, tmp_path, variant):
    pipe = new_tiny_pipe()
    sizes = dict(encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3)
    pipe.register_modules(vae=AutoencoderTiny(**sizes, num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3))
    pipe.save_pretrained(tmp_path, variant=variant)
    assert same(load(tmp_path).vae.state_dict(), pipe.vae.state_dict())


@pytest.mark.parametrize("there", [True, False])
def test_parts_that_are_not_needed(pipe, tmp_path, there):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    if there:
        for part, name in (("safety_checker", "model.fp16.safetensors"), ("feature_extractor", "x.json")):
            (tmp_path / part).mkdir()
            (tmp_path / part / name).write_text("not read")
    assert same(load(tmp_path).unet.state_dict(), pipe.unet.state_dict())


@pytest.mark.parametrize("settings", [True, False])
def test_the_older_layout_of_a_tokenizer(pipe, tmp_path, settings):
    pipe.save_pretrained(tmp_path)
    folder = tmp_path / "tokenizer"
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    if settings:
        marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!"}
        values = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **marks}
        (folder / "tokenizer_config.json").write_text(json.dumps(values))
    tokenizer = load(tmp_path).tokenizer
    prompt = "photo of a cat and a teddy bear"
    assert tokenizer(prompt).input_ids == pipe.tokenizer(prompt).input_ids
    assert tokenizer.model_max_length == 77


@pytest.mark.parametrize(
    "lost, named",
    [
        ("unet", "its unet is missing"),
        ("vae/config.json", "its vae has no config.json"),
        ("vae/diffusion_pytorch_model.safetensors", "its vae has no safetensors weights"),
        ("text_encoder/model.safetensors", "its text_encoder has no safetensors weights"),
        ("tokenizer", "its tokenizer is missing"),  # transformers would make one of two words
        ("tokenizer/tokenizer.json", "its tokenizer has no tokenizer.json"),
        ("scheduler/scheduler_config.json", "its scheduler has no scheduler_config.json"),
    ],
)
def test_what_is_missing_is_named(pipe, tmp_path, lost, named):
    pipe.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / lost) if (tmp_path / lost).is_dir() else (tmp_path / lost).unlink()
    with pytest.raises(UserError, match=rf"Cannot load the model folder .* \({named}\): copy it again"):
        load(tmp_path)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_missing_share_is_named(pipe, tmp_path, variant):
    pipe.save_pretrained(tmp_path, variant=variant, max_shard_size=SMALL_SHARES)
    share = next(tmp_path.glob("text_encoder/model*-00002-of-*"))
    share.unlink()
    with pytest.raises(UserError, match=rf"\(its text_encoder has no {share.name}\)"):
        load(tmp_path)
    next(tmp_path.glob("unet/*index*")).unlink()
    with pytest.raises(UserError, match=r"\(its unet has no index of its weights\)"):
        load(tmp_path)


def test_a_part_that_the_index_does_not_name(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "vae": [None, None]}))
    with pytest.raises(UserError, match="its vae is missing"):
        load(tmp_path)


def test_pickles_beside_safetensors_are_refused(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    weights = tmp_path / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match="its text_encoder has no safetensors weights"):
        load(tmp_path)
