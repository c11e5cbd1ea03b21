"""Adapters that train in place of keys and values, and LoRAs of others that come and go without a trace."""

import dataclasses
import re

import pytest
import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file

from disendiff_lite.adapters import adapted, adapter_factors, use_lora
from disendiff_lite.config import emoji
from disendiff_lite.runs.learned import LORA_FILE, load_learned
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers
from disendiff_lite.trainable import training
from tests.outputs import outputs

CLASSES = ["cat", "dog"]
PROMPT = "a <new1> cat and a <new2> dog"
QUICK = dict(steps=2, prior_images=2, inference_steps=1, learning_rate=1e-2, checkpoint_every=1)
LORA = emoji(trained="lora", lora_rank=4, lora_alpha=8, **QUICK)
IMAGE = Image.effect_noise((64, 64), 60).convert("RGB")


@pytest.fixture(scope="module")
def prior(new_tiny_pipe):
    return make_prior(new_tiny_pipe(), CLASSES, emoji(**QUICK))


@pytest.fixture(scope="module")
def runs(new_tiny_pipe, prior, tmp_path_factory):
    """The folders of a run of each kind: keys and values, a LoRA, the whole UNet."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"kv": emoji(**QUICK), "lora": LORA, "unet": emoji(method="dreambooth", **QUICK)}
    for name, config in kinds.items():
        list(train(new_tiny_pipe(), IMAGE, CLASSES, config, run_dir=folder / name, prior=prior))
    return {name: folder / name for name in kinds}


@pytest.fixture(scope="module")
def loras(new_tiny_pipe, tmp_path_factory):
    """LoRA files of others, and what the pipelines give that they were made with: in peft's names, over both parts in
    kohya's names with an alpha, and another one.
    """
    folder, files = tmp_path_factory.mktemp("loras"), {}
    for seed, name in enumerate(("style", "kohya", "other")):
        pipe = new_tiny_pipe()
        torch.manual_seed(seed)
        alpha = 6 if name == "kohya" else 2
        options = dict(r=2, lora_alpha=alpha, init_lora_weights=False)
        pipe.unet.add_adapter(LoraConfig(target_modules=["to_q", "to_k", "to_v", "to_out.0"], **options))
        factors = {f"unet.{key}": value for key, value in get_peft_model_state_dict(pipe.unet).items()}
        if name == "kohya":
            inject_adapter_in_model(LoraConfig(target_modules=["q_proj", "out_proj"], **options), pipe.text_encoder)
            text = get_peft_model_state_dict(pipe.text_encoder)
            factors |= {f"text_encoder.{key}": value for key, value in text.items()}
            factors = convert_state_dict_to_kohya(factors)
            factors = {re.sub("lora_te1_(?!text_model)", "lora_te_text_model_", key): f for key, f in factors.items()}
            factors |= {key: torch.tensor(float(alpha)) for key in factors if key.endswith(".alpha")}
        save_file({key: f.contiguous() for key, f in factors.items()}, folder / f"{name}.safetensors")
        files[name] = folder / f"{name}.safetensors", outputs(pipe, "a cat")
    return files


def learned(new_tiny_pipe, folder):
    pipe = new_tiny_pipe()
    load_learned(pipe, folder)
    return pipe


# Adapters that train


def test_adapters_begin_with_no_effect_and_end_in_the_weights(tiny_pipe):
    before = outputs(tiny_pipe, "a cat")
    plain = {name: weight.clone() for name, weight in tiny_pipe.unet.state_dict().items()}
    tiny_pipe.unet.mid_block.requires_grad_(False)
    wanted = [weight.requires_grad for weight in tiny_pipe.unet.parameters()]
    with adapted(tiny_pipe.unet, LORA) as weights:
        assert len(weights) == 2 * 14 and torch.equal(outputs(tiny_pipe, "a cat"), before)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.add_(0.1 if "lora_B" in name else 0)
        inside, factors = outputs(tiny_pipe, "a cat"), adapter_factors(tiny_pipe.unet)
    assert (inside - before).abs().max() > 1e-3
    after = tiny_pipe.unet.state_dict()
    assert after.keys() == plain.keys() and [w.requires_grad for w in tiny_pipe.unet.parameters()] == wanted
    for name, weight in plain.items():
        module = f"unet.{name.removesuffix('.weight')}"
        if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")):
            weight = weight + factors[f"{module}.lora_B.weight"] @ factors[f"{module}.lora_A.weight"]
        torch.testing.assert_close(after[name], weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(outputs(tiny_pipe, "a cat"), inside, atol=1e-5, rtol=0)


def test_adapters_are_the_same_for_a_seed_and_leave_other_random_numbers_alone(new_tiny_pipe):
    def first(seed):
        with adapted(new_tiny_pipe().unet, dataclasses.replace(LORA, seed=seed)) as weights:
            return next(weight.clone() for name, weight in weights.items() if "lora_A" in name)

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))
    assert torch.equal(torch.rand(1), expected)


def test_adapters_and_words_alone_train_and_the_first_token_is_detached(tiny_pipe):
    ids = add_modifiers(tiny_pipe, ("<new1>", "<new2>"), ("ktn", "pll"))
    with training(tiny_pipe, LORA, ids) as trainable:
        assert not trainable.base and set(trainable.named()) == {*trainable.weights, "embeddings"}
        text, _ = tiny_pipe.encode_prompt([PROMPT], "cpu", 1, False)
        latents, time = torch.randn(1, 4, 16, 16), torch.tensor(300)
        tiny_pipe.unet(latents, time, text).sample.square().sum().backward()
        moved = {name for name, weight in tiny_pipe.unet.named_parameters() if weight.grad is not None}
        assert len(moved) == 28 and all(".disendiff." in name for name in moved)
        for weight in trainable.weights.values():
            weight.grad = None
        tiny_pipe.unet(latents, time, text[:, :1].detach()).sample.square().sum().backward()  # the first token alone
        assert not any(weight.grad.any() for weight in trainable.weights.values())


def test_a_lora_run_is_small_and_goes_on_where_it_was_killed(new_tiny_pipe, prior, runs, tmp_path):
    next(train(new_tiny_pipe(), IMAGE, CLASSES, LORA, run_dir=tmp_path / "run", prior=prior))
    records = list(train(new_tiny_pipe(), IMAGE, CLASSES, LORA, run_dir=tmp_path / "run", prior=prior))
    assert [record.step for record in records] == [2]
    for name in (LORA_FILE, "new1.safetensors", "new2.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (runs["lora"] / name).read_bytes()
    assert {min(factor.shape) for factor in load_file(runs["lora"] / LORA_FILE).values()} == {4}


def test_the_calibration_reaches_the_adapters(new_tiny_pipe, prior):
    results = []
    for weight in (0.0, 10.0):
        pipe = new_tiny_pipe()
        config = dataclasses.replace(LORA, calibration_weight=weight, prior_probability=0.0)
        records = list(train(pipe, IMAGE, CLASSES, config))
        assert (records[0].bind > 0) == (weight > 0)
        results.append(outputs(pipe, PROMPT))
    assert (results[0] - results[1]).abs().max() > 1e-4


def test_what_adapters_cannot_lie_over_is_refused(new_tiny_pipe):
    pipe = new_tiny_pipe()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(UserError, match="has LoRA adapters already"):
        list(train(pipe, IMAGE, CLASSES, LORA))
    pipe = new_tiny_pipe()
    block = pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    block.attn2.to_v = torch.compile(block.attn2.to_v, backend="eager")
    with pytest.raises(UserError, match="to_v._orig_mod was compiled by itself"):
        list(train(pipe, IMAGE, CLASSES, dataclasses.replace(LORA, prior_probability=0.0)))
    assert not getattr(pipe.unet, "peft_config", None)


# LoRAs of others


@pytest.mark.parametrize("lora", ["style", "kohya"])
@pytest.mark.parametrize("kind", ["kv", "lora", "unet"])
def test_either_order_is_the_same_and_nothing_stays(kind, lora, runs, loras, new_tiny_pipe):
    plain = outputs(new_tiny_pipe(), "a cat")
    pipe = learned(new_tiny_pipe, runs[kind])
    alone = outputs(pipe, PROMPT)
    names = list(pipe.unet.state_dict())
    with use_lora(pipe, loras[lora][0], 0.8):
        both = outputs(pipe, PROMPT)
    assert (both - alone).abs().max() > 1e-3
    assert torch.equal(outputs(pipe, PROMPT), alone) and list(pipe.unet.state_dict()) == names
    other = new_tiny_pipe()
    with use_lora(other, loras[lora][0], 0.8):
        styled = outputs(other, "a cat")
        load_learned(other, runs[kind])
        assert torch.equal(outputs(other, PROMPT), both)
    assert torch.equal(outputs(other, PROMPT), alone) and not torch.equal(styled, plain)


@pytest.mark.parametrize("lora", ["style", "kohya"])
def test_it_is_what_it_was_made_with_at_its_scale(lora, loras, new_tiny_pipe):
    (path, expected), pipe = loras[lora], new_tiny_pipe()
    before = outputs(pipe, "a cat")
    with use_lora(pipe, path):
        torch.testing.assert_close(outputs(pipe, "a cat"), expected, atol=1e-5, rtol=0)
    with use_lora(pipe, path, 0.5):
        half = outputs(pipe, "a cat")
    assert 0 < (half - before).abs().max() and (half - expected).abs().max() > 1e-3
    with use_lora(pipe, path, 0):
        assert torch.equal(outputs(pipe, "a cat"), before)


def test_several_at_once_and_those_that_lay_there_before(loras, new_tiny_pipe):
    stock, pipe = new_tiny_pipe(), new_tiny_pipe()
    for name in ("style", "other"):
        stock.load_lora_weights(loras[name][0], adapter_name=name)
    stock.set_adapters(["style", "other"], [0.5, 0.3])
    with use_lora(pipe, loras["style"][0], 0.5):
        alone = outputs(pipe, "a cat")
        with use_lora(pipe, loras["other"][0], 0.3):
            torch.testing.assert_close(outputs(pipe, "a cat"), outputs(stock, "a cat"), atol=1e-5, rtol=0)
        assert torch.equal(outputs(pipe, "a cat"), alone)
    before = outputs(stock, "a cat")
    with use_lora(stock, loras["kohya"][0]):
        assert not torch.equal(outputs(stock, "a cat"), before)
    assert torch.equal(outputs(stock, "a cat"), before) and stock.get_active_adapters() == ["style", "other"]


def test_requires_grad_is_put_back_and_an_exception_leaves_nothing(loras, tiny_pipe):
    tiny_pipe.unet.mid_block.requires_grad_(False)
    wanted = [weight.requires_grad for weight in tiny_pipe.unet.parameters()]
    before = outputs(tiny_pipe, "a cat")
    with pytest.raises(KeyError), use_lora(tiny_pipe, loras["style"][0]):
        raise KeyError
    assert torch.equal(outputs(tiny_pipe, "a cat"), before)
    assert [weight.requires_grad for weight in tiny_pipe.unet.parameters()] == wanted


def damaged(path, factors, change):
    save_file({key: tensor.contiguous() for key, tensor in map(change, factors.items()) if tensor is not None}, path)
    return path


def test_what_is_no_lora_of_this_model(loras, tiny_pipe, tmp_path):
    before, factors = outputs(tiny_pipe, "a cat"), load_file(loras["style"][0])
    names = list(tiny_pipe.unet.state_dict())
    whole = loras["style"][0].read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a.pt").write_bytes(b"")
    wide = damaged(tmp_path / "wide.safetensors", factors, lambda item: (item[0], item[1].repeat(2, 2)))
    other = damaged(tmp_path / "other.safetensors", factors, lambda i: (i[0].replace("mid_block", "middle"), i[1]))
    none = damaged(tmp_path / "none.safetensors", factors, lambda item: (item[0].replace("lora_", "x_"), item[1]))
    far = damaged(tmp_path / "far.safetensors", factors, lambda i: (i[0].replace("unet.", "transformer."), i[1]))
    cases = {
        tmp_path / "no.safetensors": "There is no file",
        tmp_path / "half.safetensors": "truncated",
        tmp_path / "a.pt": "pickled weights are not read",
        wide: "is no LoRA for this model",
        other: "has 48 of the 56 layers",
        none: "holds no LoRA",
        far: "has 0 of the 56 layers",
    }
    for path, words in cases.items():
        with pytest.raises(UserError, match=words) as error, use_lora(tiny_pipe, path):
            pass
        assert "\n" not in str(error.value)
        assert torch.equal(outputs(tiny_pipe, "a cat"), before) and list(tiny_pipe.unet.state_dict()) == names
    with pytest.raises(UserError, match="scale is nan"), use_lora(tiny_pipe, loras["style"][0], float("nan")):
        pass
