"""The function that puts what was learned into a scene: what it takes, and what it gives back."""

import numpy as np
import pytest
import torch
from PIL import Image

import disendiff_lite as dd
from disendiff_lite.config import emoji
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers

CONFIG = emoji(inference_steps=2)
SCENE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8))
MASK = np.zeros((64, 80), dtype=bool)
MASK[20:40, 20:44] = True


def arrays(pictures):
    return [np.asarray(picture) for picture in pictures]


def test_pictures_files_and_arrays(tiny_pipe, tmp_path):
    add_modifiers(tiny_pipe, ["<new1>"], ["ktn"])
    scene, mask = tmp_path / "scene.png", tmp_path / "mask.png"
    SCENE.save(scene)
    Image.fromarray(MASK).save(mask)
    calls = []
    options = {"count": 3, "seed": 4, "config": CONFIG, "feather": 2}
    own = {"batch_size": 2, "progress": lambda *call: calls.append(call)}
    pictures = arrays(dd.inpaint(tiny_pipe, SCENE, MASK, "a <new1> cat", **options, **own))
    assert calls == [(2, 3), (3, 3)] and len(pictures) == 3
    for again in (
        dd.inpaint(tiny_pipe, scene, mask, "a <new1> cat", **options, batch_size=2),
        dd.inpaint(tiny_pipe, SCENE, ~MASK, "a <new1> cat", **options, batch_size=2, invert=True),
        dd.inpaint(tiny_pipe, SCENE, Image.fromarray(MASK), "a <new1> cat", **options, batch_size=2),
    ):
        assert all((one == other).all() for one, other in zip(pictures, arrays(again)))
    for picture in pictures:
        assert (picture[:18] == np.asarray(SCENE)[:18]).all() and (picture[MASK] != np.asarray(SCENE)[MASK]).any()
    (first,) = arrays(dd.inpaint(tiny_pipe, SCENE, MASK, "a <new1> cat", config=emoji(inference_steps=2, seed=4)))
    assert np.abs(first[MASK].astype(int) - pictures[0][MASK]).max() <= 1  # the settings give the seed


def test_what_is_refused(tiny_pipe, tmp_path):
    for prompt, words in (("a <new1> cat", "<new1>"), ("cat " * 80, "77")):
        with pytest.raises(UserError, match=words):
            dd.inpaint(tiny_pipe, SCENE, MASK, prompt, config=CONFIG)
    with pytest.raises(UserError, match="There is no picture .*gone.png: check the path"):
        dd.inpaint(tiny_pipe, SCENE, tmp_path / "gone.png", "a cat", config=CONFIG)
    with pytest.raises(UserError, match="not a multiple of 8"):
        dd.inpaint(tiny_pipe, SCENE, MASK, "a cat", config=emoji(resolution=60))


def test_too_little_memory_says_what_to_change(tiny_pipe, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ...\nmore")

    monkeypatch.setattr(tiny_pipe.unet, "forward", full)
    said = r"^There is too little memory \(CUDA out of memory\): {}"
    with pytest.raises(UserError, match=said.format("draw fewer pictures at once")):
        dd.inpaint(tiny_pipe, SCENE, MASK, "a cat", config=CONFIG)
    with pytest.raises(UserError, match=said.format("draw fewer pictures at once")):
        dd.generate(tiny_pipe, "a cat", config=CONFIG)


def test_an_inpainting_model_neither_trains_nor_draws_alone(tiny_pipe, tiny_unet):
    tiny_pipe.register_modules(unet=tiny_unet(in_channels=9))
    refusal = "is an inpainting model, which neither trains nor draws from a prompt alone: train on its text-to-image"
    with pytest.raises(UserError, match=refusal):
        list(dd.train(tiny_pipe, SCENE, ["cat", "dog"], CONFIG))
    with pytest.raises(UserError, match=refusal):
        dd.generate(tiny_pipe, "a cat", config=CONFIG)
    with pytest.raises(UserError, match=refusal):
        dd.maps_on_picture(tiny_pipe, SCENE, "a cat", config=CONFIG)


def test_weights_partly_in_half_precision(tiny_pipe):
    tiny_pipe.vae.to(torch.bfloat16)
    tiny_pipe.text_encoder.to(torch.bfloat16)
    assert len(dd.inpaint(tiny_pipe, SCENE, MASK, "a cat", config=CONFIG)) == 1
