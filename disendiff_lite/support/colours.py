"""Embedded colour profiles: a picture's numbers mean the colours that its profile says, and become those of sRGB."""

import io

import numpy as np
from PIL import Image, ImageCms

FITTING = {"L": ("L", "RGB"), "1": ("L", "RGB"), "CMYK": ("CMYK",)}  # kinds of profile by PIL mode; else RGB alone
KINDS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's own word: the PIL mode that it explains
INVISIBLE = 2  # of 255: a profile that moves no colour by more is sRGB under another name


def in_srgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """A picture without transparency as RGB, in the colours of sRGB.

    profile: its ICC profile. One that is broken, or of another kind of picture (CMYK's on an RGB one), is ignored, and
        one that says sRGB leaves the picture as it is to the last bit.
    """
    if image.mode == "LAB":  # is defined without a profile, and not all of PIL's versions convert it
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return ImageCms.applyTransform(image, transform)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        mode = KINDS.get(source.profile.xcolor_space.strip())
        if mode in FITTING.get(image.mode, ("RGB",)):
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
            if mode == "CMYK" or not _is_srgb(transform, mode):
                return ImageCms.applyTransform(image.convert(mode), transform)
    except (OSError, ImageCms.PyCMSError):  # a broken profile
        pass
    return image.convert("RGB")


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the transform leaves all of 256 greys, or all of 9x9x9 colours, as they are."""
    axes = np.linspace(0, 255, 9) if mode == "RGB" else np.arange(256)
    values = np.stack(np.meshgrid(*[axes] * len(mode), indexing="ij"), axis=-1).round().astype(np.uint8)
    probe = Image.fromarray(values.reshape(len(values), -1, 3) if mode == "RGB" else values)  # "L": (256, 1)
    before, after = (np.asarray(picture, np.int16) for picture in (probe.convert("RGB"), transform.apply(probe)))
    return np.abs(before - after).max() <= INVISIBLE
