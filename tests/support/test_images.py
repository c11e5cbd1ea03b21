"""Pictures of every kind become upright RGB, or are refused with a sentence."""

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.images import centre_square, load_image, to_rgb, to_tensor


def save(image, tmp_path, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_transparent_parts_lie_over_white(tmp_path):
    image = Image.new("RGBA", (20, 20), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 20))
    loaded = load_image(save(image, tmp_path))
    assert loaded.mode == "RGB"
    assert loaded.getpixel((2, 2)) == (255, 255, 255)
    assert loaded.getpixel((15, 2)) == (200, 0, 0)


def test_half_transparent_grey(tmp_path):
    loaded = load_image(save(Image.new("LA", (20, 20), (0, 128)), tmp_path))
    assert loaded.getpixel((0, 0)) == (127, 127, 127)


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (20, 20), 1)
    image.putpalette([9, 9, 9, 0, 200, 0])
    image.paste(0, (0, 0, 10, 20))
    loaded = load_image(save(image, tmp_path, transparency=0))
    assert loaded.getpixel((2, 2)) == (255, 255, 255)
    assert loaded.getpixel((15, 2)) == (0, 200, 0)


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    assert load_image(save(image, tmp_path, "picture.jpg", exif=exif)).size == (20, 40)


@pytest.mark.parametrize("mode, value, expected", [("L", 77, 77), ("1", 1, 255), ("I;16", 77 * 257, 77)])
def test_grey_becomes_rgb(tmp_path, mode, value, expected):
    loaded = load_image(save(Image.new(mode, (20, 20), value), tmp_path))
    assert loaded.mode == "RGB" and loaded.getpixel((3, 3)) == (expected,) * 3


def test_cmyk_becomes_rgb(tmp_path):
    assert load_image(save(Image.new("CMYK", (20, 20)), tmp_path, "picture.jpg")).mode == "RGB"


def test_one_pixel_is_refused(tmp_path):
    path = save(Image.new("RGB", (1, 1)), tmp_path)
    with pytest.raises(UserError, match="1x1 px: give a picture of at least 16 px"):
        load_image(path)
    with pytest.raises(UserError, match="The picture is 1x1 px"):
        to_rgb(Image.new("RGB", (1, 1)))


def test_a_missing_picture_is_refused(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UserError, match="There is no picture .*: check the path"):
            load_image(path)


def test_an_unreadable_picture_is_refused(tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("not a picture")
    with pytest.raises(UserError, match="as a picture .* save it anew as PNG or JPEG"):
        load_image(path)


def test_a_truncated_picture_is_refused(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path = save(noise, tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="as a picture"):
        load_image(path)


def test_centre_square_takes_the_middle():
    image = Image.new("RGB", (60, 20), (255, 0, 0))
    image.paste((0, 255, 0), (20, 0, 40, 20))
    square = centre_square(image, 32)
    assert square.size == (32, 32)
    assert np.unique(np.array(square).reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]


def test_a_picture_as_a_tensor():
    image = Image.fromarray(np.arange(20 * 24 * 3, dtype=np.uint16).reshape(20, 24, 3).astype(np.uint8))
    pixels = to_tensor(image)
    assert pixels.shape == (3, 20, 24)
    assert pixels.min() == -1 and pixels.max() == 1
    assert np.array_equal(((pixels + 1) * 127.5).round().permute(1, 2, 0).numpy(), np.array(image))
