"""Inpainting: what the model sees, the soft border, and that nothing outside it changes."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image

from disendiff_lite import inpainting
from disendiff_lite.config import emoji
from disendiff_lite.inpainting import Window, choose_window, inpaint_batch, prepare_canvas, soft_mask
from disendiff_lite.models import load_pipeline
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.errors import UserError

CONFIG = emoji(inference_steps=3)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def box(width, height, left, top, right, bottom):
    """A mask of one rectangle, as a picture."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[top:bottom, left:right] = 255
    return Image.fromarray(mask)


def levels(first, second):
    return np.abs(np.asarray(first, int) - np.asarray(second, int)).max(axis=-1)  # (height, width)


@pytest.fixture
def nine(new_tiny_pipe, tiny_unet):
    parts = new_tiny_pipe().components | {"unet": tiny_unet(in_channels=9)}
    return StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)


@pytest.mark.parametrize(
    "size, place, window",
    [
        ((64, 64), (10, 10, 30, 30), Window(0, 0, 64)),  # the whole scene
        ((256, 64), (10, 10, 30, 30), Window(0, 0, 64)),  # as far left as it goes
        ((256, 64), (120, 10, 140, 30), Window(98, 0, 64)),  # the mask in the middle
        ((64, 256), (10, 220, 30, 250), Window(0, 192, 64)),
        ((1000, 800), (500, 400, 600, 440), Window(450, 320, 200)),  # twice as wide as the mask
        ((1000, 800), (500, 400, 510, 410), Window(473, 373, 64)),  # never below the model's resolution
        ((40, 50), (10, 10, 30, 30), Window(0, 0, 40)),  # a small scene is enlarged
        ((200, 100), (20, 40, 170, 60), Window(0, -50, 200)),  # a long mask: beyond the scene its border is repeated
        ((100, 200), (40, 20, 60, 150), Window(-50, 0, 200)),
    ],
)
def test_the_window(size, place, window):
    assert choose_window(np.asarray(box(*size, *place)) > 0, 64) == window


@pytest.mark.parametrize("feather", [0, 1, 2, 5, 8])
def test_the_soft_border(feather):
    mask = np.asarray(box(60, 50, 20, 20, 40, 30)) > 0
    mask = mask.copy()
    mask[0, 0] = True  # at the border of the picture
    alpha = soft_mask(mask, feather)
    assert alpha.dtype == np.float32 and (alpha[mask] == 1).all() and alpha.min() == 0 and alpha.max() == 1
    right = alpha[25, 40 : 40 + feather + 3]
    assert (right[feather:] == 0).all() and (np.diff(right) <= 0).all()
    assert (right[: max(feather - 1, 0)] > 0).all() and (feather < 4 or 0.3 < right[feather // 2] < 0.7)


@pytest.mark.parametrize("size, place", [((64, 64), (20, 20, 40, 44)), ((90, 70), (0, 30, 30, 70))])
@pytest.mark.parametrize("kind", ["blended", "nine"])
def test_nothing_changes_outside_the_soft_border(kind, size, place, tiny_pipe, nine):
    pipe, scene = (tiny_pipe if kind == "blended" else nine), noise(*size)
    canvas = prepare_canvas(scene, box(*size, *place), 64, feather=3)
    scheduler = pipe.scheduler
    (picture,) = inpaint_batch(pipe, ["a cat"], [5], CONFIG, canvas)
    assert picture.size == size and picture.mode == "RGB" and pipe.scheduler is scheduler
    left, top, right, bottom = place
    rows, columns = np.mgrid[: size[1], : size[0]]
    far = (columns < left - 3) | (columns >= right + 3) | (rows < top - 3) | (rows >= bottom + 3)
    changed = levels(picture, scene)
    assert (changed[far] == 0).all() and far.any()
    assert (changed[canvas.mask] > 10).mean() > 0.8  # random weights: nothing of the noise is left


def test_a_picture_depends_on_its_seed_alone(tiny_pipe, nine):
    canvas = prepare_canvas(noise(64, 64), box(64, 64, 8, 8, 56, 56), 64)
    for pipe in (tiny_pipe, nine):
        seeds = picture_seeds(7, 3)
        together = inpaint_batch(pipe, ["a cat"] * 3, seeds, CONFIG, canvas)
        for seed, picture in zip(seeds, together):
            (alone,) = inpaint_batch(pipe, ["a cat"], [seed], CONFIG, canvas)
            assert levels(alone, picture).max() <= 1
        assert levels(*together[:2]).max() > 5


def test_an_inpainting_unet_sees_the_rest_of_the_scene_and_nothing_under_the_mask(nine):
    mask, scene = box(64, 64, 16, 16, 48, 48), noise(64, 64)
    under, rest = np.array(scene), np.array(scene)
    under[16:48, 16:48] = 0
    rest[:16] = 0

    def drawn(array):
        canvas = prepare_canvas(Image.fromarray(array), mask, 64, feather=0)
        return np.asarray(inpaint_batch(nine, ["a cat"], [1], CONFIG, canvas)[0])[16:48, 16:48]

    assert levels(drawn(np.array(scene)), drawn(under)).max() == 0
    assert levels(drawn(np.array(scene)), drawn(rest)).max() > 0


def test_blended_latents_are_the_scene_outside_the_mask(monkeypatch):
    pipe = load_pipeline("emoji", device="cpu")
    scene = Image.fromarray(np.repeat(np.linspace(20, 230, 64).astype(np.uint8), 192).reshape(64, 64, 3))
    canvas = prepare_canvas(scene, box(64, 64, 20, 20, 44, 44), 64)
    monkeypatch.setattr(inpainting, "lay_over", lambda _, drawn: drawn)  # as the model drew it
    (picture,) = inpaint_batch(pipe, ["photo of a red cat"], [1], emoji(inference_steps=5), canvas)
    far = levels(picture, scene)[soft_mask(canvas.mask, 6) == 0]
    assert far.mean() < 8  # what the autoencoder loses
    assert levels(picture, scene)[canvas.mask].mean() > 30


def test_the_strength_says_how_much_is_left(monkeypatch):
    pipe = load_pipeline("emoji", device="cpu")
    scene = Image.fromarray(np.repeat(np.linspace(20, 230, 64).astype(np.uint8), 192).reshape(64, 64, 3))
    canvas = prepare_canvas(scene, box(64, 64, 20, 20, 44, 44), 64)

    def change(strength):
        (picture,) = inpaint_batch(
            pipe, ["photo of a red cat"], [1], emoji(inference_steps=10), canvas, strength=strength
        )
        return levels(picture, scene)[canvas.mask].mean()

    assert change(0.2) < 0.5 * change(1.0)
    for strength in (0, 0.05, -1, 1.5, float("nan")):
        with pytest.raises(UserError, match="The strength is .* leaves no step to make: choose more, at most 1"):
            change(strength)


@pytest.mark.parametrize(
    "mask, options, words",
    [
        (Image.new("L", (64, 64)), {}, r"The mask chooses nothing: paint white .*, or invert it \(--invert\)"),
        (
            Image.new("L", (64, 64), 255),
            {"invert": True},
            "chooses nothing: paint black .*, or leave out the inversion",
        ),
        (Image.new("L", (64, 64), 120), {}, "The mask chooses nothing"),
        (Image.new("L", (64, 64), 255), {}, r"covers the whole picture, .*: use generate, or invert it \(--invert\)"),
        (Image.new("L", (64, 64)), {"invert": True}, "covers the whole picture, .*: use generate, or leave out the in"),
        (box(64, 40, 2, 2, 9, 9), {}, "The mask has 64x40 px and the picture 64x64 px, which is another shape: paint"),
        (box(64, 64, 2, 2, 9, 9), {"feather": -1}, "The feather is -1 px: give a whole number from 0"),
    ],
)
def test_masks_that_say_nothing(mask, options, words):
    with pytest.raises(UserError, match=words):
        prepare_canvas(noise(64, 64), mask, 64, **options)


def test_a_mask_of_another_size_and_an_inverted_one():
    scene, mask = noise(96, 64), box(96, 64, 24, 16, 48, 32)
    canvas = prepare_canvas(scene, mask, 64)
    double = prepare_canvas(scene, mask.resize((192, 128)), 64)
    assert (canvas.mask != double.mask).sum() < 0.1 * canvas.mask.sum()
    inverted = prepare_canvas(scene, mask, 64, invert=True)
    assert (inverted.mask == ~canvas.mask).all() and inverted.window == Window(0, -16, 96)


def test_the_model_is_told_of_every_cell_that_the_mask_touches(tiny_pipe, monkeypatch):
    told = []

    def call(pipe, *_, **options):
        told.append(np.asarray(options["mask_image"][0]))
        raise InterruptedError

    monkeypatch.setattr(StableDiffusionInpaintPipeline, "__call__", call)
    with pytest.raises(InterruptedError):
        inpaint_batch(tiny_pipe, ["a cat"], [1], CONFIG, prepare_canvas(noise(64, 64), box(64, 64, 7, 8, 9, 12), 64))
    assert (told[0] == np.asarray(box(64, 64, 4, 8, 12, 12))).all()


def test_a_picture_without_numbers_is_refused(tiny_pipe):
    with torch.no_grad():
        tiny_pipe.unet.conv_out.bias.fill_(float("nan"))
    canvas = prepare_canvas(noise(64, 64), box(64, 64, 8, 8, 56, 56), 64)
    with pytest.raises(UserError, match="The picture of 'a cat' is not made of numbers"):
        inpaint_batch(tiny_pipe, ["a cat"], [1], CONFIG, canvas)
