"""Pictures in: any file that PIL opens becomes an upright RGB picture, and pictures become tensors."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin

from disendiff_lite.support.colours import in_srgb
from disendiff_lite.support.errors import UserError, first_line

SMALLEST_SIDE = 16  # pixels; below this nothing is left to learn from
TURNS = {  # what brings a picture upright, by its EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What white may be in a picture that has more than 8 bits, by the first letters of PIL's name for its mode.
WHITES = {"F": (1, 255, 65535), "I": (255, 65535), "I;16": (65535,)}
DARKEST = 1 / 16  # of white; a picture without a brighter pixel is black to the eye, or white was guessed wrong
ROUNDING = 0.001  # times white; numbers this far below black or above white come from calculating with them


def load_image(path) -> Image.Image:
    """Open a picture as upright RGB, in the colours of sRGB.

    The EXIF rotation and an embedded colour profile are applied, transparent parts are laid over white, and pictures of
    every other mode (grey, palette, CMYK, Lab, 16 bits, floats) are converted. Of an animation or of several pages the
    first is taken.

    Returns the picture, RGB, 8 bits a channel, without metadata. Raises UserError if the file is missing, is no
    picture, is damaged, has a side under 16 px or too many pixels, or if its numbers do not say what white is.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no picture {path}: check the path.")
    with _in_words(f"Cannot read {path} as a picture"), Image.open(path) as image:
        return _upright_rgb(image, str(path))


def to_rgb(image: Image.Image, name: str = "The picture") -> Image.Image:
    """An upright RGB copy of a PIL picture, as load_image makes it; `name` is what an error calls it.

    Raises UserError as load_image does, for what PIL reads only when it is asked for the pixels.
    """
    with _in_words(f"{name} cannot be read"):
        return _upright_rgb(image, name)


def centre_square(image: Image.Image, resolution: int) -> Image.Image:
    """The largest centred square of the picture, resized to `resolution` px a side."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # The same pixels as `crop` gives, which warns of large pictures or refuses them.
    square = image.transform((side, side), Image.Transform.EXTENT, (left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as a float tensor (3, height, width) in [-1, 1]."""
    values = torch.from_numpy(np.array(image, dtype=np.float32))  # (height, width, 3)
    return (values / 127.5 - 1.0).permute(2, 0, 1).contiguous()  # (3, height, width)


@contextlib.contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Keep PIL's warnings about pictures silent, and turn what it raises into a UserError that begins with `what`."""
    try:
        with warnings.catch_warnings():
            for kind in (UserWarning, RuntimeWarning):  # RuntimeWarning: many pixels, which are no attack
                warnings.simplefilter("ignore", kind)
            yield
    except UserError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        reason = first_line(error).split(", could be")[0]  # PIL takes it for an attack
        raise UserError(f"{what} ({reason}): make it smaller, 4000 px a side are plenty.") from None
    except Exception as error:  # what is damaged makes PIL's readers fail in every way there is
        raise UserError(f"{what} ({first_line(error)}): save it anew as PNG or JPEG.") from None


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    if min(image.size) < SMALLEST_SIDE:
        raise UserError(
            f"{name} is {image.width}x{image.height} px: give a picture of at least {SMALLEST_SIDE} px a side."
        )
    image.load()
    profile, tags = image.info.get("icc_profile"), getattr(image, "tag_v2", {})
    image = _upright(image)
    if image.mode.startswith(("I", "F")):
        image = _in_eight_bits(image, name, tags)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        colours, grey = image.convert("RGBA"), image.mode in ("1", "L", "LA")
        image = in_srgb(colours.convert("L" if grey else "RGB"), profile)
        image.putalpha(colours.getchannel("A"))
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    else:
        image = in_srgb(image, profile)
    image.info.clear()  # a profile or a rotation would be applied once more to a file made from this picture
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damaged notes about the camera are no reason to refuse the picture
        turn = None
    return image.copy() if turn is None else image.transpose(turn)


def _in_eight_bits(image: Image.Image, name: str, tags) -> Image.Image:
    """A grey picture of floats, of 32 or of 16 bits in 8 bits, where PIL itself would clip all that is above 255.

    tags: of a TIFF file, which may say that it counts from white to black, or in 12 bits.
    """
    values = np.asarray(image).astype(np.float32)  # (height, width)
    low, high = values.min(), values.max()
    whites = (4095,) if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else WHITES[image.mode[:4]]
    white = next((white for white in whites if high <= white * (1 + ROUNDING)), 0)
    if not (low >= -white * ROUNDING and high >= white * DARKEST and white):  # false for what is not a number, too
        raise UserError(
            f"{name} holds numbers from {low:g} to {high:g}, which do not say what is black and what is white: bring"
            " them to 0 to 255 and save it as a PNG of 8 bits."
        )
    values = values / white * 255
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # counts from white to black
        values = 255 - values
    grey = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if "transparency" in image.info:  # the one number that is not to be seen
        grey.putalpha(Image.fromarray(np.uint8(255) * (np.asarray(image) != image.info["transparency"])))
    return grey
