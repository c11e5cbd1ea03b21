"""Files: texts from any editor, lists of names, and disks that take two names for one."""

import os

import pytest

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import check_writable, file_key, file_names, put_into_page, read_json, read_text


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_text(tmp_path / "a.json") == '{"a": 1}' and read_json(tmp_path / "a.json", "is damaged") == {"a": 1}
    (tmp_path / "a.json").write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(UserError, match="it is not text"):
        read_text(tmp_path / "a.json")


def test_names_with_commas_between_or_within(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a, b.png", "c.png"):
        (tmp_path / name).write_text("")
    assert file_names("A.png,B.png") == file_names(" A.png , B.png ") == ["A.png", "B.png"]
    assert file_names("a, b.png") == ["a, b.png"]
    assert file_names('"a, b.png",c.png') == file_names('c.png, "a, b.png"')[::-1] == ["a, b.png", "c.png"]
    assert file_names('5".png,b.png') == ['5".png', "b.png"]
    assert file_names("") == [] and file_names("a,,b") == ["a", "", "b"]
    assert file_names(",".join(["name.png"] * 100)) == ["name.png"] * 100  # longer than a name may be


def test_one_file_for_a_disk_that_knows_no_capitals():
    assert file_key("Caf\u00c9.png") == file_key("cafe\u0301.PNG") != file_key("cafe.png")


def test_whether_a_folder_can_be_written(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write .*file.a .*: free some space or choose a run folder"):
        check_writable(tmp_path / "file" / "a")
    with pytest.raises(UserError, match="Cannot write .*: choose better"):
        check_writable(tmp_path / "file", "choose better")


def test_a_page_keeps_all_but_the_lines_between(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n")
    for _ in range(2):  # the second time it stays the same
        put_into_page(page, "x", "new")
        assert page.read_text() == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
    with pytest.raises(UserError, match="page.md has no lines <!-- y --> and <!-- end of y -->: put them"):
        put_into_page(page, "y", "new")
    with pytest.raises(UserError, match="Cannot read .*: check the path"):
        put_into_page(tmp_path / "none.md", "x", "new")
