"""Put what was learned into a scene: its masked part is drawn anew from a prompt, the rest of it stays."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.inpainting import Canvas, inpaint_batch, prepare_canvas
from disendiff_lite.runs.generate import BATCH
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.images import load_image, to_rgb
from disendiff_lite.support.memory import TO_DRAW, enough_memory
from disendiff_lite.tokens import check_prompt


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
    options = {"negative_prompt": negative_prompt, "strength": strength, "batch_size": batch_size, "progress": progress}
    return list(draw_inpaintings(pipe, [prompt] * count, seeds, canvas, config, **options))


def draw_inpaintings(
    pipe: StableDiffusionPipeline | StableDiffusionInpaintPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    canvas: Canvas,
    config: Config,
    *,
    negative_prompt: str = "",
    strength: float = 1.0,
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Image.Image]:
    """One picture for each prompt and seed, in batches; each prompt is checked before the first picture is drawn.

    seeds: from sampling.picture_seeds. canvas: from inpainting.prepare_canvas. Others, and errors, as for `inpaint`.
    """
    for prompt in dict.fromkeys(prompts):
        check_prompt(pipe.tokenizer, prompt)
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        with enough_memory(TO_DRAW):
            pictures = inpaint_batch(
                pipe, prompts[part], seeds[part], canvas, config, negative_prompt=negative_prompt, strength=strength
            )
        if progress is not None:
            progress(start + len(pictures), len(prompts))
        yield from pictures


def _read_mask(mask) -> Image.Image:
    if isinstance(mask, np.ndarray):
        return Image.fromarray((mask > 0).astype(np.uint8) * 255)
    return mask if isinstance(mask, Image.Image) else load_image(mask)
