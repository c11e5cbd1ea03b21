"""The offline page holds the very maps of the record, rounded as it says, in a small file that needs nothing and runs
nothing else.
"""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from disendiff_lite.show.explorer import page as explorer_page
from disendiff_lite.show.explorer.page import quantise, write_explorer
from disendiff_lite.show.explorer.picture import map_colours, picture_tile
from disendiff_lite.support.errors import UserError


def contents(path) -> tuple[dict, bytes]:
    """The facts and the numbers of a page."""
    html = path.read_text(encoding="utf-8")
    facts = re.search(r'<script type="application/json" id="facts">(.*?)</script>', html, re.S)[1]
    numbers = re.search(r'<script type="text/plain" id="numbers">(.*?)</script>', html, re.S)[1]
    return json.loads(facts), zlib.decompress(base64.b64decode(numbers))


def test_values_are_rounded_by_at_most_1_510_of_each_maps_range():
    maps = (
        np.random.default_rng(0).random((3, 2, 8, 8)).astype(np.float32) * np.array([1, 1e-4, 0])[:, None, None, None]
        + 0.2
    )
    lowest, span, places = quantise(maps)
    assert places.dtype == np.uint8 and lowest.shape == span.shape == (3, 2)
    restored = lowest[..., None, None] + places / 255 * span[..., None, None]
    assert (np.abs(restored - maps).max(axis=(-2, -1)) <= span / 509 + 1e-7).all()  # 1/510 and float32's own rounding
    assert np.allclose(restored[2], maps[2], atol=1e-7)  # a flat map


def test_the_page_holds_the_maps(new_record, tmp_path):
    records = (new_record(), new_record(1))
    write_explorer(tmp_path / "new" / "both.html", records[0], records[1], names=("one", "two"), words=["dog"])
    facts, numbers = contents(tmp_path / "new" / "both.html")
    assert facts["names"] == ["one", "two"] and facts["steps"][0] == "mean of 5 steps" and len(facts["steps"]) == 6
    assert [word["label"] for word in facts["words"] if word["shown"]] == ["dog"]
    assert [grid["size"] for grid in facts["grids"]] == [[5, 3, 4, 6, 16, 16], [5, 2, 2, 6, 8, 8]]
    place = 0

    def take(count: int, kind: str) -> np.ndarray:
        nonlocal place
        taken = np.frombuffer(numbers, kind, count, place)
        place += taken.nbytes
        return taken

    for record in records:
        assert np.array_equal(take(192 * 192 * 3, "u1"), picture_tile(record.picture).ravel())
        for maps in record.maps.values():
            shape = maps.shape[:4]
            lowest, span = (take(np.prod(shape), "<f4").reshape(*shape, 1, 1) for _ in range(2))
            restored = lowest + take(maps.size, "u1").reshape(maps.shape) / 255 * span
            assert (np.abs(restored - maps) <= span / 509).all()
    assert np.array_equal(take(768, "u1"), map_colours().ravel()) and place == len(numbers)


def test_a_usual_record_makes_a_small_page(new_record, tmp_path):
    maps = np.random.default_rng(0).random((25, 3, 4, 8, 16, 16)).astype(np.float16)  # noise: nothing compresses less
    words = {"words": tuple("abcdefgh"), "positions": tuple(range(8)), "roles": ("",) * 8, "times": tuple(range(25))}
    write_explorer(tmp_path / "page.html", new_record(**words, layers={"16x16": ("x", "y", "z")}, maps={"16x16": maps}))
    assert (tmp_path / "page.html").stat().st_size < 1_200_000


def test_no_word_or_prompt_can_break_out_of_its_place(new_record, tmp_path):
    evil = '</script><script>alert("1")</script>@@NUMBERS@@<!--'
    write_explorer(tmp_path / "page.html", new_record(prompt=evil, words=(evil, "<new1>", "cat", "and", "a", "dog")))
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script>") == 3 and "<!--" not in html
    facts, _ = contents(tmp_path / "page.html")
    assert facts["prompt"] == facts["words"][0]["label"] == evil
    assert "<title>Attention: &lt;/script&gt;" in html


def test_the_page_loads_nothing_and_lets_nothing_else_run(new_record, tmp_path):
    write_explorer(tmp_path / "page.html", new_record())
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)\s*=\s*[\"']", html) == [] and "http:" not in html and "https:" not in html
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy


def test_what_cannot_be_written_is_explained(new_record, tmp_path, monkeypatch):
    record = new_record()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_explorer(tmp_path / "file" / "page.html", record)
    with pytest.raises(UserError, match="differ in their noise levels"):
        write_explorer(tmp_path / "page.html", record, new_record(times=(1, 2, 3, 4, 5)))
    monkeypatch.setattr(explorer_page, "LARGEST", 1000)
    with pytest.raises(UserError, match="too many for a page"):
        write_explorer(tmp_path / "page.html", record)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
