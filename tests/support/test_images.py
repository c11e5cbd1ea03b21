"""Pictures of every kind become upright RGB, or are refused with a sentence."""

import warnings

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
    loaded = load_image(save(image, tmp_path, "picture.jpg", exif=exif))
    assert loaded.size == (20, 40)
    assert not loaded.info  # or a file made from it would be turned again


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_every_rotation(tmp_path, orientation, mode):
    values = np.random.default_rng(0).integers(64, 256, (20, 40), dtype=np.uint8)
    upright = {  # what EXIF calls the sides that row 0 and column 0 are
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.T,
        6: values[::-1].T,
        7: values[::-1, ::-1].T,
        8: values[:, ::-1].T,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(values).convert(mode)
    assert np.array_equal(np.asarray(load_image(save(image, tmp_path, exif=exif)))[..., 0], upright)


@pytest.mark.parametrize("exif", [b"rubbish", b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\x01"])
def test_damaged_exif_is_ignored(tmp_path, exif):
    assert load_image(save(Image.new("RGB", (40, 20)), tmp_path, "picture.jpg", exif=exif)).size == (40, 20)


@pytest.mark.parametrize("mode, value, expected", [("L", 77, 77), ("1", 1, 255), ("I;16", 77 * 257, 77)])
def test_grey_becomes_rgb(tmp_path, mode, value, expected):
    loaded = load_image(save(Image.new(mode, (20, 20), value), tmp_path))
    assert loaded.mode == "RGB" and loaded.getpixel((3, 3)) == (expected,) * 3


GREYS = np.tile(np.arange(0, 256, 5, dtype=np.float64), (20, 1))  # (20, 52), black on the left, white on the right


@pytest.mark.parametrize(
    "kind, white, name",
    [
        (np.float32, 1, "picture.tif"),
        (np.float32, 255, "picture.tif"),
        (np.float32, 65535, "picture.tif"),
        (np.int32, 255, "picture.tif"),
        (np.int32, 65535, "picture.tif"),
        (np.uint16, 65535, "picture.png"),
        (">u2", 65535, "picture.tif"),
    ],
)
def test_more_than_eight_bits(tmp_path, kind, white, name):
    values = (GREYS / 255 * white).round(4).astype(kind)
    loaded = np.asarray(load_image(save(Image.fromarray(values), tmp_path, name)))
    assert np.array_equal(loaded, np.repeat(GREYS.astype(np.uint8)[..., None], 3, axis=2))
    assert np.array_equal(to_rgb(Image.fromarray(values)), loaded)


def test_numbers_just_beyond_black_and_white_are_rounding():
    values = (GREYS / 255 * 1.0002 - 0.0001).astype(np.float32)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(values)))[..., 0], GREYS)


@pytest.mark.parametrize(
    "values, found",
    [
        (GREYS / 255 - 0.5, "-0.5 to 0.5"),
        (GREYS / 100, "0 to 2.55"),  # more than 1 and yet far from 255
        (GREYS * 1e6, "0 to 2.55e\\+08"),
        (np.where(GREYS > 200, np.nan, GREYS), "nan to nan"),
        (np.where(GREYS > 200, np.inf, GREYS), "0 to inf"),
        (GREYS.astype(np.int32) - 9, "-9 to 246"),
        (GREYS.astype(np.int32) * 4, "0 to 1020"),  # 10 bits, or 16 bits of a dark picture
        (GREYS.astype(np.uint16) * 16, "0 to 4080"),  # 12 bits within 16
    ],
)
def test_numbers_that_do_not_say_what_white_is_are_refused(tmp_path, values, found):
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    path = save(Image.fromarray(values), tmp_path, "picture.tif")
    with pytest.raises(UserError, match=f"picture.tif holds numbers from {found}, .* bring them to 0 to 255"):
        load_image(path)


@pytest.mark.parametrize("kind, white", [(np.uint16, 65535), (np.float32, 1)])
def test_a_tiff_may_count_from_white_to_black(tmp_path, kind, white):
    values = ((1 - GREYS / 255) * white).round(4).astype(kind)
    loaded = load_image(save(Image.fromarray(values), tmp_path, "picture.tif", tiffinfo={262: 0}))
    assert np.array_equal(np.asarray(loaded)[..., 0], GREYS)


def test_one_of_16_bits_may_be_transparent(tmp_path):
    image = Image.fromarray((GREYS * 257).astype(np.uint16))
    loaded = load_image(save(image, tmp_path, transparency=0))
    assert loaded.getpixel((0, 0)) == (255, 255, 255) and loaded.getpixel((2, 0)) == (10, 10, 10)


@pytest.mark.parametrize("name", ["picture.jpg", "picture.tif"])  # a JPEG file holds the inks inverted
def test_inks(tmp_path, name):
    cyan = load_image(save(Image.new("CMYK", (20, 20), (255, 0, 0, 0)), tmp_path, name))
    assert np.abs(np.asarray(cyan, int) - (0, 255, 255)).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBa"])
def test_every_mode_shows_the_same_colour(mode):
    red = Image.new("RGB", (20, 20), (255, 0, 0))
    if mode in ("1", "L", "LA"):
        assert to_rgb(Image.new("L", (20, 20), 255).convert(mode)).getpixel((3, 3)) == (255, 255, 255)
    else:
        by_way_of = {"PA": "P", "RGBa": "RGBA"}.get(mode, mode)
        found = to_rgb(red.convert(by_way_of).convert(mode))
        assert found.mode == "RGB" and np.abs(np.asarray(found, int) - (255, 0, 0)).max() <= 1


def test_transparency_that_is_multiplied_in():
    quarter = Image.new("RGBA", (20, 20), (200, 100, 0, 64))
    assert np.abs(np.asarray(to_rgb(quarter.convert("RGBa")), int) - np.asarray(to_rgb(quarter))).max() <= 2
    assert to_rgb(Image.new("LA", (20, 20), (100, 128)).convert("La")).getpixel((0, 0)) == (177, 177, 177)


@pytest.mark.parametrize("name", ["picture.gif", "picture.png", "picture.webp", "picture.tif"])
def test_the_first_picture_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    loaded = load_image(save(frames[0], tmp_path, name, save_all=True, append_images=frames[1:]))
    assert np.abs(np.asarray(loaded, int) - (255, 0, 0)).max() <= 2


def test_the_picture_without_its_gain_map_is_taken(tmp_path):
    gain = Image.new("L", (16, 16), 9)
    path = save(Image.new("RGB", (32, 32), (0, 0, 255)), tmp_path, "picture.mpo", save_all=True, append_images=[gain])
    loaded = load_image(path.rename(tmp_path / "picture.jpg"))
    assert loaded.size == (32, 32) and loaded.getpixel((3, 3))[2] > 250


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp", "jp2", "ppm"])
def test_a_truncated_picture_is_refused(tmp_path, suffix):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path = save(noise, tmp_path, f"picture.{suffix}")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="as a picture"):
        load_image(path)
    if suffix in ("png", "jpg", "bmp"):  # PIL opens it and notices when the pixels are wanted
        with pytest.raises(UserError, match="^The picture cannot be read .*: save it anew as PNG or JPEG"):
            to_rgb(Image.open(path))


def test_a_picture_of_too_many_pixels(tmp_path, monkeypatch):
    path = save(Image.new("RGB", (100, 100)), tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(UserError, match=r"as a picture .*10000 pixels.* exceeds limit .*: make it smaller"):
        load_image(path)


def test_a_large_picture_is_read_without_a_warning(tmp_path, monkeypatch):
    path = save(Image.new("RGB", (100, 100)), tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert centre_square(load_image(path), 32).size == (32, 32)


def test_an_ordinary_picture_keeps_every_bit(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8))
    assert np.array_equal(load_image(save(noise, tmp_path)), noise)
    assert np.array_equal(to_rgb(noise), noise) and to_rgb(noise) is not noise
    expected = noise.crop((0, 8, 48, 56)).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(centre_square(noise, 32), expected)


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
