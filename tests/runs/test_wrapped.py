"""A pipeline whose parts are compiled trains, saves and loads as a plain one; where adapters or processors stand before
the trained weights, training is refused.
"""

from pathlib import Path

import pytest
import torch
from diffusers.models import attention_processor as stock
from peft import LoraConfig
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.models import cross_attention_weights, model_fingerprint, same_model
from disendiff_lite.presets import METHODS
from disendiff_lite.runs.learned import load_learned
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers
from disendiff_lite.trainable import choose_trainable, training
from tests.outputs import outputs

CLASSES = ["cat", "dog"]
PROMPT = "a <new1> cat and a <new2> dog on the beach"
QUICK = dict(steps=2, batch_size=2, prior_images=2, inference_steps=1, learning_rate=1e-2, checkpoint_every=1)
PARTS = ("unet", "text_encoder", "vae")


def compile_whole(pipe):
    for part in PARTS:
        setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))


def compile_in_place(pipe):
    for part in PARTS:
        getattr(pipe, part).compile(backend="eager")


def compile_repeated_blocks(pipe):
    pipe.unet.compile_repeated_blocks(backend="eager")


def compile_parts(pipe):
    block = pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    block.attn2.to_v = torch.compile(block.attn2.to_v, backend="eager")
    block.attn2 = torch.compile(block.attn2, backend="eager")
    pipe.unet.mid_block = torch.compile(pipe.unet.mid_block, backend="eager")
    pipe.vae.encoder = torch.compile(pipe.vae.encoder, backend="eager")


WAYS = [
    pytest.param(compile_whole, marks=pytest.mark.slow),
    pytest.param(compile_in_place, marks=pytest.mark.slow),
    compile_repeated_blocks,
    compile_parts,
]


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.effect_noise((64, 64), 60).convert("RGB")


@pytest.fixture(scope="module")
def prior(new_tiny_pipe):
    return make_prior(new_tiny_pipe(), CLASSES, emoji(**QUICK))


@pytest.fixture(scope="module")
def plain_run(new_tiny_pipe, image, prior, tmp_path_factory):
    """A function that gives the folder of a method's run on the plain pipeline."""
    folders = {}

    def run(method: str) -> Path:
        if method not in folders:
            folders[method] = tmp_path_factory.mktemp("runs") / method
            config = emoji(method=method, **QUICK)
            list(train(new_tiny_pipe(), image, CLASSES, config, run_dir=folders[method], prior=prior))
        return folders[method]

    return run


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("wrap", WAYS)
def test_a_compiled_pipeline_trains_to_the_same_files_and_loads_them(
    wrap, new_tiny_pipe, image, prior, plain_run, tmp_path
):
    pipe, loaded, other = new_tiny_pipe(), new_tiny_pipe(), new_tiny_pipe()
    wrap(pipe), wrap(loaded)
    outputs(pipe, "a cat"), outputs(loaded, "a cat")  # both have run compiled before
    list(train(pipe, image, CLASSES, emoji(**QUICK), run_dir=tmp_path / "run", prior=prior))
    expected = files(plain_run("disendiff"))
    assert len(expected) == 3 and files(tmp_path / "run") == expected
    load_learned(other, tmp_path / "run")
    load_learned(loaded, plain_run("disendiff"))
    assert torch.equal(outputs(loaded, PROMPT), outputs(other, PROMPT))
    torch.testing.assert_close(outputs(pipe, PROMPT), outputs(other, PROMPT), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_names_and_their_order_are_those_of_the_plain_unet(method, new_tiny_pipe):
    pipe, plain = new_tiny_pipe(), new_tiny_pipe()
    compile_parts(pipe)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    assert list(choose_trainable(pipe, emoji(method=method).trained)) == list(
        choose_trainable(plain, emoji(method=method).trained)
    )
    fingerprint = model_fingerprint(plain.unet)
    assert model_fingerprint(pipe.unet) == fingerprint and same_model(pipe.unet, fingerprint)


@pytest.mark.parametrize("method", ["dreambooth", "textual_inversion"])
def test_other_methods_on_compiled_parts(method, new_tiny_pipe, image, prior, plain_run, tmp_path):
    pipe, loaded = new_tiny_pipe(), new_tiny_pipe()
    compile_parts(pipe), compile_parts(loaded)
    list(train(pipe, image, CLASSES, emoji(method=method, **QUICK), run_dir=tmp_path / "run", prior=prior))
    assert files(tmp_path / "run") == files(plain_run(method)) != {}
    load_learned(loaded, tmp_path / "run")
    torch.testing.assert_close(outputs(loaded, PROMPT), outputs(pipe, PROMPT), atol=1e-6, rtol=0)


def test_a_run_goes_on_on_a_compiled_pipeline(new_tiny_pipe, image, prior, plain_run, tmp_path):
    config = emoji(**QUICK)
    next(train(new_tiny_pipe(), image, CLASSES, config, run_dir=tmp_path / "run", prior=prior))  # one step, then killed
    pipe = new_tiny_pipe()
    compile_parts(pipe)
    assert len(list(train(pipe, image, CLASSES, config, run_dir=tmp_path / "run", prior=prior))) == 1
    assert files(tmp_path / "run") == files(plain_run("disendiff"))


def test_a_graph_from_before_the_training_does_not_hide_its_hooks(new_tiny_pipe):
    pipe = new_tiny_pipe()
    ids = add_modifiers(pipe, ("<new1>", "<new2>"), ("ktn", "pll"))
    pipe.text_encoder.requires_grad_(False)
    pipe.text_encoder = torch.compile(pipe.text_encoder, backend="eager")
    pipe.encode_prompt([PROMPT], "cpu", 1, False)  # with gradients switched on, as in the training
    with training(pipe, emoji(method="textual_inversion"), ids) as trainable:
        text, _ = pipe.encode_prompt([PROMPT], "cpu", 1, False)
        text.square().sum().backward()
        assert trainable.rows.grad.abs().sum(dim=1).min() > 0


# Adapters and processors before the weights


class OwnProcessor(stock.AttnProcessor2_0):
    pass


def custom_diffusion(pipe):
    for name, layer in pipe.unet.named_modules():
        if name.endswith(".attn2"):
            shapes = dict(hidden_size=layer.to_q.in_features, cross_attention_dim=layer.to_k.in_features)
            layer.set_processor(stock.CustomDiffusionAttnProcessor2_0(True, False, **shapes))


def own(pipe):
    pipe.unet.set_attn_processor(OwnProcessor())


def fused(pipe):
    pipe.unet.fuse_qkv_projections()


def unfused(pipe):
    pipe.unet.fuse_qkv_projections()
    pipe.unet.unfuse_qkv_projections()


def adapter(*names):
    return lambda pipe: pipe.unet.add_adapter(LoraConfig(r=2, target_modules=list(names)))


KEY_METHODS = ("disendiff", "custom_diffusion")
REFUSED = {  # what stands before the weights: in which methods they would train in vain, and what the refusal says
    "custom_diffusion": (custom_diffusion, (*KEY_METHODS, "dreambooth"), "CustomDiffusion|processor.to_k_custom_diff"),
    "own": (own, KEY_METHODS, "OwnProcessor, the processor of .*: call pipe.unet.set_attn_processor"),
    "fused": (fused, (*KEY_METHODS, "dreambooth"), "FusedAttnProcessor2_0|to_qkv"),
    "unfused": (unfused, (), ""),
    "keys": (adapter("to_k"), (*KEY_METHODS, "dreambooth"), "LoRA adapters|unload its adapters"),
    "queries": (adapter("to_q"), ("dreambooth",), "unload its adapters"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_no_picture_would_use_are_not_trained(case, method, new_tiny_pipe):
    change, methods, words = REFUSED[case]
    pipe = new_tiny_pipe()
    names = list(choose_trainable(pipe, emoji(method=method).trained))
    change(pipe)
    wanted = [weight.requires_grad for weight in pipe.unet.parameters()]
    if method in methods:
        with pytest.raises(UserError, match=words) as error, training(pipe, emoji(method=method), [1, 2]):
            pass
        assert "\n" not in str(error.value)
        assert [weight.requires_grad for weight in pipe.unet.parameters()] == wanted
    else:
        assert list(choose_trainable(pipe, emoji(method=method).trained)) == names


def test_a_run_on_such_a_pipeline_stops_before_it_begins(new_tiny_pipe, image, prior, tmp_path):
    pipe = new_tiny_pipe()
    custom_diffusion(pipe)
    with pytest.raises(
        UserError, match="CustomDiffusionAttnProcessor2_0, the processor of .*: call pipe.unet.set_attn"
    ):
        list(train(pipe, image, CLASSES, emoji(**QUICK), run_dir=tmp_path / "run", prior=prior))
    assert "<new1>" not in pipe.tokenizer.get_vocab() and not (tmp_path / "run").exists()
    pipe.unet.set_attn_processor(stock.AttnProcessor2_0())  # what the error says
    assert len(list(train(pipe, image, CLASSES, emoji(**QUICK), run_dir=tmp_path / "run", prior=prior))) == 2


@pytest.mark.parametrize("change", [custom_diffusion, fused])
@pytest.mark.parametrize("method", ["disendiff", "dreambooth"])
def test_what_would_have_no_effect_is_not_loaded(change, method, new_tiny_pipe, plain_run):
    pipe = new_tiny_pipe()
    change(pipe)
    before = outputs(pipe, "a cat")
    with pytest.raises(UserError, match="set_attn_processor") as error:
        load_learned(pipe, plain_run(method))
    assert "\n" not in str(error.value)
    assert torch.equal(outputs(pipe, "a cat"), before) and "<new1>" not in pipe.tokenizer.get_vocab()


def test_what_keeps_to_the_layers_own_keys_takes_what_was_learned(new_tiny_pipe, plain_run):
    for change in (own, unfused, adapter("to_q"), adapter("to_k")):
        pipe = new_tiny_pipe()
        change(pipe)
        before = cross_attention_weights(pipe.unet, wrapped=True)
        before = {name: weight.clone() for name, weight in before.items()}
        load_learned(pipe, plain_run("disendiff"))
        after = cross_attention_weights(pipe.unet, wrapped=True)
        assert not any(torch.equal(weight, before[name]) for name, weight in after.items())
