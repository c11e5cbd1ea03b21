"""Inpainting: a masked part of a scene is drawn anew from a prompt; what is not masked stays as it is, bit by bit.

An inpainting UNet (9 input channels) sees the mask and the rest of the scene. With any other one the latents are
blended: after each step of the sampling those outside the mask are replaced by the scene's own, with the noise that
belongs to that step. Both are what diffusers' StableDiffusionInpaintPipeline does. Around it stands what makes it work
for scenes of any size: a square window is cut out around the mask, drawn at the model's resolution, and laid back over
the scene pixel by pixel, softened just outside the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.precision import as_held
from disendiff_lite.sampling import check_sampling, ddim, finite_pictures
from disendiff_lite.support.errors import UserError

CONTEXT = 2  # the window is so many times as wide as what is masked, if the scene is: the model has to see where it is
FEATHER = 1 / 32  # of the window's side: the width of the soft border; half a latent cell of the embedded model
SAME_SHAPE = 0.05  # by which a mask's ratio of width to height may differ from the scene's


@dataclass(frozen=True)
class Window:
    """A square of the scene, in pixels; it reaches beyond the scene where the scene is too low or too narrow."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class Canvas:
    """A scene with what of it is to be drawn anew.

    scene: uint8 (height, width, 3). mask: bool (height, width), True where it is drawn anew. alpha: float32 (height,
    width) in [0, 1], the share of what is drawn: 1 on the mask, falling to 0 within the soft border outside it. window:
    what the model sees. feather: width of the border, pixels.
    """

    scene: np.ndarray
    mask: np.ndarray
    alpha: np.ndarray
    window: Window
    feather: int


def prepare_canvas(
    scene: Image.Image, mask: Image.Image, resolution: int, *, invert: bool = False, feather: int | None = None
) -> Canvas:
    """A scene and a mask, ready to be drawn on.

    scene: RGB, any size. mask: white (more than half of it) where the scene is drawn anew; of another size it is
        resized. resolution: of the model's pictures, pixels. invert: draw what is black instead. feather: width of the
        soft border outside the mask, pixels of the scene; None takes a 32nd of the window.

    Raises UserError if the mask is of another shape than the scene, empty or full, or the feather is negative.
    """
    if abs(mask.width * scene.height / (mask.height * scene.width) - 1) > SAME_SHAPE:
        raise UserError(
            f"The mask has {mask.width}x{mask.height} px and the picture {scene.width}x{scene.height} px, which is"
            " another shape: paint the mask on a copy of the picture."
        )
    resized = mask.convert("L").resize(scene.size, Image.Resampling.BILINEAR)
    chosen = (np.asarray(resized) > 127) ^ invert  # (height, width)
    other = "leave out the inversion" if invert else "invert it (--invert)"
    if not chosen.any():
        colour = "black" if invert else "white"
        raise UserError(f"The mask chooses nothing: paint {colour} what is to be drawn anew, or {other}.")
    if chosen.all():
        raise UserError(f"The mask covers the whole picture, of which nothing would stay: use generate, or {other}.")
    window = choose_window(chosen, resolution)
    feather = max(round(FEATHER * window.side), 1) if feather is None else feather
    if feather < 0:
        raise UserError(f"The feather is {feather} px: give a whole number from 0.")
    return Canvas(np.asarray(scene), chosen, soft_mask(chosen, feather), window, feather)


def choose_window(mask: np.ndarray, resolution: int) -> Window:
    """The square that the model sees: around the mask, twice as wide as that and never below `resolution` px.

    It is made smaller where the scene is, down to its shorter side. Only a mask that is longer than that gets a window
    that reaches beyond the scene.

    mask: bool (height, width), not empty.
    """
    spans = [(int(places.min()), int(places.max()) + 1) for places in np.nonzero(mask)]  # of rows, of columns
    longest = max(end - start for start, end in spans)
    most = min(mask.shape) if longest <= min(mask.shape) else max(mask.shape)
    side = min(max(CONTEXT * longest, resolution), most)

    def begin(span: tuple[int, int], extent: int) -> int:
        if side >= extent:
            return -((side - extent) // 2)
        return min(max((span[0] + span[1] - side) // 2, 0), extent - side)

    top, left = (begin(span, extent) for span, extent in zip(spans, mask.shape))
    return Window(left, top, side)


def soft_mask(mask: np.ndarray, feather: int) -> np.ndarray:
    """The mask as float32 (height, width): 1 on it, 0 farther than `feather` px from it, falling evenly in between."""
    grown, blur = feather - feather // 2, feather // 2
    alpha = torch.from_numpy(mask.astype(np.float32))[None, None]  # (1, 1, height, width)
    for kernel, padding in (((2 * grown + 1, 1), (grown, 0)), ((1, 2 * grown + 1), (0, grown))):
        alpha = _pooled(F.max_pool2d, alpha, kernel, padding)
    for kernel, padding in (((2 * blur + 1, 1), (blur, 0)), ((1, 2 * blur + 1), (0, blur))):
        alpha = _pooled(F.avg_pool2d, alpha, kernel, padding)
    alpha = alpha[0, 0].numpy()
    return np.where(mask, np.float32(1), alpha)  # a mean of ones may be a bit off


def inpaint_batch(
    pipe: StableDiffusionPipeline | StableDiffusionInpaintPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: Config,
    canvas: Canvas,
    *,
    negative_prompt: str = "",
    strength: float = 1.0,
) -> list[Image.Image]:
    """One picture a prompt: the scene, with its masked part drawn anew by DDIM with classifier-free guidance.

    prompts, seeds, config, negative_prompt: as for sampling.sample. canvas: from prepare_canvas, with the same
        resolution. strength: in (0, 1], the share of the steps that is made: below 1 what was there before shows
        through.

    Returns RGB pictures of the scene's size. Outside the soft border they are the scene, to the last bit. Raises
    UserError as sampling.sample does, and if the strength leaves no step.
    """
    check_sampling(pipe, config, negative_prompt)
    if not 0 < strength <= 1 or int(config.inference_steps * strength) < 1:
        raise UserError(f"The strength is {strength:g}, which leaves no step to make: choose more, at most 1.")
    side = config.resolution
    square = Image.fromarray(_cut(canvas.scene, canvas.window)).resize((side, side), Image.Resampling.BICUBIC)
    cells = Image.fromarray(_whole_cells(canvas, side, pipe.vae_scale_factor))
    inpaint = StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    inpaint.set_progress_bar_config(disable=True)
    with ddim(inpaint), as_held(inpaint):
        pixels = inpaint(
            list(prompts),
            # One each, so that each is encoded with its own seed: a picture does not depend on its neighbours.
            image=[square] * len(prompts),
            mask_image=[cells] * len(prompts),
            negative_prompt=[negative_prompt] * len(prompts) if negative_prompt else None,
            height=side,
            width=side,
            strength=strength,
            num_inference_steps=config.inference_steps,
            guidance_scale=config.guidance_scale,
            eta=config.eta,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        ).images  # (B, side, side, 3) in [0, 1]
    return [lay_over(canvas, drawn) for drawn in finite_pictures(pipe, prompts, pixels)]


def lay_over(canvas: Canvas, drawn: Image.Image) -> Image.Image:
    """The scene with a drawn window over it, as far as `alpha` lets it through."""
    window, (height, width) = canvas.window, canvas.mask.shape
    square = np.asarray(drawn.resize((window.side, window.side), Image.Resampling.BICUBIC), np.float32)
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.top + window.side, height), min(window.left + window.side, width)
    new = square[top - window.top : bottom - window.top, left - window.left : right - window.left]
    share = canvas.alpha[top:bottom, left:right, None]
    result = canvas.scene.copy()
    old = result[top:bottom, left:right]
    # Where the share is 0 or 1 this gives back the one or the other without rounding.
    result[top:bottom, left:right] = (old * (1 - share) + new * share).round().astype(np.uint8)
    return Image.fromarray(result)


def _pooled(pool, values: torch.Tensor, kernel: tuple[int, int], padding: tuple[int, int]) -> torch.Tensor:
    """A maximum or a mean along one axis that leaves the size as it is and repeats what lies at the border."""
    rows, columns = padding
    return pool(F.pad(values, (columns, columns, rows, rows), mode="replicate"), kernel, stride=1)


def _cut(picture: np.ndarray, window: Window) -> np.ndarray:
    """The window of a picture or mask, (side, side, ...); beyond the picture its border is repeated."""
    rows, columns = (
        np.arange(start, start + window.side).clip(0, extent - 1)
        for start, extent in zip((window.top, window.left), picture.shape)
    )
    return picture[rows][:, columns]


def _whole_cells(canvas: Canvas, resolution: int, cell: int) -> np.ndarray:
    """The mask as the model needs it, uint8 (resolution, resolution): 255 in each latent cell that it touches."""
    mask = Image.fromarray(_cut(canvas.mask, canvas.window).astype(np.uint8) * 255)
    touched = np.asarray(mask.resize((resolution, resolution), Image.Resampling.BOX)) > 0
    count = resolution // cell
    cells = touched.reshape(count, cell, count, cell).any(axis=(1, 3))  # (count, count)
    return np.kron(cells, np.ones((cell, cell))).astype(np.uint8) * 255
