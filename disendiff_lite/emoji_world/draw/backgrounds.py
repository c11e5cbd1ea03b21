"""The places of the emoji world: smooth painted backgrounds, each with the words that a caption uses for it.

They carry no grain on purpose: grain is noise that a small autoencoder and a small UNet would spend their capacity on.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 64  # pixels
OVERSAMPLE = 2

# Place -> the phrase that ends a caption.
PHRASES = {
    "beach": "on the beach",
    "grass": "on the grass",
    "snow": "on the snow",
    "street": "on a street at night",
    "room": "in a room",
    "desert": "in the desert",
    "sunset": "at sunset",
    "plain": "on a plain background",
}


def _vertical(top: tuple, bottom: tuple) -> Image.Image:
    """A smooth vertical gradient between two colours."""
    side = SIDE * OVERSAMPLE
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    pixels = (1 - ramp) * np.array(top, dtype=np.float32) + ramp * np.array(bottom, dtype=np.float32)
    return Image.fromarray(np.broadcast_to(pixels, (side, side, 3)).clip(0, 255).astype(np.uint8))


def _land(sky: tuple, horizon_sky: tuple, near: tuple, far: tuple, horizon: float) -> Image.Image:
    """Sky above a horizon (fraction of the height), ground below it."""
    picture = _vertical(sky, horizon_sky)
    side = SIDE * OVERSAMPLE
    ground = _vertical(far, near).resize((side, side - int(horizon * side)))
    picture.paste(ground, (0, int(horizon * side)))
    return picture


def paint(place: str, rng: np.random.Generator) -> np.ndarray:
    """One background of a place, a little different each time: uint8 (SIDE, SIDE, 3).

    Raises KeyError for a place that is not in PHRASES.
    """
    side = SIDE * OVERSAMPLE
    horizon = rng.uniform(0.35, 0.55)
    x = rng.uniform(0.1, 0.9) * side
    if place == "beach":
        picture = _land((110, 190, 240), (190, 228, 248), (238, 205, 140), (246, 224, 170), horizon + 0.12)
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, horizon * side, side, (horizon + 0.12) * side), fill=(35, 135, 195))
    elif place == "grass":
        picture = _land((140, 205, 250), (205, 235, 252), (70, 150, 55), (125, 195, 85), horizon)
    elif place == "snow":
        picture = _land((165, 190, 215), (210, 224, 238), (250, 252, 255), (228, 236, 246), horizon)
        draw = ImageDraw.Draw(picture)
        peak = horizon * side * rng.uniform(0.2, 0.5)
        draw.polygon(
            [(x - 0.45 * side, horizon * side), (x, peak), (x + 0.45 * side, horizon * side)], fill=(190, 205, 224)
        )
    elif place == "street":
        picture = _land((14, 16, 42), (36, 38, 80), (52, 54, 62), (70, 72, 82), horizon + 0.1)
        draw = ImageDraw.Draw(picture)
        left = -rng.uniform(0, 0.2) * side
        while left < side:
            width = rng.uniform(0.18, 0.3) * side
            top = rng.uniform(0.05, 0.3) * side
            draw.rectangle((left, top, left + width * 0.92, (horizon + 0.1) * side), fill=(30, 30, 58))
            for row in np.arange(top + 0.06 * side, (horizon + 0.02) * side, 0.12 * side):
                draw.rectangle((left + 0.25 * width, row, left + 0.6 * width, row + 0.05 * side), fill=(240, 205, 95))
            left += width
    elif place == "room":
        wall, floor = ((232, 214, 190), (165, 112, 70)) if rng.random() < 0.5 else ((205, 216, 222), (140, 100, 75))
        picture = _land(wall, wall, floor, tuple(c - 14 for c in floor), horizon + 0.18)
        draw = ImageDraw.Draw(picture)
        left, top = x - 0.14 * side, 0.08 * side
        draw.rectangle(
            (left, top, left + 0.28 * side, top + 0.28 * side), fill=(160, 210, 240), outline=(120, 85, 60), width=4
        )
    elif place == "desert":
        picture = _land((250, 200, 130), (252, 228, 180), (205, 130, 62), (226, 158, 88), horizon)
        draw = ImageDraw.Draw(picture)
        draw.ellipse(
            (x - 0.5 * side, (horizon - 0.1) * side, x + 0.5 * side, (horizon + 0.3) * side), fill=(218, 146, 76)
        )
    elif place == "sunset":
        picture = _land((90, 50, 130), (250, 130, 80), (60, 30, 70), (110, 50, 90), horizon + 0.15)
        draw = ImageDraw.Draw(picture)
        y = (horizon + 0.05) * side
        draw.ellipse((x - 0.12 * side, y - 0.12 * side, x + 0.12 * side, y + 0.12 * side), fill=(255, 220, 120))
        draw.rectangle((0, (horizon + 0.15) * side, side, side), fill=(70, 36, 78))
    else:
        shade = {"plain": rng.uniform(150, 245, 3)}[place]
        picture = _vertical(tuple(shade + 6), tuple(shade - 6))
    picture = picture.filter(ImageFilter.GaussianBlur(1.2))
    return np.asarray(picture.resize((SIDE, SIDE), Image.BOX))
