"""Verbs that use what a run learned beside other things: LoRAs, another run, other programs."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

from disendiff_lite.cli.options import main

QUICK = ["steps=2", "batch_size=1", "prior_images=2", "inference_steps=1", "learning_rate=1e-2"]


def settings(*pairs):
    return [part for pair in pairs for part in ("--set", pair)]


@pytest.fixture(scope="module")
def model(new_tiny_pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    new_tiny_pipe().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory):
    """Finished runs on cat_dog, by a LoRA, and on chair_lamp."""
    folder = tmp_path_factory.mktemp("runs")
    for pair, more in {"cat_dog": ["trained=lora"], "chair_lamp": []}.items():
        command = ["train", "--pair", pair, "--model", str(model), "--device", "cpu", "--run-dir", str(folder / pair)]
        assert main([*command, *settings(*QUICK, *more)]) == 0
    return folder


@pytest.fixture(scope="module")
def style(new_tiny_pipe, tmp_path_factory):
    path, pipe = tmp_path_factory.mktemp("lora") / "neon.safetensors", new_tiny_pipe()
    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    factors = get_peft_model_state_dict(pipe.unet)
    save_file({f"unet.{name}": factor.contiguous() for name, factor in factors.items()}, path)
    return path


@pytest.fixture
def draw(runs, tmp_path, capsys):
    """Draw a picture of a prompt with options; returns its name, its bytes as a picture, and its note."""

    def drawn(*options, prompt="a <new1> cat"):
        known = set(tmp_path.glob("*.png"))
        command = ["generate", runs / "cat_dog", prompt, "--count", "1", "--device", "cpu", "--out", tmp_path, *options]
        assert main([str(part) for part in command]) == 0
        assert "longer" not in capsys.readouterr().err
        (path,) = set(tmp_path.glob("*.png")) - known
        with Image.open(path) as picture:
            return path.name, picture.tobytes(), json.loads(picture.info["disendiff_lite"])

    return drawn


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{arguments[0]}: ")]
    return said


def test_pictures_with_loras_say_so_and_scale_0_is_without(draw, style):
    name, plain, note = draw()
    styled_name, styled, styled_note = draw("--lora", style, "--lora-scale", "0.8")
    assert name == "a-new1-cat-seed0-00.png" and styled_name == "a-new1-cat-with-neon0-8-seed0-00.png"
    assert styled != plain and "loras" not in note and styled_note["loras"].endswith(":0.8")
    assert draw("--lora", style, "--lora-scale", "0")[1] == plain
    long = shutil.copy(style, style.with_name("drawn-with-a-pencil-on-a-rainy-day-in-spring.safetensors"))
    assert "-with-drawn-with-a-pencil-0-7-seed0" in draw("--lora", long, "--lora-scale", "0.7")[0]
    both = draw("--lora", style, "--lora", style, "--lora-scale", "0.5", "--lora-scale", "0.3")
    assert both[2]["loras"].count(":") == 2 and both[1] != plain


def test_a_lora_in_the_home_folder(draw, style, monkeypatch):
    monkeypatch.setenv("HOME", str(style.parent))
    assert draw("--lora", "~/neon.safetensors")[0] == "a-new1-cat-with-neon1-seed0-00.png"


def test_two_runs_together(draw, runs):
    rename = ["--rename", "<new1>=<new3>,<new2>=<new4>"]
    name, _, note = draw("--with", runs / "chair_lamp", *rename, prompt="a <new1> cat and a <new3> chair")
    assert name == "a-new1-cat-and-a-new3-chair-with-chair_lamp-seed0-00.png"
    assert note["other"].endswith(" <new3> <new4>")


def test_the_set_of_two_runs_has_all_concepts(runs, tmp_path):
    command = ["generate", runs / "cat_dog", "--with", runs / "chair_lamp", "--rename", "<new1>=<a>", "--rename"]
    command += ["<new2>=<b>", "--count", "1", "--device", "cpu", "--out", tmp_path]
    assert main([str(part) for part in command]) == 0
    assert len(list(tmp_path.glob("*.png"))) == 15 + 3 * (1 + 4)  # every choice of four; all and each in contexts


def test_what_cannot_be_used_beside_a_run(runs, style, tmp_path, capsys):
    command = ["generate", runs / "cat_dog", "a cat", "--count", "1", "--device", "cpu", "--out", tmp_path / "out"]
    (tmp_path / "torn.safetensors").write_bytes(style.read_bytes()[:100])
    cases = {
        ("--lora", tmp_path / "torn.safetensors"): "is truncated or not a safetensors file",
        ("--lora", tmp_path / "none.safetensors"): "There is no file",
        ("--lora", runs / "cat_dog" / "new1.safetensors"): "holds no LoRA",
        ("--lora-scale", "0.8"): "--lora-scale goes with --lora",
        ("--lora", style, *("--lora-scale", "1") * 2): "There are 2 scales for 1 LoRAs",
        ("--lora", style, "--lora-scale", "inf"): "scale is inf: give a finite number",
        ("--with", runs / "chair_lamp"): "--rename '<new1>=<new3>'",
        ("--with", tmp_path): "There is no run in",
        ("--rename", "<new1>=<a>"): "--rename goes with --with",
        ("--with", runs / "chair_lamp", "--rename", "<new1>"): "--rename takes OLD=NEW",
        ("--with", runs / "chair_lamp", "--rename", "<new5>=<a>"): "There is no word of",
    }
    for options, words in cases.items():
        assert words in refused(capsys, *command, *options), options
    assert not (tmp_path / "out").exists()


def test_export_says_how_exact_it_is(runs, tmp_path, capsys):
    command = ["export", str(runs / "cat_dog"), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*command, "--rank", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "out")
    for target in ("diffusers", "webui"):
        assert f"{target}: read back by stock diffusers, the UNet's output differs by at most" in printed.err
    assert printed.err.count("of the changes cut off by the rank") == 2 and "0.00%" not in printed.err
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert {"README.md", "webui/Lora/cat_dog.safetensors", "diffusers/new1.safetensors"} < files


def test_what_cannot_be_exported(runs, tmp_path, capsys):
    assert "There is no run in" in refused(capsys, "export", tmp_path)
    run = shutil.copytree(runs / "cat_dog", tmp_path / "run")
    (run / "new1.safetensors").unlink()
    assert "There is no file" in refused(capsys, "export", run, "--device", "cpu")
    (tmp_path / "file").write_text("")
    out = ["--device", "cpu", "--out", tmp_path / "file" / "out"]
    assert "choose another folder" in refused(capsys, "export", runs / "cat_dog", *out)
