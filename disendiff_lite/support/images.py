"""Pictures in: any file that PIL opens becomes an upright RGB picture, and pictures become tensors."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from disendiff_lite.support.errors import UserError, first_line

SMALLEST_SIDE = 16  # pixels; below this nothing is left to learn from


def load_image(path) -> Image.Image:
    """Open a picture as upright RGB.

    The EXIF rotation is applied, transparent parts are laid over white, and grey-scale, palette, CMYK and 16-bit
    pictures are converted. Of an animation the first frame is taken.

    Returns the picture, RGB, 8 bits a channel. Raises UserError if the file is missing, is no picture, is damaged, or
    has a side under 16 px.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no picture {path}: check the path.")
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image, name=str(path))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"Cannot read {path} as a picture ({first_line(error)}): save it anew as PNG or JPEG."
        ) from None


def to_rgb(image: Image.Image, name: str = "The picture") -> Image.Image:
    """An upright RGB copy of a PIL picture, as load_image makes it; `name` is what an error calls it.

    Raises UserError if a side is under 16 px.
    """
    if min(image.size) < SMALLEST_SIDE:
        raise UserError(
            f"{name} is {image.width}x{image.height} px: give a picture of at least {SMALLEST_SIDE} px a side."
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits: PIL's own conversion would clip everything above 255 to white
        values = np.asarray(image).astype(np.float32)
        image = Image.fromarray((values / 257.0).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def centre_square(image: Image.Image, resolution: int) -> Image.Image:
    """The largest centred square of the picture, resized to `resolution` px a side."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as a float tensor (3, height, width) in [-1, 1]."""
    values = torch.from_numpy(np.array(image, dtype=np.float32))  # (height, width, 3)
    return (values / 127.5 - 1.0).permute(2, 0, 1).contiguous()  # (3, height, width)
