"""Class pictures are drawn once for many runs, in batches that fit; only what was drawn in the same way is taken."""

import dataclasses

import pytest
import torch
from peft import LoraConfig
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.runs import prior as module
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError

CONFIG = emoji(prior_images=5, prior_batch=4, inference_steps=1)
CLASSES = ["cat", "dog"]


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that were drawn; those of more than `batches.most` do not fit into the memory."""

    class Sizes(list):
        most = 99

    sizes = Sizes()

    def sample(pipe, prompts, seeds, config):
        sizes.append(len(seeds))
        if len(seeds) > sizes.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        kinds = {weight.dtype for weight in pipe.unet.parameters()}
        assert kinds == {getattr(torch, config.precision)}
        return [Image.new("RGB", (64, 64), (seed % 251, 0, 0)) for seed in seeds]

    monkeypatch.setattr(module, "sample", sample)
    return sizes


def bytes_of(prior):
    return [picture.tobytes() for picture in prior.pictures]


def test_a_second_run_draws_nothing(tiny_pipe, new_tiny_pipe, batches, tmp_path, cache):
    first = make_prior(tiny_pipe, CLASSES, CONFIG, tmp_path / "first")
    assert batches == [4, 1]
    second = make_prior(new_tiny_pipe(), CLASSES, CONFIG, tmp_path / "second")
    in_memory = make_prior(new_tiny_pipe(), CLASSES, CONFIG)
    assert batches == [4, 1] and bytes_of(first) == bytes_of(second) == bytes_of(in_memory)
    assert len(list((tmp_path / "second").glob("*.png"))) == 5  # a run's folder is whole without the cache
    assert [path.name.startswith(".") for path in (cache / "class-pictures").iterdir()] == [False]


def test_a_training_takes_what_was_drawn_without_its_words(tiny_pipe, new_tiny_pipe, batches, tmp_path):
    drawn = make_prior(tiny_pipe, CLASSES, CONFIG)
    image, config = Image.effect_noise((64, 64), 60).convert("RGB"), dataclasses.replace(CONFIG, steps=1)
    list(train(new_tiny_pipe(), image, CLASSES, config, run_dir=tmp_path))
    assert batches == [4, 1] and len(drawn.pictures) == len(list((tmp_path / "prior").glob("*.png")))


def test_the_scale_of_a_lora_tells_pictures_apart(tiny_pipe, batches):
    tiny_pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"], init_lora_weights=False), "style")
    for weights in (1.0, 0.5, 0.5):
        tiny_pipe.unet.set_adapters(["style"], weights=[weights])
        make_prior(tiny_pipe, CLASSES, CONFIG)
    assert batches == [4, 1, 4, 1]
    tiny_pipe.unet.disable_adapters()
    make_prior(tiny_pipe, CLASSES, CONFIG)
    assert batches == [4, 1, 4, 1, 4, 1]


@pytest.mark.parametrize("change", ["caption", "seed", "guidance_scale", "precision", "vae", "noise"])
def test_what_would_look_otherwise_is_drawn_anew(change, tiny_pipe, batches):
    make_prior(tiny_pipe, CLASSES, CONFIG)
    values = {"seed": 1, "guidance_scale": 2.0, "precision": "bfloat16"}
    config = dataclasses.replace(CONFIG, **{name: value for name, value in values.items() if name == change})
    if change == "vae":
        with torch.no_grad():
            next(tiny_pipe.vae.parameters()).add_(1e-3)
    if change == "noise":
        tiny_pipe.scheduler.register_to_config(beta_end=0.013)
    make_prior(tiny_pipe, ["cat", "cow"] if change == "caption" else CLASSES, config)
    assert batches == [4, 1, 4, 1]


def test_pictures_that_were_changed_by_hand_are_not_shared(tiny_pipe, batches, tmp_path, cache):
    make_prior(tiny_pipe, CLASSES, CONFIG, tmp_path)
    (shared,) = (cache / "class-pictures").iterdir()
    (shared / "0002.png").write_bytes(b"damaged")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "0001.png")
    changed = make_prior(tiny_pipe, CLASSES, CONFIG, tmp_path)
    assert batches == [4, 1] and changed.pictures[1].getpixel((0, 0)) == (0, 0, 255)
    assert make_prior(tiny_pipe, CLASSES, CONFIG).pictures[1].getpixel((0, 0)) != (0, 0, 255)
    assert batches == [4, 1, 4, 1]  # and the damaged ones were drawn anew, and are shared
    make_prior(tiny_pipe, CLASSES, CONFIG)
    assert batches == [4, 1, 4, 1]


def test_a_cache_that_cannot_be_written_harms_nothing(tiny_pipe, batches, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISENDIFF_LITE_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert len(make_prior(tiny_pipe, CLASSES, CONFIG).pictures) == 5
    assert batches == [4, 1, 4, 1]


def test_batches_are_halved_until_they_fit(tiny_pipe, batches):
    expected = bytes_of(make_prior(tiny_pipe, CLASSES, CONFIG))
    del batches[:]
    batches.most = 1
    seed = dataclasses.replace(CONFIG, seed=2)
    assert len(make_prior(tiny_pipe, CLASSES, seed).pictures) == 5 and batches == [4, 2, 1, 1, 1, 1, 1]
    batches.most = 0
    with pytest.raises(UserError, match="too little memory .*: set precision to float16 or bfloat16, or"):
        make_prior(tiny_pipe, CLASSES, dataclasses.replace(CONFIG, seed=3))
    assert bytes_of(make_prior(tiny_pipe, CLASSES, CONFIG)) == expected


def test_in_half_precision_the_weights_are_afterwards_as_before(tiny_pipe):
    before = {name: weight.clone() for name, weight in tiny_pipe.unet.state_dict().items()}
    half = make_prior(tiny_pipe, CLASSES, dataclasses.replace(CONFIG, precision="bfloat16"))
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_pipe.unet.state_dict().items())
    assert bytes_of(half) != bytes_of(make_prior(tiny_pipe, CLASSES, CONFIG))
