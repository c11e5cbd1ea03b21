"""The verb `inpaint`: pictures in a folder, and each bad input as one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image

import disendiff_lite as dd
from disendiff_lite.cli.options import main
from disendiff_lite.config import emoji

pytestmark = pytest.mark.slow  # they load models and train


@pytest.fixture(scope="module")
def run(new_tiny_pipe, tmp_path_factory):
    """The folder of a finished run on a tiny model; the model lies beside it in `tiny`, its sister in `nine`."""
    folder = tmp_path_factory.mktemp("runs")
    new_tiny_pipe().save_pretrained(folder / "tiny")
    config = emoji(steps=1, batch_size=1, prior_probability=0.0, inference_steps=1, resolution=64)
    pipe, reference = dd.load_pipeline(folder / "tiny", device="cpu"), dd.load_reference("cat_dog")
    list(dd.train(pipe, reference.picture, reference.classes, config, run_dir=folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def nine(run, new_tiny_pipe, tiny_unet):
    parts = new_tiny_pipe().components | {"unet": tiny_unet(in_channels=9), "requires_safety_checker": False}
    StableDiffusionInpaintPipeline(**parts).save_pretrained(run.with_name("nine"))
    return run.with_name("nine")


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Works in a folder with scene.png, 100x80 px, and mask.png."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("scene.png")
    mask = np.zeros((80, 100), dtype=np.uint8)
    mask[30:50, 40:70] = 255
    Image.fromarray(mask).save("mask.png")
    return pixels


def inpaint(capsys, run, *arguments, mask="mask.png", image="scene.png", status=0):
    """Run the command line; returns what it printed and what it said."""
    capsys.readouterr()
    command = ["inpaint", str(run), "--image", image, "--mask", mask, "--device", "cpu"]
    assert main([*command, *map(str, arguments)]) == status
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.out.strip(), printed.err.strip()


def test_pictures_of_a_scene(run, scene, tmp_path, capsys):
    out, said = inpaint(capsys, run, "a <new1> cat", "a <new2> dog", "--count", 2, "--seed", 3, "--feather", 2)
    assert out == str(run / "inpainted")
    assert "the model sees a square of 64 px, at 23, 8" in said and "inpainting 4/4" in said
    names = sorted(path.name for path in (run / "inpainted").iterdir())
    assert names == [
        f"a-{thing}-in-scene-seed3-{number:02}.png" for thing in ("new1-cat", "new2-dog") for number in (0, 1)
    ]
    picture = Image.open(run / "inpainted" / names[0])
    changed = (np.asarray(picture) != scene).any(axis=-1)
    assert changed[30:50, 40:70].mean() > 0.9
    changed[28:52, 38:72] = False
    assert picture.size == (100, 80) and not changed.any()
    note = json.loads(picture.info["disendiff_lite"])
    assert note["prompt"] == "a <new1> cat" and note["strength"] == "1" and note["feather"] == "2"


def test_pictures_never_take_each_others_place(run, scene, capsys):
    def draw(*arguments, **files):
        inpaint(
            capsys, run, "a <new1> cat", "--count", 1, "--out", "out", "--set", "inference_steps=2", *arguments, **files
        )
        return {path.name: path.read_bytes() for path in (Path.cwd() / "out").iterdir()}

    Image.open("scene.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("other.png")
    Image.open("mask.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("mirrored.png")
    before = draw()
    assert draw() == before  # the same once more
    for more in (("--strength", 0.6), ("--feather", 5), ("--invert",)):
        after = draw(*more)
        assert len(after) == len(before) + 1 and before.items() <= after.items()
        before = after
    for files in ({"mask": "mirrored.png"}, {"image": "other.png"}):
        after = draw(**files)
        assert len(after) == len(before) + 1 and before.items() <= after.items()
        before = after
    Image.open("other.png").save("scene.png")  # another picture of the same name
    assert before.items() < draw().items()


def test_an_inpainting_model_takes_what_its_sister_learned(run, nine, scene, capsys):
    out, _ = inpaint(capsys, run, "a <new1> cat", "--count", 1, "--model", nine, "--out", "nine")
    (path,) = (Path.cwd() / out).iterdir()
    assert json.loads(Image.open(path).info["disendiff_lite"])["model"] == str(nine)
    assert main(["generate", str(run), "a <new1> cat", "--model", str(nine), "--device", "cpu"]) == 2
    assert "is an inpainting model, which neither trains nor draws" in capsys.readouterr().err
    assert main(["train", "--pair", "cat_dog", "--model", str(nine), "--device", "cpu", "--run-dir", "new"]) == 2
    assert "is an inpainting model, which neither trains nor draws" in capsys.readouterr().err


def test_a_mask_of_another_size_is_resized_and_said(run, scene, capsys):
    Image.open("mask.png").resize((50, 40)).save("half.png")
    _, said = inpaint(capsys, run, "a <new1> cat", "--count", 1, mask="half.png")
    assert "the mask was resized from 50x40 to 100x80 px" in said


def test_what_is_refused(run, scene, tmp_path, capsys):
    Image.new("L", (100, 80)).save("black.png")
    Image.new("L", (80, 100), 255).save("tall.png")
    (tmp_path / "text.png").write_text("no picture")

    def refused(*arguments, **files):
        out, said = inpaint(capsys, run, "a <new1> cat", *arguments, status=2, **files)
        assert out == "" and said.splitlines()[-1].startswith("inpaint: ")
        return said.splitlines()[-1]

    assert "The mask chooses nothing: paint white" in refused(mask="black.png")
    assert "covers the whole picture" in refused("--invert", mask="black.png")
    assert "has 80x100 px and the picture 100x80 px, which is another shape" in refused(mask="tall.png")
    assert "There is no picture gone.png: check the path" in refused(image="gone.png")
    assert "Cannot read text.png as a picture" in refused(mask="text.png")
    assert "The strength is 2" in refused("--strength", 2)
    assert "The feather is -3 px" in refused("--feather", -3)
    assert "<new9>" in refused("a <new9> cat")
    assert "sampling" in refused("--set", "steps=3")
    assert "Cannot write" in refused("--out", "text.png/out")
    assert not (Path.cwd() / "out").exists()
