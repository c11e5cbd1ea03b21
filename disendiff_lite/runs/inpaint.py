"""Put what was learned into a scene: its masked part is drawn anew from a prompt, the rest of it stays."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.inpainting import inpaint_batch, prepare_canvas
from disendiff_lite.runs.generate import BATCH, draw_pictures
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.images import load_image, to_rgb


def inpaint(
    pipe: StableDiffusionPipeline | StableDiffusionInpaintPipeline,
    image: Image.Image | str | Path,
    mask: Image.Image | np.ndarray | str | Path,
    prompt: str,
    *,
    count: int = 1,
    seed: int | None = None,
    config: Config,
    negative_prompt: str = "",
    strength: float = 1.0,
    feather: int | None = None,
    invert: bool = False,
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> list[Image.Image]:
    """Pictures of a scene in which the masked part is drawn anew from a prompt, such as "a <new1> cat".

    pipe: a text-to-image model, whose latents are blended with the scene's, or an inpainting model (load_pipeline with
        `inpainting=True`, then load_learned with `any_model=True`).
    image: the scene, a picture or a file, of any size and shape. What the model sees of it is a square around the mask.
    mask: white, or True of a bool (height, width), where the scene is drawn anew. invert: draw the rest instead.
        What is drawn ends where the mask does, so it should have about the shape and size of the thing.
    count, seed, config, negative_prompt, batch_size, progress: as for `generate`.
    strength: in (0, 1]; below 1 what was there before shows through.
    feather: width of the soft border outside the mask, pixels of the scene; None takes a 32nd of the square.

    Returns `count` RGB pictures of the scene's size; outside mask and border they are the scene, to the last bit.
    Raises UserError as `generate` does, and if the mask is empty, full or of another shape than the scene.
    """
    scene = to_rgb(image) if isinstance(image, Image.Image) else load_image(image)
    canvas = prepare_canvas(scene, _read_mask(mask), config.resolution, invert=invert, feather=feather)
    seeds = picture_seeds(config.seed if seed is None else seed, count)
    options = {"negative_prompt": negative_prompt, "batch_size": batch_size, "progress": progress}
    draw = partial(inpaint_batch, canvas=canvas, strength=strength)
    return list(draw_pictures(pipe, [prompt] * count, seeds, config, draw=draw, **options))


def _read_mask(mask) -> Image.Image:
    if isinstance(mask, np.ndarray):
        return Image.fromarray((mask > 0).astype(np.uint8) * 255)
    return mask if isinstance(mask, Image.Image) else load_image(mask)
