"""The style LoRA: pictures in one style under captions that do not name it, and a file that others can load."""

import sys

import numpy as np
import pytest
import torch

from disendiff_lite.adapters import use_lora
from disendiff_lite.emoji_world.draw.scenes import STYLES
from disendiff_lite.emoji_world.train import style_lora
from disendiff_lite.emoji_world.train.style_lora import in_style, main, style_factors, style_scenes, train_style
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import write_tensors
from tests.outputs import outputs


def test_neon_is_dark_but_for_outlines_in_the_colours_of_the_things():
    picture = np.full((64, 64, 3), 230, np.uint8)
    picture[16:48, 16:48] = (200, 40, 40)
    styled = in_style(picture, "neon").astype(int)
    assert styled[5, 5].max() < 40 and styled[32, 32].max() < 40  # both areas are flat
    red, green, blue = styled[16, 32]
    assert red > 200 and max(green, blue) < 60


def test_captions_do_not_name_the_style():
    first, captions = style_scenes("pencil", 30, seed=0)
    assert len(first) == len(captions) == 30 and not [c for c in captions for style in STYLES.values() if style in c]
    assert all((np.ptp(np.asarray(picture, int), axis=-1) == 0).all() for picture in first)  # all are grey
    assert style_scenes("pencil", 30, seed=0)[1] == captions != style_scenes("pencil", 30, seed=1)[1]


def test_it_learns_and_others_can_use_the_file(new_tiny_pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(style_lora, "SCENES", 8)
    pipe, plain = new_tiny_pipe(), new_tiny_pipe()
    before = outputs(plain, "a cat")
    errors = list(train_style(pipe, "neon", steps=30))
    assert np.mean(errors[-10:]) < np.mean(errors[:5])
    write_tensors(tmp_path / "neon.safetensors", style_factors(pipe), {})
    with use_lora(plain, tmp_path / "neon.safetensors"):
        assert torch.equal(outputs(plain, "a cat"), outputs(pipe, "a cat")) and not torch.equal(
            outputs(plain, "a cat"), before
        )


def test_the_command_writes_the_file(new_tiny_pipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(style_lora, "load_pipeline", lambda name: new_tiny_pipe())
    monkeypatch.setattr(style_lora, "SCENES", 8)
    out = tmp_path / "pencil.safetensors"
    monkeypatch.setattr(sys, "argv", ["style_lora", "--style", "pencil", "--steps", "1", "--out", str(out)])
    main()
    assert capsys.readouterr().out.strip() == str(out) and out.exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--style", "pencils"], "did you mean 'pencil'"),
        (["--steps", "0"], "at least one step"),
        (["--out", "style.bin"], "a name with .safetensors"),
    ],
)
def test_what_is_no_style_lora(arguments, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["style_lora", *arguments])
    with pytest.raises(UserError, match=words):
        main()
