"""Class pictures from a folder of one's own."""

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.runs.prior import load_prior
from disendiff_lite.support.errors import UserError


def test_only_pictures_that_can_be_seen_are_read(tmp_path):
    for name, colour in (("b.png", "blue"), ("a.JPG", "red"), ("c.bmp", "lime")):
        Image.new("RGB", (80, 64), colour).save(tmp_path / name)
    for name in ("._a.JPG", "._b.png", ".DS_Store", ".hidden.png", "Thumbs.db", "desktop.ini", "prior.json"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7" + bytes(99))
    (tmp_path / "more.png").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    prior = load_prior(tmp_path, ["cat", "dog"], emoji())
    assert prior.caption == "a cat and a dog"
    assert [picture.size for picture in prior.pictures] == [(64, 64)] * 3
    assert [int(np.asarray(picture)[5, 5].argmax()) for picture in prior.pictures] == [0, 2, 1]  # in order of the names


def test_a_folder_that_holds_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder .* check the path"):
        load_prior(tmp_path / "none", ["cat"], emoji())
    (tmp_path / "._a.png").write_bytes(bytes(99))
    with pytest.raises(UserError, match="holds no pictures"):
        load_prior(tmp_path, ["cat"], emoji())


def test_a_damaged_class_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(99))
    with pytest.raises(UserError, match="Cannot read .*a.png as a picture"):
        load_prior(tmp_path, ["cat"], emoji())
