"""Pieces of text, cut between any two bytes, have labels that can be read."""

import pytest

from disendiff_lite.support.pieces import piece_labels


@pytest.mark.parametrize(
    "pieces, labels",
    [
        ([b"cat", b"dog"], ["cat", "dog"]),
        ([b"caf\xc3", b"\xa9", b"s"], ["café 1/2", "café 2/2", "s"]),
        (["猫".encode()[:2], "猫".encode()[2:] + b"\xf0\x9f", b"\x90\x88"], ["猫🐈 1/3", "猫🐈 2/3", "猫🐈 3/3"]),
        (["\u0302".encode()], ["◌\u0302"]),
        (["\u200d".encode()[:1], "\u200d".encode()[1:]], ["U+200D 1/2", "U+200D 2/2"]),
        ([b"\x07", "\ufe0f".encode(), "❤\ufe0f".encode()], ["U+0007", "U+FE0F", "❤"]),
        ([b"a", b"\xe7\x8c", b"\xe7"], ["a", "e7 8c", "e7"]),
        ([], []),
    ],
)
def test_labels(pieces, labels):
    assert piece_labels(pieces) == labels
    assert all(label.isprintable() for label in labels)
