"""Pictures and scores as files: names that tell them apart, and nothing that is finished is overwritten."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from disendiff_lite.cli.results import PictureFolder, file_stem, save_scores
from disendiff_lite.config import emoji
from disendiff_lite.support.errors import UserError

USUAL = emoji(inference_steps=9)
CAT = "photo of a <new1> cat"
# All of them make the same name at first.
ALIKE = (CAT, CAT + "!", "Photo of a <new1> cat", "photo of a new1 cat", "photo, of a <new1> cat", CAT + "?", CAT + " ")
VERY = "very " * 30


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    USUAL.save(folder / "config.json")
    (folder / "new1.safetensors").write_bytes(b"what was learned")
    return folder


def picture(shade):
    return Image.fromarray(np.full((16, 16, 3), shade, dtype=np.uint8))


def results(run, out, negative_prompt="", model="emoji", **changes):
    return PictureFolder(out, run, dataclasses.replace(USUAL, **changes), model, negative_prompt)


def shades(out):
    return sorted(int(np.asarray(Image.open(path))[0, 0, 0]) for path in out.iterdir())


def test_the_name_of_a_picture_and_its_note(run, tmp_path):
    out = tmp_path / "a" / "b"
    assert results(run, out, seed=5).save(picture(1), CAT, 0)
    (path,) = out.iterdir()
    assert path.name == "photo-of-a-new1-cat-seed5-00.png"
    info = Image.open(path).info
    note = json.loads(info["disendiff_lite"])
    assert info["prompt"] == note["prompt"] == CAT and note["negative_prompt"] == ""
    assert {name: note[name] for name in ("seed", "number", "inference_steps")} == {
        "seed": "5",
        "number": "0",
        "inference_steps": "9",
    }


@pytest.mark.parametrize(
    "prompts",
    [
        ALIKE,
        ALIKE[::-1],
        (VERY + "cat", VERY + "dog", VERY + "Dog"),  # the same up to letter 150
        ("🐈", "🐕", "!", ""),
        ("猫" * 60 + "犬", "猫" * 60 + "鳥"),
        ("caf\u00e9", "cafe\u0301", "CAF\u00c9"),  # on some disks one file
    ],
)
def test_prompts_that_make_the_same_name(run, tmp_path, prompts):
    out = tmp_path / "out"
    for _ in range(2):  # the second time nothing is added, and each finds its own place again
        folder = results(run, out)
        own = [folder.save(picture(shade), prompt, 0) for shade, prompt in enumerate(prompts)]
        assert own[0] and shades(out) == list(range(len(prompts)))
    names = [path.name for path in out.iterdir()]
    assert len({name.casefold() for name in names}) == len(prompts)
    assert all(len(name.encode()) <= 230 for name in names)


def test_everything_that_decides_a_picture_tells_it_apart(run, tmp_path):
    out, retrained = tmp_path / "out", tmp_path / "retrained"
    retrained.mkdir()
    USUAL.save(retrained / "config.json")
    (retrained / "new1.safetensors").write_bytes(b"something else")
    asked = [
        results(run, out),
        results(run, out, seed=1),
        results(run, out, inference_steps=10),
        results(run, out, guidance_scale=8.0),
        results(run, out, guidance_scale=8.0000001),
        results(run, out, eta=0.0),
        results(run, out, resolution=128),
        results(run, out, "blurry, dark"),
        results(run, out, "blurry dark"),
        results(run, out, model="another"),
        results(retrained, out),
    ]
    for shade, folder in enumerate(asked):
        for number in (0, 1):
            folder.save(picture(10 * shade + number), CAT, number)
    assert shades(out) == [10 * shade + number for shade in range(len(asked)) for number in (0, 1)]
    names = {path.name for path in out.iterdir()}
    assert "photo-of-a-new1-cat-seed0-guidance_scale8-00.png" in names
    assert "photo-of-a-new1-cat-without-blurry-dark-seed0-01.png" in names


def test_other_peoples_files_are_left_alone(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    folder, name = results(run, out), "photo-of-a-new1-cat-seed0-{:02}.png"
    (out / name.format(0)).write_text("no picture")
    old = PngInfo()  # as earlier versions wrote them, without their settings
    old.add_text("prompt", CAT)
    picture(7).save(out / name.format(1), pnginfo=old)
    (out / name.format(2)).mkdir()
    (out / name.format(3).upper()).write_bytes(b"\x89PNG\r\n\x1a\n")
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert [folder.save(picture(9), CAT, number) for number in range(5)] == [False] * 4 + [True]
    assert all(path.read_bytes() == whole for path, whole in before.items()) and len(list(out.iterdir())) == 9
    for path in out.glob("*-seed0-00-*.png"):
        path.write_text("somebody wrote over it")
    with pytest.raises(UserError, match="is another picture than its name says: move it away, or choose another --out"):
        folder.save(picture(9), CAT, 0)


def test_the_longest_name_fits_a_disk(run, tmp_path):
    changes = dict(seed=2**32 - 1, inference_steps=999, guidance_scale=12.34567, eta=0.123456, resolution=1024)
    for prompt in ("a " * 200, "猫" * 200, "é" * 200):
        folder = results(run, tmp_path / "out", "not " * 50, **changes)
        folder.save(picture(1), prompt, 10_000)
        folder.save(picture(2), prompt + "!", 10_000)
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_what_lies_beside_a_run_leaves_the_name_room(run, tmp_path):
    changes = dict(seed=2**32 - 1, inference_steps=999, guidance_scale=12.34567, eta=0.123456, resolution=1024)
    for beside in (["a-long-run-" * 20], [f"{'style' * 4}0.{n}" for n in range(9)], ["猫" * 80] * 3):
        config = dataclasses.replace(USUAL, **changes)
        out = tmp_path / beside[0][:5]
        folder = PictureFolder(out, run, config, "emoji", "not " * 50, beside=beside)
        for prompt in (CAT, CAT + "!"):
            folder.save(picture(1), prompt, 10_000)
        names = [path.name for path in out.iterdir()]
        assert len(names) == 2 and all(name.startswith("photo-of-a-new1-cat-without-not") for name in names)
        assert all(f"-with-{beside[0][:5]}" in name for name in names)


def test_a_folder_that_cannot_be_written_is_seen_at_once(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write .*: free some space or choose another folder with --out"):
        results(run, tmp_path / "file" / "out")


def test_stems():
    assert file_stem("photo of a <new1> cat!") == "photo-of-a-new1-cat" and file_stem("🐈") == "picture"
    assert file_stem("a" * 500) == "a" * 120 and file_stem("猫" * 500) == "猫" * 40
    assert file_stem("a\udcff b") == "a-b"


def test_scores_of_other_settings_are_kept(tmp_path):
    path = tmp_path / "scores.json"
    assert save_scores(path, {"count": 4, "seed": 0}, {"cat": {"n": 1}}) is None
    assert save_scores(path, {"count": 4, "seed": 0}, {"cat": {"n": 2}}) is None  # the same, measured again
    assert save_scores(path, {"count": 4, "seed": 1}, {"cat": {"n": 3}}) == tmp_path / "scores-1.json"
    path.write_text("damaged")
    assert save_scores(path, {"count": 4, "seed": 1}, {"cat": {"n": 4}}) == tmp_path / "scores-2.json"
    kept = [json.loads(Path(tmp_path, name).read_text()) for name in ("scores-1.json", "scores.json")]
    assert [found["subjects"]["cat"]["n"] for found in kept] == [2, 4] and kept[1]["seed"] == 1
    assert (tmp_path / "scores-2.json").read_text() == "damaged"
