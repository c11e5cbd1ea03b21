"""Colour profiles: what a picture's numbers mean by its profile becomes sRGB; a useless profile is ignored."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from disendiff_lite.support.images import load_image, to_rgb

D50 = (0.9642, 1, 0.8249)
ORANGE = (200, 60, 30)


def fixed(*values) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values) -> bytes:
    return b"XYZ " + bytes(4) + fixed(*values)


def gamma(value) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2.4: its header, the table of its tags, and the tags."""
    tags = {b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": xyz(*D50), **tags}
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"test", 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*D50)
    return header.ljust(128, b"\0") + table + body


def rgb_profile(red, green, blue, exponent) -> bytes:
    columns = {b"rXYZ": xyz(*red), b"gXYZ": xyz(*green), b"bXYZ": xyz(*blue)}
    return profile(b"RGB ", b"XYZ ", b"mntr", columns | {c + b"TRC": gamma(exponent) for c in (b"r", b"g", b"b")})


def cmyk_profile() -> bytes:
    """Full cyan is a green that PIL's own formula never gives; the other inks are grey, black ink is black."""
    corners = b""
    for number in range(16):
        cyan, black = number & 8, number & 1
        corners += bytes([0, 128, 128] if black else [153, 68, 168] if cyan else [255, 128, 128])  # L, a, b
    line = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * line + corners + 3 * line
    return profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


ADOBE_RGB = rgb_profile((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), 2.2)
DISPLAY_P3 = rgb_profile((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407), 2.2)
GREY = profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": gamma(1.8)})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def load(image, tmp_path, data, name="picture.png"):
    image.save(tmp_path / name, icc_profile=data)
    return load_image(tmp_path / name)


def new(mode, colour):
    return Image.new(mode, (20, 20), colour)


def near(image, colour, by=1):
    return np.abs(np.asarray(image, int) - colour).max() <= by


# The right values were computed from the profiles' primaries and exponents, apart from PIL.
@pytest.mark.parametrize("data, expected", [(ADOBE_RGB, (231, 57, 21)), (DISPLAY_P3, (219, 37, 0))])
def test_wide_colours_become_srgb(tmp_path, data, expected):
    assert near(load(new("RGB", ORANGE), tmp_path, data), expected)
    assert near(load(new("RGB", ORANGE).quantize(4), tmp_path, data), expected)
    over_white = np.array(expected) * 128 / 255 + 127
    assert near(load(new("RGBA", (*ORANGE, 128)), tmp_path, data), over_white)


@pytest.mark.parametrize("mode, value", [("L", 100), ("I;16", 100 * 257)])
def test_grey_by_its_own_profile(tmp_path, mode, value):
    assert near(load(new(mode, value), tmp_path, GREY), 119)  # (100 / 255) ** 1.8 in sRGB's curve
    assert near(load(new(mode, value), tmp_path, DISPLAY_P3), 100, by=2)  # a colour profile on a grey picture


def test_half_transparent_grey_by_its_own_profile(tmp_path):
    assert near(load(new("LA", (100, 128)), tmp_path, GREY), 119 * 128 / 255 + 127)


@pytest.mark.parametrize("name", ["picture.jpg", "picture.tif"])
def test_inks_by_their_profile(tmp_path, name):
    red, green, blue = load(new("CMYK", (255, 0, 0, 0)), tmp_path, cmyk_profile(), name).getpixel((3, 3))
    assert green > 150 and red < 90 and 40 < blue < 120  # CIELAB (60, -60, 40); without the profile (0, 255, 255)
    assert near(load(new("CMYK", (0, 0, 0, 255)), tmp_path, cmyk_profile(), name), 0, by=3)


def test_srgb_changes_no_bit(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert np.array_equal(load(noise, tmp_path, SRGB), noise)
    assert np.array_equal(load(noise.convert("L"), tmp_path, SRGB), noise.convert("L").convert("RGB"))


@pytest.mark.parametrize("data", [b"rubbish", bytes(200), ADOBE_RGB[:200], GREY, cmyk_profile()])
def test_a_profile_that_is_broken_or_of_other_pictures_is_ignored(tmp_path, data):
    assert near(load(new("RGB", ORANGE), tmp_path, data), ORANGE, by=0)


def test_a_profile_is_applied_once(tmp_path):
    once = load(new("RGB", ORANGE), tmp_path, ADOBE_RGB)
    once.save(tmp_path / "again.png")
    assert np.array_equal(load_image(tmp_path / "again.png"), once)


def test_lab(tmp_path):
    grey, red = (137, 128, 128), (138, 209, 198)  # L in 0 to 255, a and b around 128
    assert near(to_rgb(new("LAB", grey)), 128)
    assert near(load(new("LAB", red), tmp_path, None, "picture.tif"), (255, 0, 0), by=6)
