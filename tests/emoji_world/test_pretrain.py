"""The command that pretrains: its folder, its errors, and the model that it exports."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from disendiff_lite.emoji_world.train import pretrain
from disendiff_lite.emoji_world.train.unet import UnetTraining
from disendiff_lite.support.errors import UserError, run_main


def test_the_command_has_a_folder_of_its_own_and_says_bad_input_in_one_sentence(monkeypatch, capsys):
    folders = []

    def refuse(folder, *_, **__):
        folders.append(folder)
        raise UserError("There are no scenes: draw some.")

    monkeypatch.setattr(pretrain, "load_scenes", refuse)
    monkeypatch.setattr(sys, "argv", ["pretrain"])
    with pytest.raises(SystemExit) as end:
        run_main(pretrain.main)
    assert end.value.code == 2 and capsys.readouterr().err == "There are no scenes: draw some.\n"
    assert folders == [Path("runs/pretrain/scenes")]
    monkeypatch.setattr(sys, "argv", ["pretrain", "--images", "100", "--batch", "128"])
    with pytest.raises(SystemExit) as end:
        run_main(pretrain.main)
    assert end.value.code == 2 and "choose from 1 to 100" in capsys.readouterr().err and len(folders) == 1
    monkeypatch.setattr(sys, "argv", ["pretrain", "--forget", "to_q"])
    with pytest.raises(SystemExit) as end:
        run_main(pretrain.main)
    assert end.value.code == 2 and "name it with --start" in capsys.readouterr().err and len(folders) == 1
    assert UnetTraining(images=0).images == 0  # only the decoder is trained


def test_projections_are_forgotten_in_every_cross_attention_layer(tiny_unet):
    unet = tiny_unet()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    pretrain.forget(unet, ["to_q", "to_k"])
    changed = {name for name, value in unet.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".attn2.to_q." in name or ".attn2.to_k." in name} != set()
    pretrain.forget(unet, [])


def test_an_exported_model_is_stock_and_does_not_say_where_it_came_from(new_tiny_pipe, tmp_path):
    new_tiny_pipe().save_pretrained(tmp_path / "whence")
    started = StableDiffusionPipeline.from_pretrained(tmp_path / "whence", safety_checker=None)
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "old.txt").touch()
    (tmp_path / "model" / "card.md").touch()
    pretrain.export(started, tmp_path / "model")
    assert not any("whence" in path.read_text() for path in (tmp_path / "model").rglob("*.json"))
    assert not (tmp_path / "model" / "unet" / "old.txt").exists() and (tmp_path / "model" / "card.md").exists()
    exported = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    assert exported.unet.dtype == exported.text_encoder.dtype == torch.float32
    assert (
        load_file(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.bias"].dtype
        == torch.float16
    )
